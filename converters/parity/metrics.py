"""How far an output is from the oracle's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Errors:
    """Absolute errors of one output, in its own unit (logits).

    Attributes:
        max: The largest.
        rms: The root of the mean square.
    """

    max: float
    rms: float

    @classmethod
    def of(cls, output: NDArray[np.floating], oracle: NDArray[np.float64]) -> Errors:
        """Measure; both arrays have one shape. NaN in, NaN out."""
        difference = output.astype(np.float64) - oracle
        return cls(float(np.abs(difference).max()), rms(difference))


def rms(values: NDArray[np.float64]) -> float:
    """Root of the mean square."""
    return float(np.sqrt(np.mean(np.square(values))))


@dataclass(frozen=True, slots=True)
class TopOne:
    """Whether images keep their class.

    Attributes:
        images: How many there are.
        agree: How many have the oracle's top class.
        proven: For how many no other outcome was possible: twice the largest error of any logit is
            below the oracle's margin between its first and second class.
    """

    images: int
    agree: int
    proven: int

    @classmethod
    def of(cls, logits: NDArray[np.floating], oracle: NDArray[np.float64]) -> TopOne:
        """Compare (N, classes) with at least two classes."""
        error = np.abs(logits.astype(np.float64) - oracle).max(axis=1)
        ranked = np.sort(oracle, axis=1)
        margin = ranked[:, -1] - ranked[:, -2]
        agree = logits.argmax(axis=1) == oracle.argmax(axis=1)
        return cls(len(oracle), int(agree.sum()), int((2 * error < margin).sum()))
