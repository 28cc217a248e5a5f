"""What a tensor that was not copied should hold, computed anew from the weights in float64.

Written from the formula alone, and on purpose not with the exporters' code, which it checks: a
batch norm in evaluation is ``gamma * (x - mean) / sqrt(variance + eps) + beta`` for each channel
(Ioffe and Szegedy, arXiv 1502.03167), so a convolution that takes it in has the kernel
``gamma * kernel / sqrt(variance + eps)`` and the bias ``beta - gamma * mean / sqrt(variance +
eps)``.

A computation in float64, rounded to float32 at the end, gives the float32 nearest to the exact
value, unless that lies within float64's own errors of the middle between two: there another order
of operations may round to the other side. So what counts is not a number of units in the last
place, for one unit is as much as a flipped bit: a tensor is right where it is what *some* value in
reach of the recomputed one rounds to. That is one float32 in nearly all places, and two in some.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from regnet.architecture import KERNEL
from regnet.files.dtypes import widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from regnet.architecture import Norm

    Float64 = NDArray[np.float64]

_ROUNDINGS = 16
"""How many roundings may lie between two computations of a value: each has at most
five (sum, root, quotient, product, difference), and none weighs more than the terms do."""

_UNITS = {"float64": 2.0**-53, "float32": 2.0**-24}
"""What rounding a result shifts it by at most, relative to it."""


@dataclass(frozen=True)
class Recomputed(ABC):
    """The values that a tensor should hold, before they are rounded to its type.

    Attributes:
        folder: Whose weights.
        name: Of the tensor in the state dict; of a fold, what the convolution is in.
        what: What the values are, for messages.
    """

    folder: ConvertedFolder
    name: str
    what: ClassVar[str]

    @abstractmethod
    def exact(self, rows: slice) -> Float64:
        """The values of some rows, indices of the first axis, with all other axes."""

    @abstractmethod
    def reach(self, rows: slice) -> Float64:
        """How far another order of operations may lead from ``exact``, absolute, in its shape."""

    def stored(self, name: str) -> NDArray[np.floating]:
        """Map a tensor of the state dict in its shape, as floats that NumPy can compute with."""
        return widened(self.folder.array(name), self.folder.tensors[name].dtype)


class Cast(Recomputed):
    """Weights stored in another type of float."""

    what = "the weights rounded"

    def exact(self, rows: slice) -> Float64:
        """The stored values."""
        return self._weights[rows].astype(np.float64)

    def reach(self, rows: slice) -> Float64:
        """Zero: rounding once leaves no choice."""
        return np.zeros(self._weights[rows].shape)

    @cached_property
    def _weights(self) -> NDArray[np.floating]:
        return self.stored(self.name)


@dataclass(frozen=True)
class Given(Recomputed):
    """Numbers that are in no tensor of the folder, such as an image's mean.

    Attributes:
        numbers: One for each index of the first axis.
    """

    numbers: tuple[float, ...]

    what = "that of the image processor"

    def exact(self, rows: slice) -> Float64:
        """Some of them, (rows,)."""
        return np.array(self.numbers[rows])

    def reach(self, rows: slice) -> Float64:
        """Zero: rounding once leaves no choice."""
        return np.zeros(len(self.numbers[rows]))


@dataclass(frozen=True)
class _Fold(Recomputed):
    """A convolution and the batch norm behind it, or such a norm alone.

    Attributes:
        taken_in: The batch norm.
        computed_in: The type that the artefact's exporter folded in.
    """

    taken_in: Norm
    computed_in: str = "float64"

    what = "the fold recomputed in float64"

    def norm(self, leaf: str) -> Float64:
        """A vector of the batch norm, (channels,)."""
        return self.stored(f"{self.taken_in.name}.{leaf}").astype(np.float64)

    @property
    def relative(self) -> float:
        """How far another order of operations may lead, relative to the terms."""
        return _ROUNDINGS * _UNITS[self.computed_in]

    @cached_property
    def slope(self) -> Float64:
        """What the batch norm multiplies each channel with, (channels,)."""
        return self.norm("weight") * (1.0 / np.sqrt(self.norm("running_var") + self.taken_in.eps))


class FoldedKernel(_Fold):
    """The kernel of a convolution that has taken its batch norm in."""

    def exact(self, rows: slice) -> Float64:
        """The kernels of some output channels, (rows, in, height, width)."""
        return self._kernel[rows].astype(np.float64) * self.slope[rows].reshape(-1, 1, 1, 1)

    def reach(self, rows: slice) -> Float64:
        """Relative to the value, as in every product."""
        return np.abs(self.exact(rows)) * self.relative

    @cached_property
    def _kernel(self) -> NDArray[np.floating]:
        return self.stored(self.name + KERNEL)


class NormScale(_Fold):
    """What a batch norm that no convolution has taken in multiplies by."""

    def exact(self, rows: slice) -> Float64:
        """The slopes of some channels, (rows,)."""
        return self.slope[rows]

    def reach(self, rows: slice) -> Float64:
        """Relative to the value, as in every product."""
        return np.abs(self.exact(rows)) * self.relative


class FoldedBias(_Fold):
    """The bias of a convolution that has taken its batch norm in, or what a norm alone adds."""

    def exact(self, rows: slice) -> Float64:
        """The biases of some output channels, (rows,)."""
        return (self.norm("bias") - self.norm("running_mean") * self.slope)[rows]

    def reach(self, rows: slice) -> Float64:
        """Relative to both terms of the difference, which may cancel."""
        terms = np.abs(self.norm("bias")) + np.abs(self.norm("running_mean") * self.slope)
        return (terms * self.relative)[rows]
