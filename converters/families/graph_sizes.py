"""How large the values of an exported graph are, for images of every size.

Exporters write sizes as numbers, or compute them of the images' own: for zeros around an image, for
groups of channels. A size that is open is a table, what it is for each size of the images, so that
two are the same or not, however they are computed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from regnet.config import MAX_SIDE
from regnet.files.json_file import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


@dataclass(frozen=True, slots=True)
class Extent:
    """A size that depends on one size of the images.

    Attributes:
        axis: Of the images, from 0.
        table: What it is where that is 1, 2 and so on up to `MAX_SIDE`.
    """

    axis: int
    table: tuple[int, ...]

    def __str__(self) -> str:
        return "NCHW"[self.axis]


@dataclass(frozen=True, slots=True)
class Volume:
    """The product of several sizes, as a reshape has it that is told all others.

    Attributes:
        number: What of it is known.
        extents: The factors that are open.
    """

    number: int
    extents: tuple[Extent, ...]

    def __str__(self) -> str:
        return "x".join(map(str, (self.number, *self.extents)))


Size = int | Extent | Volume


class Sizes(tuple[Size, ...]):
    """A shape, what `Shape` gives, and what is picked from it or computed of it."""

    __slots__ = ()


def open_size(axis: int) -> Extent:
    """A size of the images that is open."""
    return Extent(axis, tuple(range(1, MAX_SIDE + 1)))


def computed(function: Callable[..., int], *sizes: Size) -> int | Extent:
    """What a function of numbers gives for sizes.

    Raises:
        ValueError: It is of several sizes of the images, or gives what no size is.
    """
    axes = {size.axis for size in sizes if isinstance(size, Extent)}
    if len(axes) > 1 or any(isinstance(size, Volume) for size in sizes):
        raise ValueError("computes with the height and the width together")
    columns = [s.table if isinstance(s, Extent) else (s,) * MAX_SIDE for s in sizes] if axes else []
    rows = zip(*columns, strict=True) if axes else [sizes]
    try:
        table = tuple(int(function(*row)) for row in rows)
    except ArithmeticError as error:
        raise ValueError("comes to nothing") from error
    if any(abs(number) > MAX_COUNT for number in table):
        raise ValueError("comes to more than any size")
    return table[0] if len(set(table)) == 1 else Extent(axes.pop(), table)


def volume(sizes: Sequence[Size]) -> Volume:
    """The product of sizes."""
    number = 1
    extents: list[Extent] = []
    for size in sizes:
        number *= size if isinstance(size, int) else getattr(size, "number", 1)
        extents += [size] if isinstance(size, Extent) else getattr(size, "extents", ())
    return Volume(number, tuple(sorted(extents, key=lambda one: (one.axis, one.table))))


def filled_in(sizes: Sequence[Size], whole: Sequence[Size]) -> Sizes | None:
    """Sizes with -1 replaced by what a reshape leaves for it; None if they are not of the whole.

    Args:
        sizes: Among which there may be one -1.
        whole: The shape before.
    """
    wanted, stated = volume(whole), volume([size for size in sizes if size != -1])
    left = Counter(wanted.extents)
    left.subtract(stated.extents)
    if min(left.values(), default=0) < 0 or stated.number < 1 or wanted.number % stated.number:
        return None
    number, extents = wanted.number // stated.number, tuple(left.elements())
    rest: Size = Volume(number, extents)
    if not extents:
        rest = number
    elif number == 1 and len(extents) == 1:
        (rest,) = extents
    if list(sizes).count(-1) != 1 and (rest != 1 or -1 in sizes):
        return None
    return Sizes(rest if size == -1 else size for size in sizes)


def spread(one: Sequence[Size], other: Sequence[Size]) -> Sizes | None:
    """The shape of both where one is repeated along its last axes to have the other's.

    None if that is not how they differ. Elements then stay in their order: what is repeated is for
    each of them the value of the group that it is in.
    """
    if tuple(one) == tuple(other):
        return Sizes(one)
    if len(one) != len(other):
        return None
    for few, many in ((one, other), (other, one)):
        kept = next(i for i, pair in enumerate(zip(few, many, strict=True)) if pair[0] != pair[1])
        if all(size == 1 for size in few[kept:]):
            return Sizes(many)
    return None
