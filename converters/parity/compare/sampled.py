"""The unit of error where there are no weights to compute it from: that of two artefacts.

One run of an artefact is a single draw from a distribution: another order of the same additions
rounds otherwise. So the unit is the larger error of two, and where an output has few values, it is
borrowed from the other batches as well. Where there are weights, it is computed
(:mod:`converters.parity.units`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.parity.metrics import Batches, Errors, rms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

_LEAST = 2 * float(np.finfo(np.float32).eps)
"""Relative to the output: two roundings, which no float32 network does better but by luck."""

_BORROWED = 16
"""Values that the unit of a batch borrows from all batches: many where an output has two values,
on which honest runs are now and then right to the last bit by luck, nothing beside a thousand."""

_DOUBT = 2.0
"""How much wider the unit of a single value is: the ratio of two single draws has a long tail. It
falls with the number of values."""


def units_of(runs: Sequence[Batches], oracle: Batches) -> dict[str, dict[str, Errors]]:
    """The unit of each output on each batch.

    Args:
        runs: Outputs of honest runs: batch to output name to array.
        oracle: Likewise, in float64.

    Returns:
        Batch to output name to unit; not finite if an honest run or the oracle is not.
    """
    units: dict[str, dict[str, Errors]] = {batch: {} for batch in oracle}
    with np.errstate(invalid="ignore", over="ignore"):
        for name in dict.fromkeys(name for outputs in oracle.values() for name in outputs):
            truths = {batch: outputs[name].astype(np.float64) for batch, outputs in oracle.items()}
            worst = {batch: _worst(runs, batch, name, truth) for batch, truth in truths.items()}
            scales = _scales(truths)
            pooled = Errors(
                max=_usual(worst[batch].max / scale for batch, scale in scales.items()),
                rms=_usual(worst[batch].rms / scale for batch, scale in scales.items()),
            )
            for batch, truth in truths.items():
                units[batch][name] = _unit(worst[batch], pooled, scales[batch], truth.size)
    return units


def _scales(truths: Mapping[str, NDArray[np.float64]]) -> dict[str, float]:
    """The size of the output on each batch, but not below the usual one.

    A single logit is now and then almost zero, while the sums behind it, and so its error, are not.
    """
    sizes = {batch: rms(truth) for batch, truth in truths.items()}
    usual = _usual(sizes.values())
    return {batch: max(size, usual) or 1.0 for batch, size in sizes.items()}


def _worst(runs: Sequence[Batches], batch: str, name: str, truth: NDArray[np.float64]) -> Errors:
    errors = [Errors.of(run[batch][name], truth) for run in runs]
    return Errors(max(e.max for e in errors), max(e.rms for e in errors))


def _unit(worst: Errors, pooled: Errors, scale: float, size: int) -> Errors:
    doubt = 1 + _DOUBT / size

    def mixed(own: float, borrowed: float) -> float:
        total = size * own**2 + _BORROWED * (borrowed * scale) ** 2
        estimate = np.sqrt(total / (size + _BORROWED)) * doubt
        return float(np.max([own, estimate, _LEAST * scale]))

    return Errors(mixed(worst.max, pooled.max), mixed(worst.rms, pooled.rms))


def _usual(values: Iterable[float]) -> float:
    """The median, which one batch that amplifies rounding does not move."""
    return float(np.median(list(values)))
