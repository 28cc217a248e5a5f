"""Writing a flatbuffer from front to back, its large vectors computed as they are written.

The library of that name writes from back to front, and so wants the whole file in memory, every
weight in it. The format itself (https://flatbuffers.dev/internals) is a few rules, under which
anything may lie anywhere behind what points to it:

- a *table* begins with the distance back to its vtable, which says where in it each field lies;
- a vector, and a string, which ends with a zero that is not counted, begins with its length;
- tables, vectors and strings are pointed to by their distance, four bytes;
- everything lies at a multiple of its size, counted from the beginning of the file.

So all that is small comes first, with the places of what is large already in it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_DATA_ALIGNMENT = 16
"""Of :class:`Data`, as TensorFlow Lite's schema asks for (``force_align``)."""

_POINTER = 4


@dataclass(frozen=True, slots=True)
class Data:
    """A vector of bytes that is computed when it is written.

    Attributes:
        nbytes: Its length.
        compute: Gives an array of so many bytes, row-major and little-endian.
    """

    nbytes: int
    compute: Callable[[], NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Table:
    """A table: its fields in the order of their numbers, None where it has none.

    A NumPy scalar lies in the table itself, with NumPy's type. What is pointed to is an array of
    one axis (a vector of scalars), a list (of tables or strings), a string, a table or `Data`.
    """

    fields: tuple[Field, ...]


Field = np.generic | NDArray[Any] | list[Table] | list[str] | str | Table | Data | None


@dataclass(slots=True)
class FlatBuffer:
    """A flatbuffer that is laid out and can be written.

    Attributes:
        head: All that is small; the data follow it.
        data: The large vectors, each with where its elements begin.
    """

    head: bytearray
    data: list[tuple[int, Data]] = field(default_factory=list)

    @classmethod
    def of(cls, root: Table, identifier: bytes) -> FlatBuffer:
        """Lay out a table and all that it points to.

        Args:
            root: The table.
            identifier: Four bytes that say what kind of file it is.
        """
        laid_out = cls(bytearray(_POINTER) + identifier)
        pointers: list[tuple[int, Data]] = []
        waiting: deque[tuple[int, Any]] = deque([(0, root)])
        while waiting:
            pointer, value = waiting.popleft()
            if isinstance(value, Data):
                pointers.append((pointer, value))
            else:
                laid_out._point(pointer, laid_out._place(value, waiting))
        end = len(laid_out.head)
        for pointer, data in pointers:
            begin = _aligned(end + _POINTER, _DATA_ALIGNMENT)
            laid_out._point(pointer, begin - _POINTER)
            laid_out.data.append((begin, data))
            end = begin + data.nbytes
        return laid_out

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes, known before anything large is computed."""
        if not self.data:
            return len(self.head)
        begin, last = self.data[-1]
        return begin + last.nbytes

    def write(self, path: Path) -> None:
        """Create or replace a file; one large vector is in memory at a time.

        Raises:
            OSError: If it cannot be written.
        """
        with path.open("wb") as file:
            at = file.write(self.head)
            for begin, data in self.data:
                length = np.uint32(data.nbytes).tobytes()
                file.write(length.rjust(begin - at, b"\0"))
                file.write(np.ascontiguousarray(data.compute()).reshape(-1).view(np.uint8).data)
                at = begin + data.nbytes

    def _point(self, pointer: int, target: int) -> None:
        self.head[pointer : pointer + _POINTER] = np.uint32(target - pointer).tobytes()

    def _place(self, value: Any, waiting: deque[tuple[int, Any]]) -> int:
        """Append what is no data, and say where it begins; what it points to has to wait."""
        if isinstance(value, Table):
            return self._place_table(value, waiting)
        if isinstance(value, str):
            encoded = value.encode()
            begin = self._begin_vector(len(encoded), 1)
            self.head += encoded + b"\0"
        elif isinstance(value, list):
            begin = self._begin_vector(len(value), _POINTER)
            waiting.extend((len(self.head) + _POINTER * i, item) for i, item in enumerate(value))
            self.head += bytes(_POINTER * len(value))
        else:
            begin = self._begin_vector(len(value), value.itemsize)
            self.head += value.tobytes()
        return begin

    def _begin_vector(self, length: int, itemsize: int) -> int:
        self._pad(_POINTER, max(itemsize, _POINTER))
        self.head += np.uint32(length).tobytes()
        return len(self.head) - _POINTER

    def _place_table(self, table: Table, waiting: deque[tuple[int, Any]]) -> int:
        places, size, largest = [], _POINTER, _POINTER
        for value in table.fields:
            if value is None:
                places.append(0)
                continue
            own = value.itemsize if isinstance(value, np.generic) else _POINTER
            size = _aligned(size, own) + own
            places.append(size - own)
            largest = max(largest, own)
        vtable = np.array([2 * len(places) + 4, size, *places], np.uint16).tobytes()
        self._pad(len(vtable), largest)
        begin = len(self.head) + len(vtable)
        self.head += vtable + np.int32(len(vtable)).tobytes() + bytes(size - _POINTER)
        for place, value in zip(places, table.fields, strict=True):
            at = begin + place
            if isinstance(value, np.generic):
                self.head[at : at + value.itemsize] = value.tobytes()
            elif value is not None:
                waiting.append((at, value))
        return begin

    def _pad(self, ahead: int, alignment: int) -> None:
        """Append zeros until what comes so many bytes later is aligned."""
        end = len(self.head) + ahead
        self.head += bytes(_aligned(end, alignment) - end)


def _aligned(at: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-at // alignment) * alignment
