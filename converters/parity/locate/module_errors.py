"""The errors of a module: against the oracle, and given the module's own input.

Comparing every value of an artefact with the oracle's shows how an error travels, but not where it
begins: rounding adds up with depth, so that a small fault hides, and whatever follows a fault is
wrong as well. So each module of the reference model is also run in float64 on the very input that
the artefact's module had. What differs then is this module's doing, and it is judged in units of
one module's rounding: see :mod:`converters.parity.locate.honest_error`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from converters.formats.operations import called, computed, tensors_of
from converters.formats.reference import reference_model, torch_threads
from converters.parity.locate.honest_error import honest_error
from converters.parity.locate.walk import Output
from converters.parity.metrics import Errors, rms
from regnet.architecture import PIXELS, Conv

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import Operation, Operations

    Values = Mapping[str, NDArray[np.float32]]
    _Given = tuple[Tensor, Tensor] | None

BAND = 16.0
"""How many times the error of honest rounding a module may make by itself, in its worst channel.
Right artefacts stay below 6 (`python -m benchmarks.locate --calibrate 16`)."""

_LEAST_UNIT = 2 * float(np.finfo(np.float32).eps)
"""Relative to a value: two roundings."""

_UNKNOWN = Errors(math.nan, math.nan)


@dataclass(frozen=True, slots=True)
class ModuleError:
    """One value inside an artefact.

    Attributes:
        module: The module of the reference model that computes it; see
            :mod:`converters.parity.locate.walk`.
        depth: Its place in the order of execution, from 0.
        errors: Against the oracle's value; NaN where the artefact has none of this shape.
        ratio: The RMS error in units of float32 PyTorch's at this depth, or of the module's own
            rounding where that is more; infinite where the artefact has no value of this shape.
        local: The RMS error of the worst channel given the module's own input, in units of honest
            rounding on that input; None where that input, or the reference's output, is not finite
            or missing.
    """

    module: str
    depth: int
    errors: Errors
    ratio: float
    local: float | None

    @property
    def at_fault(self) -> bool:
        """Whether the module itself is wrong."""
        return self.local is not None and not self.local <= BAND


def measure(
    folder: ConvertedFolder, operations: Operations, values: Values
) -> list[tuple[ModuleError, int | None]]:
    """Measure every value of an artefact.

    Args:
        folder: Whose weights are the truth.
        operations: What makes the values, as :func:`~converters.parity.locate.walk.values_of` has
            them.
        values: Of the artefact by name, ``pixel_values`` among them.

    Returns:
        For each operation its errors, and the channel in which the module itself errs most.
    """
    last_reader = {name: operation for operation in operations for name in operation.inputs}
    pixels = torch.tensor(values[PIXELS])
    pairs: dict[str, tuple[Tensor, ...]] = {PIXELS: (pixels.double(), pixels)}
    measured = []
    with torch.inference_mode(), torch_threads():
        stored = reference_model(folder).state_dict()
        for depth, operation in enumerate(operations):
            both = zip(*(pairs[name] for name in operation.inputs), strict=True)
            pair = tuple(compute(operation, inputs, stored) for inputs in both)
            pairs[operation.name] = pair
            own = _given(operation, values, stored)
            measured.append(_module_error(operation, depth, values, pair, own))
            for name in operation.inputs:
                if last_reader[name] is operation:  # memory for what is still to be read
                    del pairs[name]
    return measured


def compute(operation: Operation, inputs: Sequence[Tensor], stored: Mapping[str, Tensor]) -> Tensor:
    """Compute a value as the reference model does, in the precision of ``inputs``.

    Args:
        operation: What makes it.
        inputs: What it reads, (N, C, H, W) or (N, C).
        stored: The state dict.

    Raises:
        RuntimeError: From torch, if the shapes of the inputs do not fit.
    """
    if isinstance(operation, Output):
        return inputs[0]
    value = computed(operation, inputs, tensors_of(operation, stored, inputs[0].dtype), called)
    norm = operation.norm if isinstance(operation, Conv) else None
    return compute(norm, [value], stored) if norm else value


def _given(operation: Operation, values: Values, stored: Mapping[str, Tensor]) -> _Given:
    """A value and its honest error on the artefact's own input; None if that is of no use."""
    found = [values.get(name) for name in operation.inputs]
    given = [value for value in found if value is not None and np.isfinite(value).all()]
    if len(given) < len(found):
        return None
    inputs = [torch.tensor(value, dtype=torch.float64) for value in given]
    try:
        truth = compute(operation, inputs, stored)
    except RuntimeError:  # shapes that do not fit, after an earlier fault
        return None
    return truth, honest_error(operation, inputs, truth, stored)


def _module_error(
    operation: Operation, depth: int, values: Values, pair: Sequence[Tensor], own: _Given
) -> tuple[ModuleError, int | None]:
    name, value = operation.name, values.get(operation.name)
    truth, eager = (tensor.numpy() for tensor in pair)
    if value is None or value.ndim != truth.ndim:
        return ModuleError(name, depth, _UNKNOWN, math.inf, math.inf), None
    local, channel = (None, None) if own is None else _local(value, *own)
    if value.shape != truth.shape:
        return ModuleError(name, depth, _UNKNOWN, math.inf, local), channel
    with np.errstate(invalid="ignore", over="ignore"):
        errors = Errors.of(value, truth)
        floor = 0.0 if own is None else rms(own[1].numpy())
        unit = max(Errors.of(eager, truth).rms, floor, _LEAST_UNIT * rms(truth))
    return ModuleError(name, depth, errors, float(_ratio(errors.rms, unit)), local), channel


def _local(
    value: NDArray[np.float32], truth_tensor: Tensor, unit: Tensor
) -> tuple[float | None, int | None]:
    """The RMS error of the worst channel in units of an honest one, and which one that is."""
    truth = truth_tensor.numpy()
    if value.shape != truth.shape:
        return math.inf, None
    if not np.isfinite(truth).all():
        return None, None
    with np.errstate(invalid="ignore", over="ignore"):
        errors = _by_channel(value - truth)
    ratios = _ratio(errors, unit.numpy())
    return float(ratios.max()), int(np.argmax(np.nan_to_num(errors, nan=np.inf)))


def _by_channel(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """RMS of each channel, the second axis."""
    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
    result: NDArray[np.float64] = np.sqrt(np.mean(np.square(values), axis=axes))
    return result


def _ratio(
    error: float | NDArray[np.float64], unit: float | NDArray[np.float64]
) -> NDArray[np.float64]:
    """Nothing wrong is 0 in any unit; what is not finite is infinitely wrong."""
    errors, units = np.asarray(error, np.float64), np.asarray(unit, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratios = np.where(errors == 0, 0.0, errors / units)
    return np.where(np.isfinite(ratios), ratios, np.inf)
