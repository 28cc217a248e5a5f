"""Mutants: artefacts with one fault each, and where the fault was put."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from benchmarks.mutation.artefact import Artefact

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Mutant:
    """A fault that is to be planted.

    Attributes:
        kind: What the table counts it under.
        place: The tensor, module or node.
        plant: Changes the right artefact.
        in_weights: Whether it is in numbers that the file promises to hold, so that it is a fault
            whatever comes of it. Any other is one if it changes an output.
    """

    kind: str
    place: str
    plant: Callable[[Artefact], None]
    in_weights: bool = False


def spread(candidates: Sequence[T], count: int, random: np.random.Generator) -> list[T]:
    """Draw so many places, one from each stretch of the network, from the stem to its end."""
    if len(candidates) <= count:
        return list(candidates)
    ends = [len(candidates) * part // count for part in range(count + 1)]
    return [candidates[int(random.integers(start, end))] for start, end in pairwise(ends)]
