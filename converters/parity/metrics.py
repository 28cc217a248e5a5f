"""What networks are given and return, and how far an output is from the oracle's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

Inputs = Mapping[str, "NDArray[np.float32]"]
"""By batch, (N, channels, height, width), normalised."""

Outputs = dict[str, "NDArray[np.floating]"]
"""Of a batch by name: ``logits``, (N, classes); or ``last_hidden_state``, (N, width, H, W), and
``pooler_output``, (N, width, 1, 1)."""

Batches = Mapping[str, Outputs]
"""By batch."""

Units = Mapping[str, Mapping[str, "Errors"]]
"""By batch and output, what an honest computation gets wrong."""

AMPLIFIED = 2.0
"""How much larger than float32's the errors are that are drawn for its unit."""


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

    def times(self, factor: float) -> Errors:
        """Both, so many times as large."""
        return Errors(self.max * factor, self.rms * factor)

    def at_least(self, other: Errors) -> Errors:
        """The larger of each; NaN if either is."""
        return Errors(
            float(np.maximum(self.max, other.max)), float(np.maximum(self.rms, other.rms))
        )


def rms(values: NDArray[np.float64]) -> float:
    """Root of the mean square of all elements, whatever the shape."""
    return float(np.sqrt(np.mean(np.square(values))))


@dataclass(frozen=True, slots=True)
class TopK:
    """Whether images keep their ``k`` best classes, as a set.

    Attributes:
        k: How many classes.
        images: How many images there are.
        agree: How many have the oracle's ``k`` best classes.
        proven: For how many no other outcome was possible: twice the largest error of any logit is
            below the oracle's margin between its k-th class and the next.
    """

    k: int
    images: int
    agree: int
    proven: int

    @classmethod
    def of(cls, logits: NDArray[np.floating], oracle: NDArray[np.float64], k: int) -> TopK:
        """Compare (N, classes) with more than ``k`` classes."""
        error = np.abs(logits.astype(np.float64) - oracle).max(axis=1)
        ranked = np.sort(oracle, axis=1)
        margin = ranked[:, -k] - ranked[:, -k - 1]
        agree = np.all(_best(logits, k) == _best(oracle, k), axis=1)
        return cls(k, len(oracle), int(agree.sum()), int((2 * error < margin).sum()))


def best_classes(
    output: NDArray[np.floating], oracle: NDArray[np.float64]
) -> tuple[TopK | None, TopK | None]:
    """Of the best class and the five best: None of what is not (N, classes), or has no more."""
    classes = oracle.shape[1] if oracle.ndim == 2 else 0  # noqa: PLR2004
    one, five = (TopK.of(output, oracle, k) if classes > k else None for k in (1, 5))
    return one, five


def _best(logits: NDArray[np.floating], k: int) -> NDArray[np.intp]:
    """The ``k`` best classes of each image, in the order of their numbers."""
    return np.sort(np.argsort(-logits, axis=1, kind="stable")[:, :k], axis=1)
