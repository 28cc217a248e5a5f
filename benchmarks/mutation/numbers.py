"""What can happen to the numbers of one tensor, whatever it is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    Array = NDArray[Any]
    Change = Callable[[Array, np.random.Generator], Array]


def _transposed(array: Array, _: np.random.Generator) -> Array:
    """Inputs and outputs exchanged, where both are as many; the shape must not show it."""
    return array.swapaxes(0, 1) if array.shape[0] == array.shape[1] else array


def _height_and_width(array: Array, _: np.random.Generator) -> Array:
    return array.swapaxes(2, 3) if array.ndim == 4 else array  # noqa: PLR2004 -- a kernel


def _scaled(array: Array, _: np.random.Generator, factor: float) -> Array:
    return array * np.float32(factor)


def _rolled(array: Array, _: np.random.Generator, axis: int) -> Array:
    return np.roll(array, 1, axis)


def _permuted(array: Array, random: np.random.Generator) -> Array:
    return array[random.permutation(len(array))]


def _one(array: Array, random: np.random.Generator, change: Callable[[Any], Any]) -> Array:
    """Change one value that is not zero."""
    changed = array.copy()
    place = random.choice(np.flatnonzero(changed))
    changed.flat[place] = change(changed.flat[place])
    return changed


def _flipped(value: np.float32, bit: int) -> np.float32:
    return (np.float32(value).view(np.uint32) ^ np.uint32(1 << bit)).view(np.float32)


def _flip(bit: int) -> Change:
    return partial(_one, change=partial(_flipped, bit=bit))


def _through_float16(array: Array, _: np.random.Generator) -> Array:
    return array.astype(np.float16).astype(np.float32)


def _through_bfloat16(array: Array, _: np.random.Generator) -> Array:
    """To the nearest, ties to even: the upper half of the bits."""
    bits = np.ascontiguousarray(array).view(np.uint32)
    rounded = (bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))) >> np.uint32(16)
    return np.asarray((rounded << np.uint32(16)).view(np.float32))


def _through_int8(array: Array, _: np.random.Generator) -> Array:
    scale = np.abs(array).max() / 127
    return np.asarray(np.round(array / scale) * scale, np.float32)


KERNEL_CHANGES: dict[str, Change] = {
    "transposed": _transposed,
    "height and width exchanged": _height_and_width,
    "dropped (zeros)": lambda array, _: np.zeros_like(array),
    "negated": partial(_scaled, factor=-1),
    "doubled": partial(_scaled, factor=2),
    "1 % larger": partial(_scaled, factor=1.01),
    "output channels permuted": _permuted,
    "output channels off by one": partial(_rolled, axis=0),
    "input channels off by one": partial(_rolled, axis=1),
    "one weight 1 % larger": partial(_one, change=lambda value: value * np.float32(1.01)),
    "one weight negated": partial(_one, change=lambda value: -value),
    "one weight lost": partial(_one, change=lambda _: 0),
    "one lowest mantissa bit flipped": _flip(0),
    "one middle mantissa bit flipped": _flip(11),
    "one lowest exponent bit flipped": _flip(23),
    "one highest exponent bit flipped": _flip(30),
    "one NaN": partial(_one, change=lambda _: np.nan),
    "one infinity": partial(_one, change=lambda _: np.inf),
    "rounded to float16": _through_float16,
    "rounded to bfloat16": _through_bfloat16,
    "rounded to int8": _through_int8,
}
"""Of the kernel of a layer, or of the classifier."""

BIAS_CHANGES: dict[str, Change] = {
    "bias dropped": lambda array, _: np.zeros_like(array),
    "bias negated": partial(_scaled, factor=-1),
    "bias off by one channel": partial(_rolled, axis=0),
    "bias rounded to float16": _through_float16,
    "bias of one channel one ulp off": _flip(0),
}
"""Of a layer: that of the fold, of the batch norm, or its own."""
