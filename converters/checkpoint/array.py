"""An array that is to be written, for those writers whose files are trees of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


@dataclass(frozen=True)
class Array:
    """An array to be written.

    Attributes:
        dtype: Torch's name of its type, which is also NumPy's.
        shape: Its sizes.
        data: Gives its elements in C order, little-endian, in chunks of any size.
    """

    dtype: str
    shape: tuple[int, ...]
    data: Callable[[], Iterable[bytes]]

    @property
    def nbytes(self) -> int:
        """Size of the elements in bytes."""
        return prod(self.shape) * item_size(self.dtype)

    def chunks(self) -> Iterator[bytes]:
        """The elements, counted.

        Raises:
            ValueError: Behind the last, if they are more or fewer bytes than the shape says.
        """
        given = 0
        for chunk in self.data():
            given += len(chunk)
            yield chunk
        if given != self.nbytes:
            raise ValueError(f"an array gave {given} bytes where {self.nbytes} belong.")

    def whole(self) -> bytearray:
        """All elements in memory; errors are those of :meth:`chunks`."""
        elements = bytearray(self.nbytes)
        at = 0
        for chunk in self.chunks():
            elements[at : at + len(chunk)] = chunk
            at += len(chunk)
        return elements
