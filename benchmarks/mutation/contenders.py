"""The rules of two other tools, on the same artefacts.

Each compares with what float32 PyTorch gives on one batch, and neither ends the export with an
error when values differ: optimum warns, torch.onnx logs.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

import numpy as np

from converters.formats.onnx.runtime import open_session, run_session, session_options
from converters.formats.reference import ReferenceRuntime

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Outputs = dict[str, NDArray[np.floating]]

_ATOL = 1e-5
"""Of optimum-onnx 0.1.0 for a RegNet (optimum/exporters/base.py, ``ATOL_FOR_VALIDATION``)."""

_MAX_ABSOLUTE, _MAX_RELATIVE = 5e-3, 1e-1
"""From where torch 2.13 logs (torch/onnx/_internal/exporter/_core.py, step 6)."""

_SIZE = 64
"""Height and width in pixels; optimum's default for a network whose config names none."""


class Notice(enum.StrEnum):
    """What becomes of an artefact."""

    NOTHING = "nothing"
    MESSAGE = "message"
    """It is written and the command succeeds, but says that something differs."""
    STOP = "stop"
    """The command fails."""


class Contenders:
    """Both rules for one network.

    Args:
        folder: Whose artefacts are judged.

    Attributes:
        uniform: The two images that optimum's rule is shown.
    """

    def __init__(self, folder: ConvertedFolder) -> None:
        random = np.random.default_rng(0)
        channels = folder.config.num_channels
        self.uniform = random.random((2, channels, _SIZE, _SIZE)).astype(np.float32)
        self._normal = random.standard_normal((1, channels, _SIZE, _SIZE)).astype(np.float32)
        eager = ReferenceRuntime(folder)
        self._uniform_outputs, self._normal_outputs = eager(self.uniform), eager(self._normal)

    def optimum(self, path: Path) -> Notice:
        """What ``optimum-cli export onnx`` makes of a file.

        It runs two images, uniform in 0..1, without ONNX Runtime's larger optimisations
        (optimum-onnx 0.1.0, optimum/exporters/onnx/convert.py, ``_run_validation``). Other values
        or names of outputs are a warning; other shapes, and what cannot be run, are an error.
        """
        try:
            outputs = run_onnx(path, self.uniform, basic=True)
        except Exception:  # noqa: BLE001 -- onnxruntime raises classes of its own
            return Notice.STOP
        return optimum_rule(self._uniform_outputs, outputs)

    def torch_onnx(self, path: Path) -> Notice:
        """What ``torch.onnx.export(verify=True)`` makes of a file, whose example is one image.

        Everything is logged, also that the file cannot be run.
        """
        try:
            outputs = run_onnx(path, self._normal)
            noticed = torch_onnx_rule(self._normal_outputs, outputs)
        except Exception:  # noqa: BLE001 -- as torch.onnx does
            noticed = True
        return Notice.MESSAGE if noticed else Notice.NOTHING


def optimum_rule(reference: Outputs, outputs: Outputs) -> Notice:
    """Names and shapes are equal, and values by ``np.allclose``, whose relative 1e-5 is added."""
    if set(reference) != set(outputs):
        return Notice.MESSAGE
    if any(outputs[name].shape != value.shape for name, value in reference.items()):
        return Notice.STOP
    close = (np.allclose(value, outputs[name], atol=_ATOL) for name, value in reference.items())
    return Notice.NOTHING if all(close) else Notice.MESSAGE


def torch_onnx_rule(reference: Outputs, outputs: Outputs) -> bool:
    """Whether a difference is logged; outputs are told apart by their order alone.

    Raises:
        RuntimeError: From torch, if shapes do not fit.
    """
    import torch
    from torch.onnx.verification import VerificationInfo

    pairs = zip(reference.items(), outputs.values(), strict=False)
    infos = [
        VerificationInfo.from_tensors(name, torch.tensor(expected), torch.tensor(actual))
        for (name, expected), actual in pairs
    ]
    return any(
        info.max_abs_diff >= _MAX_ABSOLUTE or info.max_rel_diff >= _MAX_RELATIVE for info in infos
    )


def run_onnx(path: Path, pixels: NDArray[np.float32], *, basic: bool = False) -> Outputs:
    """Outputs by name, in the order of the file."""
    import onnxruntime

    options = session_options()
    if basic:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    return run_session(open_session(path, options), "pixel_values", pixels)
