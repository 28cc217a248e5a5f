"""Checksums of files, and of a source in the same pass that copies it."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_container import checksum_error
from regnet.files.reading import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from converters.checkpoint.source_file import Stamp
    from converters.checkpoint.values import Run, Storage

    Buffer = bytes | bytearray | memoryview

_PIECE = 1 << 20  # bytes

_HASHED = 1 << 22
"""Bytes hashed at a time. Other threads go on meanwhile, but each piece makes them wait once."""


def sha256_of(path: Path) -> str:
    """The sha256 of a regular file, in hexadecimal.

    Raises:
        OSError: If it is none, or cannot be read.
    """
    sha256 = hashlib.sha256()
    with open_regular(path) as file:
        piece = memoryview(bytearray(min(_HASHED, path.stat().st_size) or 1))
        while count := file.readinto(piece):
            sha256.update(piece[:count])
    return sha256.hexdigest()


class SourceDigest:
    """The sha256 of a source file and the checksums of its storages, in a single pass.

    The pass goes from the first byte to the last. Whoever reads bytes for another purpose feeds
    them; what lies between, such as headers, pickles and optimisers, is read here.

    Args:
        path: The file.
        stamp: What the file had when it was opened; see :class:`SourceFile`.
        storages: Those whose bytes are used; one without a checksum is not checked.

    Raises:
        InputError: From any method, a storage does not have its checksum.
        StorageError: Likewise, the file cannot be read or has changed.
    """

    def __init__(self, path: Path, stamp: Stamp, storages: Iterable[Storage]) -> None:
        self._path = path
        self._stamp = stamp
        self._position = 0
        self._sha256 = hashlib.sha256()
        stated = {storage for storage in storages if storage.crc32 is not None}
        # The CRC-32 of each, as far as it was read.
        self._pending = dict.fromkeys(sorted(stated, key=lambda s: s.offset), 0)

    def feed(self, offset: int, data: Buffer) -> None:
        """Take bytes that somebody has read; those that were passed already are ignored."""
        if offset >= self._position:
            self._read_until(offset)
            self._take(memoryview(data))

    def finish(self) -> str:
        """Read the rest and return the sha256, in hexadecimal."""
        self._read_until(self._stamp[0])
        with SourceFile(self._path) as file:
            file.require_stamp(self._stamp)
        return self._sha256.hexdigest()

    def _read_until(self, end: int) -> None:
        if end == self._position:
            return
        with SourceFile(self._path) as file:
            file.require_stamp(self._stamp)
            while self._position < end:
                length = min(_PIECE, end - self._position)
                self._take(memoryview(file.read(self._position, length)))

    def _take(self, data: memoryview) -> None:
        self._sha256.update(data)
        start = self._position
        self._position = end = start + data.nbytes
        for storage in [storage for storage in self._pending if storage.offset < end]:
            share = data[max(storage.offset - start, 0) : storage.end - start]
            self._pending[storage] = crc32(share, self._pending[storage])
            if storage.end <= end and self._pending.pop(storage) != storage.crc32:
                raise checksum_error(storage)


def followable(runs: Sequence[Run]) -> set[Run]:
    """Choose what a single pass over each file can take from runs that are read in this order.

    Args:
        runs: In the order in which they are read.

    Returns:
        Of each file those with most bytes together that lie one behind another; a pass that
        follows a counter to the end of its file would have to read the weights before it again.
    """
    by_file: dict[Path, list[Run]] = defaultdict(list)
    for run in runs:
        by_file[run.path].append(run)
    return {run for of_file in by_file.values() for run in _heaviest_ascending(of_file)}


def _heaviest_ascending(runs: Sequence[Run]) -> Iterable[Run]:
    """The heaviest subsequence without a step back; quadratic, for some hundred runs."""
    weights: list[int] = []
    previous: list[int | None] = []
    for run in runs:
        before = (index for index, _ in enumerate(weights) if runs[index].end <= run.offset)
        best = max(before, key=weights.__getitem__, default=None)
        previous.append(best)
        weights.append(run.length + (0 if best is None else weights[best]))
    at = max(range(len(runs)), key=weights.__getitem__, default=None)
    while at is not None:
        yield runs[at]
        at = previous[at]
