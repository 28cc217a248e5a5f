"""Comparing the elements of two tensors exactly, a block at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.parity.recomputed import Recomputed

_BLOCK = 1 << 18
"""Elements compared at a time: what is computed on the way fits into the processor's cache."""


@dataclass(slots=True)
class Difference:
    """Where two tensors differ.

    Attributes:
        count: In how many elements.
        first: Index of the first of them, in row-major order; None if there is none.
        ulps: How far the elements that count as equal are apart at most, in units in the last place
            of float32.
    """

    count: int = 0
    first: int | None = None
    ulps: int = 0

    def add(self, differs: NDArray[np.bool_], start: int) -> None:
        """Count a block in, which begins at index ``start``."""
        if not differs.any():
            return
        self.count += int(np.count_nonzero(differs))
        if self.first is None:
            self.first = start + int(differs.argmax())

    def describe(self, shape: tuple[int, ...]) -> str:
        """The difference of two tensors of ``shape`` in words."""
        index = [int(axis) for axis in np.unravel_index(self.first or 0, shape)]
        where = f", first at {index}" if shape else ""
        return f"in {self.count} of {math.prod(shape)} values{where}"


def compare_bits(held: memoryview, own: NDArray[np.generic]) -> Difference:
    """Compare elements by their bits: NaN equals itself, and zeros of two signs differ.

    Args:
        held: As many bytes as ``own`` has, row-major.
        own: Row-major.
    """
    unsigned = f"<u{own.itemsize}"
    ours, theirs = own.reshape(-1).view(unsigned), np.frombuffer(held, unsigned)
    difference = Difference()
    for start in range(0, ours.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        difference.add(ours[block] != theirs[block], start)
    return difference


def compare_values(held: memoryview, shape: tuple[int, ...], truth: Recomputed) -> Difference:
    """Compare float32 elements with what they should be.

    Args:
        held: Elements of a tensor of ``shape``, which has one axis or more.
        shape: Its sizes.
        truth: What they should be.
    """
    tensor = np.frombuffer(held, "<f4").reshape(shape)
    row = max(1, math.prod(shape[1:]))
    step = max(1, _BLOCK // row)
    difference = Difference()
    # What damaged weights fold into need not be a number; that is wrong without NumPy's warning.
    with np.errstate(all="ignore"):
        for start in range(0, shape[0], step):
            rows = slice(start, start + step)
            wrong, ulps = _judge(tensor[rows], truth, rows)
            difference.add(wrong, start * row)
            difference.ulps = max(difference.ulps, ulps)
    return difference


def _judge(
    held: NDArray[np.float32], truth: Recomputed, rows: slice
) -> tuple[NDArray[np.bool_], int]:
    """Which elements of some rows are wrong, and how many ulps off the others are at most."""
    exact = truth.exact(rows)
    nearest = exact.astype(np.float32)
    unequal = nearest != held
    if not unequal.any():
        return unequal, 0
    reach = truth.reach(rows)
    lowest, highest = (exact - reach).astype(np.float32), (exact + reach).astype(np.float32)
    in_reach = unequal & (lowest <= held) & (held <= highest)
    distances = np.abs(_ordinal(held[in_reach]) - _ordinal(nearest[in_reach]))
    return unequal & ~in_reach, int(distances.max(initial=0))


def _ordinal(floats: NDArray[np.float32]) -> NDArray[np.int64]:
    """Numbers that count up by one from each float32 to the next; both zeros are 0."""
    bits = floats.view(np.int32).astype(np.int64)
    return np.where(bits < 0, -(1 << 31) - bits, bits)
