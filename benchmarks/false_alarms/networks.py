"""Random networks: of all frameworks, widths, classes, types and statistics."""

from __future__ import annotations

import contextlib
import io
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from benchmarks import torchvision_operators  # noqa: F401 -- before torchvision
from converters.folder.folder import ConvertedFolder
from converters.jobs.convert import convert
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from tests.oracles.statistics import ADVERSARIAL, adversarial, randomise

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from regnet.config import Activation

_CLASSES = (1, 2, 3, 5, 10, 50, 200, 1000, 21841)
_CLASS_WEIGHTS = (2, 3, 3, 3, 4, 3, 2, 2, 1)
_DTYPES = ("float32", "float32", "float32", "float16", "bfloat16", "float64")
_ACTS: tuple[Activation, ...] = ("relu", "relu", "relu", "relu", "gelu", "gelu_new", "selu", "silu")
_STATISTICS = ("fresh", "fresh", "fresh", "realistic", "realistic", *ADVERSARIAL)


@dataclass(frozen=True)
class Drawn:
    """A network that was drawn.

    Attributes:
        folder: Converted.
        words: What it is.
        size: Native height and width to judge it at, in pixels.
    """

    folder: ConvertedFolder
    words: str
    size: int


def draw(index: int, path: Path) -> Drawn:
    """Draw a network, let its framework save it, and convert it.

    Args:
        index: Of the network; the same index gives the same network.
        path: Of a folder that exists and is empty.
    """
    random = np.random.default_rng([2020, index])
    torch.manual_seed(index)
    framework = str(random.choice(list(_FRAMEWORKS)))
    statistics = str(random.choice(_STATISTICS))
    weights = np.array(_CLASS_WEIGHTS) / sum(_CLASS_WEIGHTS)
    classes = int(random.choice(_CLASSES, p=weights))
    dtype = str(random.choice(_DTYPES))
    size = int(random.integers(32, 97))
    channels = int(random.choice((1, 2, 3, 3, 3, 3, 4))) if framework in _ANY_CHANNELS else 3
    if framework in _WITHOUT_CLASSIFIER and random.random() < _NO_CLASSES:
        classes = 0
    shape = _Shape.of(random)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        network, save = _FRAMEWORKS[framework](random, shape, classes, channels)
        if statistics == "realistic":
            randomise(network, seed=index)
        elif statistics != "fresh":
            adversarial(network, statistics, seed=index)
        source = save(network.eval(), path)
        shards = int(random.choice((0, 0, 0, 200_000))) or None
        convert(
            source,
            path / "out",
            dtype=dtype,  # type: ignore[arg-type]
            formats=(),
            max_shard_size=shards,
            verify=False,
        )
    folder = ConvertedFolder(path / "out")
    config = folder.config
    words = (
        f"{framework}, {statistics}, {config.layer_type} {config.hidden_sizes} x {config.depths}, "
        f"{config.hidden_act}, groups of {config.groups_width}, {classes} classes"
        f"{'' if folder.has_classifier else ' (trunk)'}, {channels} channels, {dtype}"
        f"{', shards' if shards else ''}"
    )
    return Drawn(folder, words, size)


@dataclass(frozen=True)
class _Shape:
    """Of a network: what all frameworks know to build from."""

    attention: bool
    depths: tuple[int, ...]
    widths: tuple[int, ...]
    group: int
    rule: dict[str, Any]

    @classmethod
    def of(cls, random: np.random.Generator) -> _Shape:
        group = int(random.choice((1, 4, 8, 8, 16)))
        stages = int(random.integers(1, 5))
        unit = max(4, group)
        steps = random.integers(1, max(2, 40 // unit), stages)
        widths = tuple(int(w) for w in np.minimum(np.cumsum(steps) * unit, 160) // unit * unit)
        depths = tuple(int(d) for d in random.integers(1, 4, stages))
        rule = _rule(random)
        while len(_stages(rule)) != _STAGES:
            rule = _rule(random)
        return cls(bool(random.integers(2)), depths, widths, group, rule)


_STAGES = 4
"""Which timm and mmpretrain insist on."""


def _rule(random: np.random.Generator) -> dict[str, Any]:
    return {
        "depth": int(random.integers(4, 9)),
        "w_0": int(random.choice((8, 16, 24))),
        "w_a": float(random.uniform(4, 16)),
        "w_m": float(random.uniform(1.4, 2.5)),
        "group_width": int(random.choice((8, 16))),
    }


def _stages(rule: dict[str, Any]) -> list[int]:
    from torchvision.models.regnet import BlockParams

    depths: list[int] = BlockParams.from_init_params(**rule).depths
    return depths


Saved = "tuple[nn.Module, Callable[[nn.Module, Path], Path]]"


def _state(network: nn.Module, path: Path) -> Path:
    torch.save(network.state_dict(), path / "network.pth")
    return path / "network.pth"


def _ours(
    random: np.random.Generator, shape: _Shape, classes: int, channels: int, kind: type[Any]
) -> Any:
    config = RegNetConfig(
        num_channels=channels,
        embedding_size=int(random.choice((4, 8, 16, 32))),
        hidden_sizes=shape.widths,
        depths=shape.depths,
        groups_width=shape.group,
        layer_type="y" if shape.attention else "x",
        hidden_act=_ACTS[int(random.integers(len(_ACTS)))],
        downsample_in_first_stage=bool(random.integers(4)),
        num_labels=classes,
    )
    return kind(config)


def _saved_pretrained(network: Any, path: Path) -> Path:
    network.save_pretrained(path / "network")
    return path / "network"


def _reference(random: Any, shape: _Shape, classes: int, channels: int) -> Any:
    return _ours(random, shape, classes, channels, RegNetForImageClassification), _saved_pretrained


def _trunk(random: Any, shape: _Shape, classes: int, channels: int) -> Any:
    return _ours(random, shape, classes, channels, RegNetModel), _saved_pretrained


def _transformers(random: Any, shape: _Shape, classes: int, channels: int) -> Any:
    import transformers

    ours = _ours(random, shape, classes, channels, RegNetForImageClassification).config
    fields = ours.to_dict() | {
        "hidden_act": "relu" if ours.hidden_act == "selu" else ours.hidden_act
    }
    fields.pop("model_type", None)
    kind = transformers.RegNetForImageClassification
    return kind(transformers.RegNetConfig(**fields)), _saved_pretrained


def _torchvision(_: Any, shape: _Shape, classes: int, channels: int) -> Any:
    from torchvision.models.regnet import BlockParams, RegNet

    del channels
    ratio = 0.25 if shape.attention else None
    return RegNet(BlockParams.from_init_params(**shape.rule, se_ratio=ratio), classes), _state


def _timm(_: Any, shape: _Shape, classes: int, channels: int) -> Any:
    from timm.models._builder import build_model_with_cfg
    from timm.models.regnet import RegNet, RegNetCfg

    rule = shape.rule
    made = RegNetCfg(
        depth=rule["depth"],
        w0=rule["w_0"],
        wa=rule["w_a"],
        wm=rule["w_m"],
        group_size=rule["group_width"],
        se_ratio=0.25 if shape.attention else 0.0,
    )
    arguments = {"num_classes": classes, "in_chans": channels}
    return build_model_with_cfg(RegNet, "regnety_002", False, model_cfg=made, **arguments), _state


def _pycls(_: Any, shape: _Shape, classes: int, channels: int) -> Any:
    import pycls.core.builders

    from tests.oracles.pycls import save, settings

    del channels
    rule = shape.rule
    regnet = {"DEPTH": rule["depth"], "W0": rule["w_0"], "WA": rule["w_a"], "WM": rule["w_m"]}
    regnet |= {"GROUP_W": rule["group_width"], "SE_ON": shape.attention}
    with settings(regnet, classes):
        network = pycls.core.builders.build_model()
    return network, lambda made, path: save(path / "n.pyth", made, regnet, classes=classes)


def _classy_vision(_: Any, shape: _Shape, classes: int, channels: int) -> Any:
    from classy_vision.heads import build_head
    from classy_vision.models import build_model

    from tests.oracles.classy_vision import checkpoint

    del channels
    config = {"name": "regnet", "use_se": shape.attention, **shape.rule}
    network = build_model(dict(config))
    width = next(
        m for m in reversed(list(network.modules())) if isinstance(m, torch.nn.BatchNorm2d)
    )
    head = {"name": "fully_connected", "unique_id": "default_head", "num_classes": classes}
    network.set_heads({"trunk_output": [build_head(head | {"in_plane": width.num_features})]})

    def save(made: nn.Module, path: Path) -> Path:
        torch.save(checkpoint(made, config), path / "network.torch")
        return path / "network.torch"

    return network, save


def _mmpretrain(_: Any, shape: _Shape, classes: int, channels: int) -> Any:
    from tests.oracles.openmmlab import _classifier

    del channels
    rule = shape.rule
    arch = {"w0": rule["w_0"], "wa": rule["w_a"], "wm": rule["w_m"], "bot_mul": 1.0}
    arch |= {"group_w": rule["group_width"], "depth": rule["depth"]}
    return _classifier(arch, classes), _state


_FRAMEWORKS: dict[str, Callable[..., Any]] = {
    "reference": _reference,
    "reference trunk": _trunk,
    "transformers": _transformers,
    "torchvision": _torchvision,
    "timm": _timm,
    "pycls": _pycls,
    "classy-vision": _classy_vision,
    "mmpretrain": _mmpretrain,
}
_ANY_CHANNELS = ("reference", "reference trunk", "transformers", "timm")
_WITHOUT_CLASSIFIER = ("reference", "transformers", "timm")
_NO_CLASSES = 0.15
"""Part of the networks without a classifier, of frameworks that build such."""
