"""Golden vectors: the inputs and the oracle's outputs, stored beside the artefacts.

With them a folder verifies itself anywhere: the oracle computed again from the folder's weights
must give what it gave when the checkpoint was converted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.checkpoint import open_checkpoint
from converters.errors import InputError
from converters.families.recognise import tensors_of
from converters.folder.folder import GOLDEN_NAME
from converters.parity.metrics import Batches, Inputs, rms
from converters.parity.verdict import Measurement, Verdict
from regnet.files.safetensors_file import TensorSpec, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.parity.metrics import Outputs, Units

_PIXELS = ".pixel_values"

_ORACLE_LIMIT = 16.0
"""In units of float64's own error: float32's, scaled by the ratio of their roundings. Float64 sums
in another order stay below 1; a flipped lowest bit of a weight is hundreds, or behind a ReLU that
lets nothing of it through."""

_FLOAT64_ROUNDING = 2.0**-29
"""In units of float32's: 2**-53 to 2**-24."""


def write_golden(folder: Path, inputs: Inputs, oracle: Batches) -> None:
    """Write ``golden.safetensors``.

    Args:
        folder: The converted folder.
        inputs: Batch to pixels, (N, C, H, W), stored as ``<batch>.pixel_values``.
        oracle: Batch to output name to float64 array, (N, classes) or (N, width, H, W), stored as
            ``<batch>.<output>``.
    """
    arrays: dict[str, NDArray[np.floating]] = {
        batch + _PIXELS: pixels for batch, pixels in inputs.items()
    }
    for batch, outputs in oracle.items():
        arrays |= {f"{batch}.{name}": output for name, output in outputs.items()}
    specs = [TensorSpec(name, array.dtype.name, array.shape) for name, array in arrays.items()]
    write_file(folder / GOLDEN_NAME, specs, lambda spec: [arrays[spec.name].tobytes()])


def read_golden(folder: ConvertedFolder) -> tuple[Inputs, Batches]:
    """Read inputs and the oracle's outputs back, as :func:`write_golden` took them.

    Raises:
        InputError: If the file is missing, damaged or another network's.
    """
    path, channels = folder.path / GOLDEN_NAME, folder.config.num_channels
    inputs: dict[str, NDArray[np.float32]] = {}
    oracle: dict[str, Outputs] = {}
    with open_checkpoint(path) as checkpoint:
        tensors = tensors_of(checkpoint.tree)
        batches = [name.removesuffix(_PIXELS) for name in tensors if name.endswith(_PIXELS)]
        for batch in sorted(batches, key=lambda batch: (batch != "native", batch)):  # as written
            names = [f"{batch}.{name}" for name in folder.output_names]
            if not set(names) <= set(tensors):
                raise InputError(
                    f"{path} lacks {names[0]}; it belongs to another folder, convert again."
                )
            shape = tensors[batch + _PIXELS].shape
            if len(shape) != 4 or shape[1] != channels or not all(shape):  # noqa: PLR2004 -- NCHW
                raise InputError(
                    f"{path} holds {batch}{_PIXELS} of shape {list(shape)}, where the network "
                    f"takes (N, {channels}, H, W); it belongs to another folder, convert again."
                )
            inputs[batch] = checkpoint.array(tensors[batch + _PIXELS]).astype(np.float32)
            oracle[batch] = {
                name: checkpoint.array(tensors[f"{batch}.{name}"]).astype(np.float64)
                for name in folder.output_names
            }
    if not inputs:
        raise InputError(f"{path} holds no inputs; convert the checkpoint again.")
    return inputs, oracle


def judge_golden(oracle: Batches, golden: Batches, units: Units) -> Verdict:
    """Compare the oracle, computed again, with what it gave when the checkpoint was converted.

    Args:
        oracle: Batch to output name to float64 array.
        golden: Likewise, as recorded.
        units: Of float32.
    """
    measurements = tuple(
        Measurement(
            batch,
            name,
            truth.shape,
            failure=_differs(oracle[batch][name], truth, units[batch][name].rms),
        )
        for batch, truths in golden.items()
        for name, truth in truths.items()
    )
    return Verdict(GOLDEN_NAME, "oracle", "float64", measurements)


def _differs(output: NDArray[np.floating], golden: NDArray[np.floating], unit: float) -> str | None:
    if output.shape != golden.shape:
        return f"the oracle gives shape {output.shape} where {golden.shape} was recorded"
    difference = rms(output.astype(np.float64) - golden)
    if difference == 0:
        return None
    ratio = difference / (unit * _FLOAT64_ROUNDING) if unit else np.inf
    if not ratio <= _ORACLE_LIMIT:
        return (
            f"the weights no longer give what they gave when they were converted (they differ by "
            f"{ratio:.2g} times float64's own error, limit {_ORACLE_LIMIT:g})"
        )
    return None
