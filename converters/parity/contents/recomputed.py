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

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

import numpy as np

from regnet.architecture import KERNEL, NORM_EPS
from regnet.files.dtypes import widened

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Float64 = NDArray[np.float64]

_ROUNDINGS = 16
"""How many of float64's roundings may lie between two computations of a value: each has at most
five (sum, root, quotient, product, difference), and none weighs more than the terms do."""

_REACH = _ROUNDINGS * 2.0**-53


class Recomputed(Protocol):
    """The values that a tensor should hold, before they are rounded to its type."""

    @property
    def what(self) -> str:
        """What they are, for messages."""

    def exact(self, rows: slice) -> Float64:
        """The values of some rows, indices of the first axis, with all other axes."""

    def reach(self, rows: slice) -> Float64:
        """How far another order of operations may lead from ``exact``, absolute, in its shape."""


@dataclass(frozen=True)
class Cast:
    """Weights stored in another type of float.

    Attributes:
        folder: Whose weights.
        name: In the state dict.
    """

    folder: ConvertedFolder
    name: str
    what = "the weights rounded"

    def exact(self, rows: slice) -> Float64:
        """The stored values."""
        return self._stored[rows].astype(np.float64)

    def reach(self, rows: slice) -> Float64:
        """Zero: rounding once leaves no choice."""
        return np.zeros(self._stored[rows].shape)

    @cached_property
    def _stored(self) -> NDArray[np.floating]:
        return stored(self.folder, self.name)


@dataclass(frozen=True)
class _Fold:
    """A convolution and the batch norm behind it.

    Attributes:
        folder: Whose weights.
        module: What both are in.
    """

    folder: ConvertedFolder
    module: str
    what = "the fold recomputed in float64"

    @cached_property
    def slope(self) -> Float64:
        """What the norm multiplies each channel with, (channels,)."""
        variance = self.norm("running_var")
        return self.norm("weight") * (1.0 / np.sqrt(variance + NORM_EPS))

    def norm(self, leaf: str) -> Float64:
        """A vector of the norm, (channels,)."""
        name = f"{self.module}.normalization.{leaf}"
        return stored(self.folder, name).astype(np.float64)


class FoldedKernel(_Fold):
    """The kernel of a convolution that has taken its batch norm in."""

    def exact(self, rows: slice) -> Float64:
        """The kernels of some output channels, (rows, in, height, width)."""
        kernel = self._kernel[rows].astype(np.float64)
        return kernel * self.slope[rows].reshape(-1, 1, 1, 1)

    def reach(self, rows: slice) -> Float64:
        """Relative to the value, as in every product."""
        return np.abs(self.exact(rows)) * _REACH

    @cached_property
    def _kernel(self) -> NDArray[np.floating]:
        return stored(self.folder, self.module + KERNEL)


class FoldedBias(_Fold):
    """The bias of a convolution that has taken its batch norm in."""

    def exact(self, rows: slice) -> Float64:
        """The biases of some output channels, (rows,)."""
        return (self.norm("bias") - self.norm("running_mean") * self.slope)[rows]

    def reach(self, rows: slice) -> Float64:
        """Relative to both terms of the difference, which may cancel."""
        terms = np.abs(self.norm("bias")) + np.abs(self.norm("running_mean") * self.slope)
        return (terms * _REACH)[rows]


def stored(folder: ConvertedFolder, name: str) -> NDArray[np.floating]:
    """Map a tensor of the state dict in its shape, as floats that NumPy can compute with."""
    floats: NDArray[np.floating] = widened(folder.array(name), folder.tensors[name].dtype)
    return floats
