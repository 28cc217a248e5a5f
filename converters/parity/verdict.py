"""The verdict on an artefact: pass or fail, with the number that decided it.

The unit of error is what float32 PyTorch itself gets wrong on the same inputs, measured against the
float64 oracle. A fixed tolerance cannot do this job: right models of RegNetY-4.0GF differ by 7e-4
in logits of 78, wrong ones with small logits by less than 1e-5.

On one image with one or two classes PyTorch is now and then right to the last bit by luck, and a
right artefact would be many times worse than that. So the unit on a batch is no smaller than over
all batches together, nor than two roundings.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.parity.metrics import Errors, TopOne, rms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

RMS_LIMIT = 4.0
"""Times float32 PyTorch's own RMS error. Right artefacts stay near 1 (see docs/parity.md)."""

MAX_LIMIT = 8.0
"""Times float32 PyTorch's own largest error; a maximum varies more than a mean."""

_LEAST_UNIT = 2 * float(np.finfo(np.float32).eps)
"""Relative to the output: two roundings, which no float32 network does better but by luck."""

Outputs = dict[str, "NDArray[np.floating]"]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One output of an artefact on one batch.

    Attributes:
        batch: Name of the input.
        output: Name of the output.
        shape: Of the output.
        errors: Against the oracle.
        rms_ratio: RMS error in units of float32 PyTorch's.
        max_ratio: Largest error in units of float32 PyTorch's.
        top1: Agreement of classes; None where there are no logits of several classes.
        failure: Why it fails, in words; None if it passes.
    """

    batch: str
    output: str
    shape: tuple[int, ...]
    errors: Errors | None = None
    rms_ratio: float | None = None
    max_ratio: float | None = None
    top1: TopOne | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Verdict:
    """On one artefact.

    Attributes:
        artefact: File name.
        runtime: What ran it, with version.
        precision: What it computed in.
        measurements: Every output on every batch.
    """

    artefact: str
    runtime: str
    precision: str
    measurements: tuple[Measurement, ...]

    @property
    def failure(self) -> str | None:
        """The first reason to fail, or None."""
        reasons = (f"{m.batch}: {m.failure}" for m in self.measurements if m.failure)
        return next(reasons, None)

    @property
    def passed(self) -> bool:
        """Whether every measurement passed, and there was one."""
        return bool(self.measurements) and self.failure is None

    def worst(self, ratio: str) -> float:
        """The largest ``rms_ratio`` or ``max_ratio``; infinite if one could not be measured."""
        ratios = [getattr(measurement, ratio) for measurement in self.measurements]
        return max((np.inf if value is None else value for value in ratios), default=np.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {**asdict(self), "passed": self.passed, "failure": self.failure}


def judge(
    outputs: Mapping[str, Outputs],
    eager: Mapping[str, Outputs],
    oracle: Mapping[str, Outputs],
) -> tuple[Measurement, ...]:
    """Measure an artefact's outputs and decide.

    Args:
        outputs: Batch to output name to array.
        eager: Likewise, of float32 PyTorch: the unit.
        oracle: Likewise, in float64: the truth.

    Returns:
        A measurement for each output that the oracle has.
    """
    names = dict.fromkeys(name for truths in oracle.values() for name in truths)
    least = {name: _least_unit(_pooled(eager, name), _pooled(oracle, name)) for name in names}
    return tuple(
        _measure(batch, name, outputs[batch].get(name), eager[batch][name], truth, least[name])
        for batch, truths in oracle.items()
        for name, truth in truths.items()
    )


def _pooled(outputs: Mapping[str, Outputs], name: str) -> NDArray[np.float64]:
    values = [output[name].astype(np.float64).ravel() for output in outputs.values()]
    return np.concatenate(values)


def _least_unit(eager: NDArray[np.float64], truth: NDArray[np.float64]) -> Errors:
    """Errors over all batches; not finite if the oracle is not."""
    with np.errstate(invalid="ignore"):
        errors, least = Errors.of(eager, truth), _LEAST_UNIT * rms(truth)
    return Errors(max(errors.max, least), max(errors.rms, least))


def _measure(  # noqa: PLR0913, PLR0917 -- one output, and what it is measured with
    batch: str,
    name: str,
    output: NDArray[np.floating] | None,
    eager: NDArray[np.floating],
    oracle: NDArray[np.floating],
    least: Errors,
) -> Measurement:
    truth = oracle.astype(np.float64)
    if output is None:
        return Measurement(batch, name, (), failure=f"there is no output {name}")
    shape = tuple(output.shape)
    refusal = _unusable(name, output, truth)
    if refusal:
        return Measurement(batch, name, shape, failure=refusal)
    errors = Errors.of(output, truth)
    unit = Errors.of(eager, truth)
    rms_ratio = errors.rms / max(unit.rms, least.rms)
    max_ratio = errors.max / max(unit.max, least.max)
    has_classes = truth.ndim == 2 and truth.shape[1] > 1  # noqa: PLR2004 -- (N, classes)
    return Measurement(
        batch,
        name,
        shape,
        errors,
        rms_ratio,
        max_ratio,
        TopOne.of(output, truth) if has_classes else None,
        _too_far(name, rms_ratio, max_ratio),
    )


def _unusable(name: str, output: NDArray[np.floating], truth: NDArray[np.float64]) -> str | None:
    if output.shape != truth.shape:
        return f"{name} has shape {output.shape} where {truth.shape} belongs"
    if not np.isfinite(truth).all():
        return f"the oracle's own {name} is not finite, so the weights are damaged"
    if not np.isfinite(output).all():
        count = int((~np.isfinite(output)).sum())
        return f"{count} of {output.size} values of {name} are NaN or infinite"
    if len(truth) > 1 and np.ptp(truth, axis=0).max() == 0:
        return f"{name} is the same for every image, so agreement would prove nothing"
    return None


def _too_far(name: str, rms_ratio: float, max_ratio: float) -> str | None:
    if not rms_ratio <= RMS_LIMIT:  # a NaN is no pass
        return (
            f"RMS error of {name} is {rms_ratio:.3g} times float32 PyTorch's own, "
            f"limit {RMS_LIMIT:g}"
        )
    if not max_ratio <= MAX_LIMIT:
        return (
            f"largest error of {name} is {max_ratio:.3g} times float32 PyTorch's own, "
            f"limit {MAX_LIMIT:g}"
        )
    return None
