"""Small networks of every kind, and how their artefacts are judged."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.parity.truth import Truth
from converters.parity.verify import verify_artefacts
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.parity.report import Report

IMAGE_SIZE = 48

FORMS = {
    "self-contained": ("onnx", ExportOptions(share_weights=False)),
    "sharing": ("onnx", ExportOptions(share_weights=True)),
    "torchscript": ("torchscript", ExportOptions()),
}
"""What can be exported, and how."""

OPENS_COREML = (
    pytest.mark.slow,
    pytest.mark.skipif(find_spec("coremltools") is None, reason="coremltools is not installed"),
)
"""Marks of what takes Core ML packages apart with coremltools, which `make test-all` installs."""

_SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": (16, 24, 40),
    "depths": (1, 2, 1),
    "groups_width": 8,
    "num_labels": 10,
}

NETWORKS: dict[str, dict[str, Any]] = {
    "X": {"layer_type": "x"},
    "Y": {"layer_type": "y"},
    "X, gelu": {"layer_type": "x", "hidden_act": "gelu"},
    "Y, gelu_new": {"hidden_act": "gelu_new"},
    "X, selu": {"layer_type": "x", "hidden_act": "selu"},
    "Y, silu": {"hidden_act": "silu"},
    "full first stage": {"downsample_in_first_stage": False},
    "grey": {"num_channels": 1},
    "depthwise": {"groups_width": 1},
    "one group": {"layer_type": "x", "groups_width": 40},
    "deep": {"hidden_sizes": (16, 32, 64, 128), "depths": (2, 4, 8, 2)},
    "one class": {"num_labels": 1},
    "two classes": {"num_labels": 2},
    "thousand classes": {"num_labels": 1000},
}

_Z: dict[str, Any] = {
    "hidden_act": "silu",
    "expansion": 2.0,
    "expansion_of": "input",
    "se_of": "bottleneck",
    "se_divisor": 8,
    "shortcut": "none",
    "output_act": False,
    "head_size": 48,
}
_V: dict[str, Any] = {
    "hidden_act": "silu",
    "se_act": "silu",
    "preactivation": True,
    "final_act": True,
}
_EVOS: dict[str, Any] = _Z | {"norm": "evonorm-s0a", "norm_group_size": 8, "norm_eps": 1e-3}

WIDER: dict[str, dict[str, Any]] = {
    "V": _V,
    "V, averaged shortcut": _V | {"shortcut": "avg"},
    "Z": _Z,
    "Z of EvoNorm": _EVOS,
    "group norm": {"norm": "group", "norm_group_size": 8, "hidden_act": "silu", "se_act": "silu"},
    "same padding": {"padding": "same"},
    "three stems": _Z
    | {"stem_sizes": (8, 16, 8), "stem_strides": (2, 1, 2), "strides": (1, 2, 2), "head_size": 0},
    "EvoNorm, projections": _EVOS | {"shortcut": "conv", "output_act": True, "head_size": 0},
    "averaged shortcut": {"shortcut": "avg", "norm_eps": 1e-3},
    "all at once": _V
    | {"shortcut": "avg", "norm": "group", "norm_group_size": 8, "padding": "same"},
    "uneven groups": {"groups_width": (8, 4, 40), "layer_type": "x"},
}
"""What timm, pycls and Keras call RegNet and transformers does not: each new operation, and the
ways in which blocks differ."""


@dataclass(frozen=True)
class Network:
    """A folder, and what its artefacts are measured against."""

    folder: ConvertedFolder
    truth: Truth

    @classmethod
    def of(cls, folder: ConvertedFolder) -> Network:
        inputs = verification_inputs(folder.config.num_channels, IMAGE_SIZE)
        return cls(folder, Truth(folder, inputs))

    def report(self, form: str, path: Path) -> Report:
        """Judge a file, which may be another's artefact."""
        return verify_artefacts(self.folder, self.truth, {FORMS[form][0]: path})


def random_network(path: Path, name: str, *, classifier: bool = True, seed: int = 0) -> Network:
    config = RegNetConfig(**_SMALL | {**NETWORKS, **WIDER}[name])
    return Network.of(random_folder(path, config, classifier=classifier, seed=seed))


def export(folder: ConvertedFolder, form: str) -> Path:
    """Write an artefact into the folder."""
    kind, options = FORMS[form]
    path = folder.path / FORMATS[kind].file_name
    FORMATS[kind].export(folder, path, options)
    return path
