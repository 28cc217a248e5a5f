"""Timing runtimes against each other, warm and in turn, and what to deploy on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from converters.errors import in_words
from converters.jobs.predict import EAGER

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.formats.runtime import ArtefactRuntime

VerdictWord = Literal["pass", "FAIL", "not run", "changed", "not verified"]
Goal = Literal["latency", "throughput"]

_CALLS = 2
"""Timed in one turn, after one that is not: whoever ran before has left the caches to himself."""


class Contender(NamedTuple):
    """A runtime with so many threads.

    Attributes:
        runtime: A key of :data:`converters.formats.registry.FORMATS`, or ``torch``.
        threads: How many compute.
    """

    runtime: str
    threads: int


@dataclass(frozen=True, slots=True)
class Timing:
    """How long one batch takes.

    Attributes:
        batch: Images in it.
        median: Seconds.
        lower: First quartile of the seconds.
        upper: Third quartile.
        calls: How many were timed.
    """

    batch: int
    median: float
    lower: float
    upper: float
    calls: int

    @classmethod
    def of(cls, batch: int, seconds: Sequence[float]) -> Timing:
        """Summarise at least two calls."""
        lower, median, upper = quantiles(seconds, n=4, method="inclusive")
        return cls(batch, median, lower, upper, len(seconds))

    @property
    def throughput(self) -> float:
        """Images per second."""
        return self.batch / self.median

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: seconds, and images per second."""
        return {
            "batch": self.batch,
            "seconds": {"median": self.median, "q1": self.lower, "q3": self.upper},
            "throughput": self.throughput,
            "calls": self.calls,
        }


def time_in_turn(
    contenders: Mapping[Contender, ArtefactRuntime],
    batches: Sequence[NDArray[np.float32]],
    rounds: int,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[Contender, list[Timing | str]]:
    """Time every contender on every batch.

    They take turns, round after round, so that whatever else the machine does meets all alike. In
    each turn the first call is not timed.

    Args:
        contenders: What runs the network. Those with waiting threads that spin would steal the
            cores of the next.
        batches: Pixels, (N, num_channels, H, W).
        rounds: How many turns each has on each batch.
        advance: Called with 1 after each turn.

    Returns:
        For each contender and each batch the timing, or in words why it cannot run that batch.
    """
    seconds: dict[tuple[Contender, int], list[float]] = {}
    failures: dict[tuple[Contender, int], str] = {}
    for _ in range(rounds):
        for index, pixels in enumerate(batches):
            for contender, network in contenders.items():
                key = (contender, index)
                if key not in failures:
                    try:
                        seconds.setdefault(key, []).extend(network.seconds(pixels, _CALLS))
                    except Exception as error:  # noqa: BLE001 -- runtimes raise their own classes
                        failures[key] = in_words(error)
                advance(1)
    return {
        contender: [
            failures.get((contender, index)) or Timing.of(len(pixels), seconds[contender, index])
            for index, pixels in enumerate(batches)
        ]
        for contender in contenders
    }


@dataclass(frozen=True, slots=True)
class Entry:
    """One contender with all that bears on choosing it.

    Attributes:
        contender: Runtime and threads.
        title: Of the format, for people.
        name: Runtime with version, such as ``onnxruntime 1.32.0``.
        precision: It computes in.
        size: Of the artefact's file, or of the weights, in bytes.
        verdict: As ``conversion.json`` has it; ``changed`` if the file is not the one judged.
        timings: One for each batch; words where it cannot be run.
    """

    contender: Contender
    title: str
    name: str
    precision: str
    size: int
    verdict: VerdictWord
    timings: Sequence[Timing | str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "runtime": self.contender.runtime,
            "threads": self.contender.threads,
            "name": self.name,
            "precision": self.precision,
            "size": self.size,
            "verdict": self.verdict,
            "timings": [t.to_dict() for t in self.timings if isinstance(t, Timing)],
            "failures": [t for t in self.timings if isinstance(t, str)],
        }


@dataclass(frozen=True, slots=True)
class Choice:
    """What to deploy.

    Attributes:
        goal: What it is best at.
        entry: The contender.
        timing: Its timing that decided.
        equals: Runtimes whose spread overlaps with the fastest's, so that the order between them
            may be chance.
    """

    goal: Goal
    entry: Entry
    timing: Timing
    equals: tuple[Contender, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "goal": self.goal,
            **self.entry.contender._asdict(),
            "batch": self.timing.batch,
            "equals": [contender._asdict() for contender in self.equals],
        }


def choose(entries: Sequence[Entry], goal: Goal) -> Choice | None:
    """Choose among those whose verdict is pass.

    The fastest wins by its median. Where quartiles overlap, the order may be chance, and what
    changes least wins: float32 before other precisions, an artefact before eager PyTorch, few
    threads before many, and then the order of the formats.

    Args:
        entries: In the order of the formats.
        goal: ``latency`` looks at the smallest batch, ``throughput`` at images per second of any.

    Returns:
        The choice, or None if there is nothing to choose from.
    """
    timed = [
        (entry, timing)
        for entry in entries
        if entry.verdict == "pass"
        for timing in entry.timings
        if isinstance(timing, Timing)
    ]
    if goal == "latency":
        smallest = min((timing.batch for _, timing in timed), default=0)
        timed = [(entry, timing) for entry, timing in timed if timing.batch == smallest]
    if not timed:
        return None
    fastest = min((timing for _, timing in timed), key=lambda t: t.median / t.batch)
    limit = fastest.upper / fastest.batch
    equals = [(entry, timing) for entry, timing in timed if timing.lower / timing.batch <= limit]
    entry, timing = min(equals, key=lambda pair: _change(pair[0]))
    others = dict.fromkeys(e.contender for e, _ in equals if e.contender != entry.contender)
    return Choice(goal, entry, timing, tuple(others))


def _change(entry: Entry) -> tuple[bool, bool, int]:
    runtime, threads = entry.contender
    return entry.precision != "float32", runtime == EAGER, threads
