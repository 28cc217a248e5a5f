"""What a random network does to the signal that runs through it, without running it.

Kernels have mean zero and standard deviation ``GAIN / sqrt(fan-in)``; neighbouring input channels
have opposite kernels, so what all channels have in common, which is the same for every image and
would drown the rest within a few layers, cancels. What a convolution puts out has then GAIN ** 2
times the variance of what comes in, and that goes into the running variance of its batch norm.
Normal distributions are assumed throughout. Weights and biases of batch norms lie where those of
trained networks do, see ``tests/oracles/statistics.py``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regnet.architecture import PIXELS, Act, Add, Conv, Norm, Scale

if TYPE_CHECKING:
    from collections.abc import Iterable

    from regnet.architecture import Operation

GAIN = 0.85
"""Of a convolution: standard deviation of its weights times the square root of the fan-in."""

SQUEEZE_GAIN = 0.5
"""Of both convolutions of squeeze-and-excitation."""

LOGIT_GAIN = 2.0
"""Of the classifier, on features of variance 1."""

NORM_WEIGHT = (0.8, 0.3)
"""Mean and standard deviation."""

NORM_BIAS = (-0.2, 0.6)
"""Mean and standard deviation."""

_EXCITED = 0.5
"""What squeeze-and-excitation multiplies with, on average: the sigmoid of nearly nothing."""


@dataclass(frozen=True, slots=True)
class Signal:
    """Mean and second moment of activations, over channels, pixels and images."""

    mean: float
    square: float

    @property
    def variance(self) -> float:
        """Around the mean."""
        return self.square - self.mean**2

    def rectified(self) -> Signal:
        """Behind a ReLU, if they are distributed normally."""
        deviation = math.sqrt(self.variance)
        ratio = self.mean / deviation
        density = math.exp(-(ratio**2) / 2) / math.sqrt(2 * math.pi)
        positive = (1 + math.erf(ratio / math.sqrt(2))) / 2
        return Signal(
            self.mean * positive + deviation * density,
            self.square * positive + self.mean * deviation * density,
        )

    def scaled(self, factor: float) -> Signal:
        """Times a factor."""
        return Signal(self.mean * factor, self.square * factor**2)

    def __add__(self, other: Signal) -> Signal:
        """The sum with an independent signal."""
        return Signal(
            self.mean + other.mean, self.square + other.square + 2 * self.mean * other.mean
        )


IMAGES = Signal(0.0, 1.0)
"""Normalised pixels."""

NORMALISED = Signal(
    NORM_BIAS[0], NORM_WEIGHT[0] ** 2 + NORM_WEIGHT[1] ** 2 + NORM_BIAS[0] ** 2 + NORM_BIAS[1] ** 2
)
"""Behind any batch norm."""


def propagate(operations: Iterable[Operation]) -> tuple[dict[str, float], Signal]:
    """Follow the signal from the image to the features.

    Args:
        operations: The trunk.

    Returns:
        The variance of the output of each convolution with a batch norm behind it, by the name of
        the module around both; and the signal that a classifier reads.
    """
    variances: dict[str, float] = {}
    signals = {PIXELS: IMAGES}
    for operation in operations:
        signal, *others = (signals[name] for name in operation.inputs)
        match operation:
            case Conv(slots=[_]):
                variances[operation.around] = GAIN**2 * signal.variance
            case Norm():
                signal = NORMALISED
            case Act():
                signal = signal.rectified()
            case Scale():
                signal = signal.scaled(_EXCITED)
            case Add():
                signal += others[0]
        signals[operation.output] = signal
    return variances, signal
