"""The verdict on an artefact: pass or fail, with the number that decided it.

The unit of error is what an honest computation in the artefact's own precision gets wrong on the
same inputs (`converters.parity.units`). A fixed tolerance cannot do this job: right models of
RegNetY-4.0GF differ by 7e-4 in logits of 78, wrong ones with small logits by less than 1e-5.
docs/parity.md derives the rule.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.parity.metrics import Errors, TopK, best_classes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from converters.folder.record import Outcome
    from converters.parity.contents.tensors import TensorCertificate
    from converters.parity.metrics import Batches, Units

RMS_LIMIT = 4.0
"""Times the unit. Right artefacts stay near 1 (see docs/parity.md)."""

MAX_LIMIT = 6.0
"""Times the unit of the largest error; a maximum varies more than a mean."""

PROVEN = "graph proven"
"""What every form says of a graph that another tool wrote, and that is the folder's network."""

NOT_RUN = "not run"
"""What stands in the place of a runtime where nothing was run."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One output of an artefact on one batch.

    Attributes:
        batch: Name of the input.
        output: Name of the output.
        shape: Of the output.
        errors: Against the oracle.
        unit: What an honest computation gets wrong here.
        rms_ratio: RMS error in its unit.
        max_ratio: Largest error in its unit.
        top1: Agreement of classes; None where there are no logits of several classes.
        top5: Agreement of the five best classes, where there are more.
        failure: Why it fails, in words; None if it passes.
    """

    batch: str
    output: str
    shape: tuple[int, ...]
    errors: Errors | None = None
    unit: Errors | None = None
    rms_ratio: float | None = None
    max_ratio: float | None = None
    top1: TopK | None = None
    top5: TopK | None = None
    failure: str | None = None

    @classmethod
    def of(
        cls, batch: str, output: str, shape: tuple[int, ...], errors: Errors, unit: Errors
    ) -> Measurement:
        """Take the ratios of what was measured; whether they fail is up to the caller."""
        ratios = _ratio(errors.rms, unit.rms), _ratio(errors.max, unit.max)
        return cls(batch, output, shape, errors, unit, *ratios)

    @property
    def share(self) -> float:
        """How much of its limit the larger ratio uses up: above 1 is fail."""
        if self.rms_ratio is None or self.max_ratio is None:
            return np.inf
        return max(self.rms_ratio / RMS_LIMIT, self.max_ratio / MAX_LIMIT)


@dataclass(frozen=True)
class Verdict:
    """On one artefact.

    What was not run is no pass: it is not in the way of one only where its tensors are proven, and
    is called what it is everywhere.

    Attributes:
        artefact: File name.
        runtime: What ran it, with version.
        precision: What it computed in.
        measurements: Every output on every batch.
        tensors: Proof of the weights it holds; None where it holds none of its own.
        not_run: Why it was not run, as words that follow "not run: "; None if it was. It holds no
            figure of the machine, since it is written into files. Where there are measurements all
            the same, its program was evaluated instead, which finds faults and is no pass.
        not_compared: What of it was compared with nothing, such as its graph, so that numbers (and
            tensors, if they were) alone speak for it; None where there is no such part.
        found: Whether it lay in a folder, instead of having been written just now: then, if it was
            not run, tensors do not speak for a graph that was not compared.
        graph: Of what another tool or revision wrote: :data:`PROVEN`, or why it is not, as a clause
            (:mod:`converters.parity.contents.found`); None of everything else.
    """

    artefact: str
    runtime: str
    precision: str
    measurements: tuple[Measurement, ...]
    tensors: TensorCertificate | None = None
    not_run: str | None = None
    not_compared: str | None = None
    found: bool = False
    graph: str | None = None

    @property
    def wrong(self) -> str | None:
        """The first thing that was found wrong, or None."""
        reasons = [f"{m.batch}: {m.failure}" for m in self.measurements if m.failure]
        if self.tensors and self.tensors.failure:
            reasons.append(self.tensors.failure)
        return reasons[0] if reasons else None

    @property
    def unproven(self) -> str | None:
        """Why nothing is known of it, where nothing was found wrong; None if something is."""
        if self.wrong or self.measurements:
            return None
        if self.not_run is None:
            return "nothing was measured"
        if self.tensors is None:
            return f"not run: {self.not_run}, and nothing else of it can be proven"
        if self.found and self.not_compared:
            return f"not run: {self.not_run}, and nothing else speaks for its {self.not_compared}"
        return None

    @property
    def unproven_graph(self) -> str | None:
        """Why a graph that was read is not proven; None if it is, or was not read."""
        return None if self.graph == PROVEN else self.graph

    @property
    def failure(self) -> str | None:
        """Why it does not pass: what is wrong, or that nothing is known; None if it passes."""
        return self.wrong or self.unproven

    @property
    def passed(self) -> bool:
        """Whether it was measured, or its tensors proven, and nothing is wrong."""
        return self.failure is None

    @property
    def outcome(self) -> Outcome:
        """What everything that shows a verdict or goes by one says of it."""
        if self.wrong:
            return "FAIL"
        if self.not_run is not None:
            return "not run"
        return "pass" if self.passed else "FAIL"

    @property
    def ran(self) -> str:
        """What ran it and in which precision, or that nothing did."""
        return self.runtime if self.not_run is not None else f"{self.runtime}, {self.precision}"

    @property
    def reason(self) -> str:
        """The number that decided: of a fail what is wrong, of a pass what came nearest to it."""
        if self.failure:
            return self.failure
        measured = [m for m in self.measurements if m.rms_ratio is not None]
        if self.not_run is not None and not measured:
            return f"its tensors are proven; not run: {self.not_run}"
        if not measured:
            return "equal to what was recorded"
        worst = max(measured, key=lambda m: m.share)
        _, words = max(_ratios(worst, self.precision), key=itemgetter(0))
        evaluated = "" if self.not_run is None else f"; evaluated, not run: {self.not_run}"
        return f"{worst.batch}: {words}{evaluated}"

    def worst(self, ratio: str) -> float:
        """The largest ``rms_ratio`` or ``max_ratio``; infinite if one could not be measured."""
        ratios = [getattr(measurement, ratio) for measurement in self.measurements]
        return max((np.inf if value is None else value for value in ratios), default=np.inf)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        own = asdict(self)
        if self.graph is None:
            del own["graph"]  # what is written by ourselves has none
        return {
            **own,
            "outcome": self.outcome,
            "passed": self.passed,
            "failure": self.failure,
            "reason": self.reason,
        }


def judge(
    outputs: Batches,
    units: Units,
    oracle: Batches,
    precision: str = "float32",
) -> tuple[Measurement, ...]:
    """Measure an artefact's outputs and decide.

    Args:
        outputs: Batch to output name to an array of floats, in the shape that the oracle's has:
            ``logits``, (N, classes); ``last_hidden_state``, (N, width, H, W); ``pooler_output``,
            (N, width, 1, 1).
        units: From :func:`converters.parity.units.float32_units`, or of another precision.
        oracle: Like ``outputs``, all float64: the truth.
        precision: What the artefact computes in, for the words.

    Returns:
        A measurement for each output that the oracle has, on each batch that has a unit.
    """
    return tuple(
        _measure(batch, name, outputs[batch].get(name), unit, oracle[batch][name], precision)
        for batch, by_output in units.items()
        for name, unit in by_output.items()
    )


def _measure(  # noqa: PLR0913, PLR0917 -- one output, and what it is measured with
    batch: str,
    name: str,
    output: NDArray[np.floating] | None,
    unit: Errors,
    oracle: NDArray[np.floating],
    precision: str,
) -> Measurement:
    truth = oracle.astype(np.float64)
    if output is None:
        return Measurement(batch, name, (), failure=f"there is no output {name}")
    shape = tuple(output.shape)
    refusal = _unusable(name, output, truth)
    if refusal is None and not np.isfinite([unit.rms, unit.max]).all():
        refusal = f"an honest {precision} computation of {name} leaves the range of {precision}"
    if refusal:
        return Measurement(batch, name, shape, failure=refusal)
    measured = Measurement.of(batch, name, shape, Errors.of(output, truth), unit)
    top1, top5 = best_classes(output, truth)
    too_far = (words for share, words in _ratios(measured, precision) if not share <= 1)  # or NaN
    return replace(measured, top1=top1, top5=top5, failure=next(too_far, None))


def _ratio(error: float, unit: float) -> float:
    """Error in units, of which both may be zero, where an output is zero whatever the input."""
    if unit == 0:
        return 0.0 if error == 0 else np.inf
    return error / unit


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


def _ratios(measured: Measurement, precision: str) -> Iterator[tuple[float, str]]:
    """Of each ratio how much of its limit it uses up, and what it says."""
    for kind, ratio, limit in (
        ("RMS", measured.rms_ratio, RMS_LIMIT),
        ("largest", measured.max_ratio, MAX_LIMIT),
    ):
        if ratio is not None:
            words = f"is {ratio:.3g} times honest {precision}'s own, limit {limit:g}"
            yield ratio / limit, f"{kind} error of {measured.output} {words}"
