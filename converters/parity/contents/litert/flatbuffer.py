"""Reading a flatbuffer that nobody vouches for: every place is looked at before it is believed.

Format: https://flatbuffers.dev/internals. A field that the file lacks has the schema's default.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.parity.contents.held import part

if TYPE_CHECKING:
    from numpy.typing import NDArray

_POINTER = 4
_VTABLE_HEAD = 4
"""Bytes of a vtable before its places: its own size and the table's."""

_IDENTIFIER = slice(4, 8)


@dataclass(slots=True)
class Octets:
    """The bytes of a flatbuffer.

    Attributes:
        view: All of them, and what may lie behind them.
        end: Behind the last one that was looked at.
    """

    view: memoryview
    end: int = 0

    def part(self, offset: int, length: int) -> memoryview:
        """Take a stretch.

        Raises:
            ValueError: If it does not lie inside.
        """
        found = part(self.view, offset, length)
        self.end = max(self.end, offset + length)
        return found


@dataclass(frozen=True, slots=True)
class Table:
    """A table, or a vector's element of that kind.

    Attributes:
        file: The whole file.
        at: Where in it the table begins.

    Raises:
        ValueError: From every method, if what it looks for does not lie inside the file.
    """

    file: Octets
    at: int

    @classmethod
    def root(cls, file: memoryview, identifier: bytes) -> Table:
        """The table that a file begins with.

        Raises:
            ValueError: If the file is too short, or of another kind.
        """
        if bytes(file[_IDENTIFIER]) != identifier:
            raise ValueError(f"it is no flatbuffer of the kind {identifier.decode()}")
        octets = Octets(file)
        return cls(octets, _pointed_at(octets, 0))

    def number(self, field: int, kind: str, default: float = 0) -> Any:
        """A scalar of NumPy's type ``kind``."""
        at = self._place(field)
        return default if at is None else _scalar(self.file, at, kind).item()

    def has(self, field: int) -> bool:
        """Whether the file has the field."""
        return self._place(field) is not None

    def table(self, field: int) -> Table | None:
        """A table."""
        at = self._place(field)
        return None if at is None else Table(self.file, _pointed_at(self.file, at))

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        at, length = self._vector(field)
        places = self.file.part(at, length * _POINTER)
        starts = np.frombuffer(places, "<u4").astype(np.int64) + np.arange(length) * _POINTER + at
        return [Table(self.file, int(start)) for start in starts]

    def numbers(self, field: int, kind: str) -> NDArray[Any]:
        """A vector of scalars, where it lies."""
        at, length = self._vector(field)
        return np.frombuffer(self.file.part(at, length * np.dtype(kind).itemsize), kind)

    def octets(self, field: int) -> memoryview:
        """A vector of bytes, where it lies."""
        at, length = self._vector(field)
        return self.file.part(at, length)

    def text(self, field: int) -> str:
        """A string, behind which is a zero that is not counted."""
        at, length = self._vector(field)
        return bytes(self.file.part(at, length + bool(at)))[:length].decode()

    def _place(self, field: int) -> int | None:
        vtable = self.at - int(_scalar(self.file, self.at, "<i4"))
        size = int(_scalar(self.file, vtable, "<u2"))
        self.file.part(self.at, int(_scalar(self.file, vtable + 2, "<u2")))
        place = _VTABLE_HEAD + 2 * field
        if place + 2 > size:
            return None
        offset = int(_scalar(self.file, vtable + place, "<u2"))
        return self.at + offset if offset else None

    def _vector(self, field: int) -> tuple[int, int]:
        """Where a vector's elements begin, and how many there are; none if the file lacks it."""
        at = self._place(field)
        if at is None:
            return 0, 0
        begin = _pointed_at(self.file, at)
        return begin + _POINTER, int(_scalar(self.file, begin, "<u4"))


def _pointed_at(file: Octets, at: int) -> int:
    return at + int(_scalar(file, at, "<u4"))


def _scalar(file: Octets, at: int, kind: str) -> np.generic:
    number: np.generic = np.frombuffer(file.part(at, np.dtype(kind).itemsize), kind)[0]
    return number
