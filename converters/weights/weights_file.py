"""A file written front to back: the kernel copies what is copied, two threads behind it hash.

Writing a gigabyte into the page cache takes about as long as hashing it, and what is copied is
hashed twice, for the target and for the source. Python lets all three go on at once.
"""

from __future__ import annotations

import errno
import hashlib
import os
from collections import deque
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TYPE_CHECKING, Any

from converters.checkpoint.source_file import Closing
from regnet.files.system import copy, flags, read_at, write_at

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from concurrent.futures import Future
    from pathlib import Path

    from converters.checkpoint.digests import SourceDigest
    from converters.checkpoint.source_file import SourceFile
    from converters.checkpoint.values import Run

    Look = Callable[[bytes], None]

PIECE = 1 << 22
"""Bytes copied, or read and cast, at a time."""

_AHEAD = 8
"""Pieces that the writer may be ahead of a thread that hashes."""

_READ_BACK = 1 << 20
"""Bytes hashed at a time: few enough for the processor's cache."""


class Follower(Closing):
    """One thread that does jobs in their order; a context manager.

    The error of a job that fails is raised by a later call.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._jobs: deque[Future[Any]] = deque()

    def do(self, job: Callable[..., Any], *args: Any) -> None:
        """Have a job done; waits while too many are not."""
        self._jobs.append(self._thread.submit(job, *args))
        self._wait(_AHEAD)

    def finish(self) -> None:
        """Wait for every job."""
        self._wait(0)

    def abandon(self) -> None:
        """Forget the jobs that have not begun, and wait for the one that has."""
        for job in self._jobs:
            job.cancel()
        wait(self._jobs)
        self._jobs.clear()

    def _wait(self, left: int) -> None:
        while len(self._jobs) > left:
            self._jobs.popleft().result()

    def close(self) -> None:
        """Abandon what is not done, and end the thread."""
        self.abandon()
        self._thread.shutdown()


class WeightsFile(Closing):
    """A file written front to back; a context manager that closes it.

    What lies there already, of an attempt that was interrupted, is compared with what would be
    written, and kept as far as it is the same.

    Args:
        path: Made if it is missing, with the mode that the umask gives.
        target: The thread that takes the sha256 of what is written.
        source: The thread that feeds the digest of a source with what was copied from it.

    Raises:
        OSError: From any method, if the file cannot be written.
    """

    def __init__(self, path: Path, target: Follower, source: Follower) -> None:
        how = os.O_RDWR | os.O_CREAT | flags("O_NOFOLLOW", "O_BINARY")
        self._fd = os.open(path, how, 0o666)
        self._target, self._source = target, source
        self._position = 0
        self._is_kept = os.fstat(self._fd).st_size > 0  # all that lies there was the same so far
        self._kernel_copies = True
        self._sha256 = hashlib.sha256()

    def write(self, data: bytes | memoryview, look: Look | None = None) -> None:
        """Append bytes, which ``look`` is called with as they are hashed."""
        self._put(data)
        self._target.do(self._hash, self._position - len(data), len(data), look)

    def copy(
        self, file: SourceFile, run: Run, digest: SourceDigest | None, look: Look | None = None
    ) -> None:
        """Append bytes of a source.

        Args:
            file: The source, open.
            run: Where in it they lie; :data:`PIECE` bytes at most.
            digest: Fed with them, unless it is None.
            look: Called with them as they are hashed, some at a time, unless it is None.

        Raises:
            InputError: Like other errors of a :class:`SourceDigest`, perhaps from an earlier call.
            StorageError: The source cannot be read or has changed.
        """
        start = self._position
        copied = 0 if self._is_kept else self._copy(file.fileno(), run)
        if copied < run.length:
            self._put(file.read(run.offset + copied, run.length - copied))
        self._target.do(self._hash, start, run.length, look)
        if digest is not None:
            self._source.do(self._feed, start, run.length, digest, run.offset)

    def finish(self) -> str:
        """Cut off what lies behind the end, and return the sha256, in hexadecimal."""
        os.ftruncate(self._fd, self._position)
        self._target.finish()
        self._source.finish()
        return self._sha256.hexdigest()

    def close(self) -> None:
        """Abandon what is not hashed yet, and close the file."""
        self._target.abandon()
        self._source.abandon()
        os.close(self._fd)

    def _copy(self, source: int, run: Run) -> int:
        """Let the kernel copy, and return how many bytes it has; the rest has to be read."""
        copied = 0
        while self._kernel_copies and copied < run.length:
            left = run.length - copied
            count = copy(source, run.offset + copied, self._fd, self._position, left)
            self._kernel_copies = count > 0
            self._position += count
            copied += count
        return copied

    def _put(self, data: bytes | memoryview) -> None:
        if self._is_kept:
            if read_at(self._fd, len(data), self._position) == data:
                self._position += len(data)
                return
            self._is_kept = False
            os.ftruncate(self._fd, self._position)
        rest = memoryview(data)
        while rest:
            count = write_at(self._fd, rest, self._position)
            self._position += count
            rest = rest[count:]

    def _hash(self, start: int, length: int, look: Look | None) -> None:
        for data in self._read_back(start, length):
            self._sha256.update(data)
            if look is not None:
                look(data)

    def _feed(self, start: int, length: int, digest: SourceDigest, offset: int) -> None:
        for data in self._read_back(start, length):
            digest.feed(offset, data)
            offset += len(data)

    def _read_back(self, start: int, length: int) -> Iterator[bytes]:
        end = start + length
        while start < end:
            data = read_at(self._fd, min(_READ_BACK, end - start), start)
            if not data:
                raise OSError(errno.EIO, "somebody else made the file shorter")
            yield data
            start += len(data)
