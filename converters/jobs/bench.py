"""Timing runtimes against each other, warm and in turn."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import quantiles
from typing import TYPE_CHECKING, Any, NamedTuple

from converters.errors import in_words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.formats.runtime import ArtefactRuntime

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
