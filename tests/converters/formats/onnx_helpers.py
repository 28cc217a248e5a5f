"""What the tests of the ONNX exporter share: small networks, and the distance to the oracle."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import openvino
import torch
from onnx import numpy_helper

from converters.formats.format import ExportOptions
from converters.formats.onnx.export import export_onnx
from regnet.model import RegNetForImageClassification, RegNetModel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Outputs = dict[str, NDArray[np.floating[Any]]]
    Runtime = Callable[[NDArray[np.float32]], Outputs]

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": (16, 24, 40),
    "depths": (1, 2, 1),
    "groups_width": 8,
    "num_labels": 10,
}
BATCHES = (1, 3)
SIZES = ((64, 64), (33, 47), (96, 64))
ALLOWED_RATIO = 3.0
"""To the error of eager float32 PyTorch."""


def exported(folder: ConvertedFolder, *, share: bool) -> Path:
    path = folder.path / f"{'sharing' if share else 'self-contained'}.onnx"
    export_onnx(folder, path, ExportOptions(share_weights=share))
    return path


def reference(folder: ConvertedFolder) -> torch.nn.Module:
    model = RegNetForImageClassification if folder.has_classifier else RegNetModel
    return model.from_pretrained(folder.path).eval()


def state_dict(folder: ConvertedFolder) -> dict[str, NDArray[Any]]:
    return {name: tensor.numpy() for name, tensor in reference(folder).state_dict().items()}


def initializers(path: Path) -> dict[str, NDArray[Any]]:
    model = onnx.load(path)
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def images(folder: ConvertedFolder) -> Iterator[NDArray[np.float32]]:
    draw = np.random.default_rng(0)
    for batch, size in itertools.product(BATCHES, SIZES):
        shape = (batch, folder.config.num_channels, *size)
        yield draw.standard_normal(shape).astype(np.float32)


def eager(folder: ConvertedFolder, dtype: torch.dtype) -> Runtime:
    model = reference(folder).to(dtype)

    def run(pixels: NDArray[np.float32]) -> Outputs:
        with torch.inference_mode():
            outputs = model(torch.from_numpy(pixels).to(dtype))
        return {name: outputs[name].numpy() for name in outputs}

    return run


def openvino_runtime(path: Path) -> Runtime:
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    model = openvino.Core().compile_model(path, "CPU", hints)

    def run(pixels: NDArray[np.float32]) -> Outputs:
        results = model(pixels)
        return {output.any_name: results[output] for output in model.outputs}

    return run


def error_ratio(folder: ConvertedFolder, runtime: Runtime) -> float:
    """RMS error of the worst output against the oracle, in units of eager float32 PyTorch's."""
    oracle, torch32 = eager(folder, torch.float64), eager(folder, torch.float32)
    squares: dict[str, list[tuple[float, float]]] = {}
    for pixels in images(folder):
        truth, theirs, ours = oracle(pixels), torch32(pixels), runtime(pixels)
        assert ours.keys() == truth.keys()
        for name, exact in truth.items():
            assert ours[name].shape == exact.shape
            pair = (np.square(ours[name] - exact).sum(), np.square(theirs[name] - exact).sum())
            squares.setdefault(name, []).append(pair)
    sums = np.array([np.sum(pairs, axis=0) for pairs in squares.values()])
    return float(np.sqrt(sums[:, 0] / sums[:, 1]).max())


def recast(folder: ConvertedFolder, path: Path, dtype: torch.dtype) -> ConvertedFolder:
    reference(folder).to(dtype).save_pretrained(path)  # type: ignore[operator]
    return type(folder)(path)
