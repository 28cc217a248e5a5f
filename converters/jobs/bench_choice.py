"""What to deploy on this machine, of all that was timed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from converters.jobs.bench import Contender, Timing
from converters.jobs.predict import EAGER

if TYPE_CHECKING:
    from collections.abc import Sequence

VerdictWord = Literal["pass", "FAIL", "not run", "changed", "not verified"]
Goal = Literal["latency", "throughput"]

_FLOAT32 = "float32"


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
    return entry.precision != _FLOAT32, runtime == EAGER, threads
