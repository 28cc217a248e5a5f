"""Comparing the elements of two tensors exactly, a block at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from converters.parity.contents.recomputed import Recomputed

_FLOAT32 = 2.0**-24
"""What rounding to float32 shifts a number by, relative to it."""

_TINY = float(np.finfo(np.float32).tiny)

_HALF_A_STEP = 0.5 + 255 * _FLOAT32
"""An integer is the nearest one, but for the rounding of up to 127 steps and of the step."""

_LARGEST = 127
"""Of the integers of a weight."""

_ROUNDED = 8 * _FLOAT32
"""Relative: a step is a quotient of rounded numbers."""

_BLOCK = 1 << 18
"""Elements compared at a time: what is computed on the way fits into the processor's cache."""


@dataclass(slots=True)
class Difference:
    """Where two tensors differ.

    Attributes:
        count: In how many elements.
        first: Index of the first of them, in row-major order; None if there is none.
        ulps: How far the elements that count as equal are apart at most, in units in the last place
            of their type.
    """

    count: int = 0
    first: int | None = None
    ulps: int = 0

    def describe(self, shape: tuple[int, ...]) -> str:
        """The difference of two tensors of ``shape`` in words."""
        index = [int(axis) for axis in np.unravel_index(self.first or 0, shape)]
        where = f", first at {index}" if shape else ""
        return f"in {self.count} of {math.prod(shape)} values{where}"


def compare_bits(held: memoryview, own: NDArray[np.generic]) -> Difference:
    """Compare elements by their bits: NaN equals itself, and zeros of two signs differ.

    Args:
        held: As many bytes as ``own`` has, row-major.
        own: Of any shape and dtype, row-major.
    """
    unsigned = f"<u{own.itemsize}"
    ours, theirs = own.reshape(-1).view(unsigned), np.frombuffer(held, unsigned)
    return _by_blocks(ours.shape, lambda block: (ours[block] != theirs[block], 0))


def compare_values(
    held: memoryview, shape: tuple[int, ...], truth: Recomputed, dtype: str = "float32"
) -> Difference:
    """Compare elements with what they should be.

    Args:
        held: Elements of a tensor of ``shape``, which has one axis or more.
        shape: Its sizes.
        truth: What they should be.
        dtype: Their type, ``float32`` or ``float16``.
    """
    tensor = np.frombuffer(held, np.dtype(dtype).newbyteorder("<")).reshape(shape)
    return _by_blocks(shape, lambda rows: _judge(tensor[rows], truth, rows))


def compare_steps(
    held: NDArray[np.integer],
    steps: NDArray[np.float32],
    truth: Recomputed,
    least: NDArray[np.float64] | None = None,
) -> Difference:
    """Compare integers with the numbers that they stand for: half a step away at most.

    The numbers may have been rounded to float32 before.

    Args:
        held: Elements of a tensor of one axis or more.
        steps: What one is worth, (rows,).
        truth: What they stand for.
        least: What a step must be worth at least, (rows,), of what has steps of its own choice:
            then these are as small as that and the largest number of a row let them be.
    """

    def judge(rows: slice) -> tuple[NDArray[np.bool_], int]:
        step = steps[rows].astype(np.float64).reshape(-1, *[1] * (held.ndim - 1))
        exact = truth.exact(rows)
        away = np.abs(held[rows] * step - exact)
        allowed = step * _HALF_A_STEP + np.abs(exact) * _FLOAT32 + truth.reach(rows)
        near = away <= allowed
        if least is not None:
            largest = np.abs(exact).reshape(len(exact), -1).max(1, initial=0)
            reach = truth.reach(rows).reshape(len(exact), -1).max(1, initial=0)
            due = np.maximum(largest / _LARGEST, least[rows])
            fits = np.abs(step.ravel() - due) <= due * _ROUNDED + reach
            near &= (fits | (due < _TINY)).reshape(step.shape)
        return ~near, 0

    return _by_blocks(held.shape, judge)


def _by_blocks(
    shape: tuple[int, ...], judge: Callable[[slice], tuple[NDArray[np.bool_], int]]
) -> Difference:
    """Compare tensors of one axis or more, some rows at a time.

    Args:
        shape: Theirs.
        judge: Gives for some rows which elements are wrong, and how many ulps off the others are
            at most.
    """
    row = max(1, math.prod(shape[1:]))
    step = max(1, _BLOCK // row)
    difference = Difference()
    # What damaged weights fold into need not be a number; that is wrong without NumPy's warning.
    with np.errstate(all="ignore"):
        for start in range(0, shape[0], step):
            differs, ulps = judge(slice(start, start + step))
            difference.ulps = max(difference.ulps, ulps)
            if differs.any():
                difference.count += int(np.count_nonzero(differs))
                if difference.first is None:
                    difference.first = start * row + int(differs.argmax())
    return difference


def _judge(
    held: NDArray[np.floating], truth: Recomputed, rows: slice
) -> tuple[NDArray[np.bool_], int]:
    """Judge rows of floats as `_by_blocks` wants it."""
    exact = truth.exact(rows)
    nearest = exact.astype(held.dtype)
    unequal = nearest != held
    if not unequal.any():
        return unequal, 0
    reach = truth.reach(rows)
    lowest, highest = (exact - reach).astype(held.dtype), (exact + reach).astype(held.dtype)
    in_reach = unequal & (lowest <= held) & (held <= highest)
    distances = np.abs(_ordinal(held[in_reach]) - _ordinal(nearest[in_reach]))
    return unequal & ~in_reach, int(distances.max(initial=0))


def _ordinal(floats: NDArray[np.floating]) -> NDArray[np.int64]:
    """Numbers that count up by one from each float to the next; both zeros are 0."""
    size = floats.dtype.itemsize
    bits = floats.view(f"i{size}").astype(np.int64)
    return np.where(bits < 0, -(1 << (8 * size - 1)) - bits, bits)
