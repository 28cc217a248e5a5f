"""The errors of a module: against the oracle, and given the module's own input.

Comparing every value of an artefact with the oracle's shows how an error travels, but not where it
begins: rounding adds up with depth, so that a small fault hides, and whatever follows a fault is
wrong as well. So each module of the reference model is also run in float64 on the very input that
the artefact's module had. What differs then is this module's doing, and it is judged in units of
one module's rounding: see :mod:`converters.parity.locate.honest_error`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch

from converters.formats.operations import called, computed, tensors_of
from converters.formats.reference import reference_model, torch_threads
from converters.parity.contents.grids import natural_ranges
from converters.parity.locate.honest_error import Rounding, honest_error
from converters.parity.locate.walk import Output, values_of
from converters.parity.metrics import Errors, rms
from regnet.architecture import PIXELS, Conv, folded

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from converters.folder.folder import ConvertedFolder
    from converters.parity.locate.intermediates import Intermediates
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
    folder: ConvertedFolder,
    operations: Operations,
    pixels: NDArray[np.float32],
    artefact: Intermediates,
) -> list[tuple[ModuleError, int | None]]:
    """Measure every value of an artefact.

    A hidden value's error is that of the next, which the same operator makes.

    Args:
        folder: Whose weights are the truth.
        operations: What makes the values, as :func:`~converters.parity.locate.walk.values_of` has
            them.
        pixels: What the artefact was run on, if its values do not say otherwise.
        artefact: What it computed.

    Returns:
        For each operation its errors, and the channel in which the module itself errs most.
    """
    values = {PIXELS: pixels, **artefact.values}
    last_reader = {name: operation for operation in operations for name in operation.inputs}
    given = torch.tensor(values[PIXELS])
    pairs: dict[str, tuple[Tensor, ...]] = {PIXELS: (given.double(), given)}
    limits = dict(_limits(folder, artefact.grids))
    rounding = Rounding(artefact.precision, artefact.grids, limits)
    hidden: dict[str, tuple[int, _Given]] = {}
    measured: list[tuple[ModuleError, int | None]] = []
    with torch.inference_mode(), torch_threads():
        stored = reference_model(folder).state_dict()
        for depth, operation in enumerate(operations):
            both = zip(*(pairs[name] for name in operation.inputs), strict=True)
            pair = tuple(compute(operation, inputs, stored) for inputs in both)
            pairs[operation.name] = pair
            own = _given(operation, values, stored, rounding, hidden)
            measured.append(_module_error(operation, depth, values, pair, own))
            if operation.name in artefact.hidden:
                hidden[operation.name] = depth, own
            for name in hidden.keys() & set(operation.inputs):
                of_both, channel = measured[depth]
                first = hidden[name][0]
                measured[first] = replace(of_both, module=name, depth=first), channel
                measured[depth] = replace(of_both, local=None), None
            for name in operation.inputs:
                if last_reader[name] is operation:  # memory for what is still to be read
                    del pairs[name]
    return measured


def _limits(
    folder: ConvertedFolder, grids: Mapping[str, tuple[float, float]]
) -> Iterator[tuple[str, tuple[float, float]]]:
    """Of values in integers the ends of the grid, or of natural images where these lie beyond."""
    if not grids:
        return
    natural = natural_ranges(folder)
    made = folded(folder.architecture.operations)
    for operation, value in zip(made, values_of(folder, folded=True), strict=False):
        if value.name in grids:
            ends = [natural.get(operation.output, (0.0, 0.0)), grids[value.name]]
            yield value.name, (min(least for least, _ in ends), max(most for _, most in ends))


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


def _given(
    operation: Operation,
    values: Values,
    stored: Mapping[str, Tensor],
    rounding: Rounding,
    hidden: Mapping[str, tuple[int, _Given]],
) -> _Given:
    """A value and its honest error on the artefact's own input; None if that is of no use.

    In place of a hidden input is what the reference makes of its own, with the error of that: only
    a ReLU follows it, which makes no error larger.
    """
    inputs: list[Tensor] = []
    before: Tensor | float = 0.0
    for name in operation.inputs:
        value = values.get(name)
        if name in hidden and (own := hidden[name][1]) is not None:
            inputs.append(own[0])
            before = own[1]
        elif value is not None and np.isfinite(value).all():
            inputs.append(torch.tensor(value, dtype=torch.float64))
        else:
            return None
    try:
        truth = compute(operation, inputs, stored)
    except RuntimeError:  # shapes that do not fit, after an earlier fault
        return None
    unit = honest_error(operation, inputs, truth, stored, rounding) + before
    if ends := rounding.limits.get(operation.name):  # a little beyond them it is cut off
        truth = truth.clamp(*ends)
    return truth, unit


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
