"""Files with holes: pages that are zeros to whoever reads them, and take no disk.

Every ``step``-th page of a file is written, counted from its beginning; the pages between are
zeros. A file system gives no disk to a page that was never written.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAGE = 4096
"""What a file system allots at least, in bytes."""

_WORDS = PAGE // 8


def zero_between(data: NDArray[np.uint8], position: int, step: int) -> None:
    """Zero, in place, what falls on other than every ``step``-th page.

    Args:
        data: Bytes, shape (n,).
        position: Of the first of them in the file.
        step: In pages.
    """
    head = min(-position % PAGE, data.size)
    first = (position + head) // PAGE
    if position // PAGE % step:
        data[:head] = 0
    whole = (data.size - head) // PAGE
    pages = data[head : head + whole * PAGE].reshape(whole, PAGE)
    for offset in range(step):
        if (first + offset) % step:
            pages[offset::step] = 0
    if (first + whole) % step:
        data[head + whole * PAGE :] = 0


class SparseFile(io.FileIO):
    """A file to be written front to back, in which whole pages of zeros become holes.

    Args:
        path: Created or replaced.

    Raises:
        OSError: From any method, if the file cannot be written.
    """

    def __init__(self, path: Any) -> None:
        super().__init__(path, "w")

    def write(self, data: Any) -> int:
        """Write bytes where the file stands; nothing is written of its pages of zeros."""
        view = memoryview(data).cast("B")
        position = self.tell()
        for begin, end in _filled(np.frombuffer(view, np.uint8), position):
            self.seek(position + begin)
            self._write_all(view[begin:end])
        return len(view) if self.seek(position + len(view)) else 0

    def close(self) -> None:
        """Give the file its length, which may end in a hole, and close it."""
        if not self.closed:
            end = self.seek(0, io.SEEK_CUR)
            self.truncate(max(end, self.seek(0, io.SEEK_END)))
        super().close()

    def _write_all(self, data: memoryview) -> None:
        while data:
            data = data[super().write(data) :]


def _filled(data: NDArray[np.uint8], position: int) -> list[tuple[int, int]]:
    """Where bytes lie that have to be written: beginnings and ends of runs, in bytes."""
    head = min(-position % PAGE, data.size)
    whole = (data.size - head) // PAGE
    words = np.ascontiguousarray(data[head : head + whole * PAGE]).view(np.uint64)
    pages = words.reshape(whole, _WORDS)
    empty = pages[:, 0] == 0  # a cheap sieve: of dense data it leaves nearly nothing
    if not empty.any():
        return [(0, data.size)] if data.size else []
    empty[empty] = ~pages[empty].any(axis=1)
    bounds = np.flatnonzero(np.diff(np.concatenate(([True], empty, [True]))))
    runs = [(head + PAGE * int(a), head + PAGE * int(b)) for a, b in bounds.reshape(-1, 2)]
    tail = head + whole * PAGE
    return [run for run in ((0, head), *runs, (tail, data.size)) if run[0] < run[1]]
