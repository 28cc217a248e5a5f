"""The file under a checkpoint: exact reads at an offset, and a watch that it stays the same."""

from __future__ import annotations

import io
import os
from abc import ABC, abstractmethod
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from converters.errors import InputError, StorageError, printable
from regnet.files.reading import NotRegularError, open_regular
from regnet.files.system import read_at

if TYPE_CHECKING:
    from collections.abc import Iterator

Stamp = tuple[int, int]
"""Size in bytes, and time of change in nanoseconds."""

_BUFFER = 1 << 16  # bytes

_NO_FILE: dict[type[OSError], str] = {
    FileNotFoundError: "there is no such file; check the path",
    NotADirectoryError: "there is no such file; check the path",
    IsADirectoryError: "is a folder; name the checkpoint file inside it",
    NotRegularError: "is not a regular file; copy the checkpoint to disk first",
}


class Closing(ABC):
    """Something that is open until it is closed, or the block that it was opened for ends."""

    @abstractmethod
    def close(self) -> None:
        """Close it."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close it if the block fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise


def damaged(where: str, what: str, whole: str = "it") -> InputError:
    """The error for a file that another copy may be better than.

    Args:
        where: The file, or a place in it.
        what: What is wrong there, as the end of a sentence.
        whole: What to copy: ``"the file"`` where ``where`` is a part of it.
    """
    return InputError(f"{where}: {what}; download or copy {whole} again.")


class ReadableAt(Protocol):
    """Bytes, and what messages call them: a :class:`SourceFile`, or what was found in one."""

    @property
    def name(self) -> str:
        """How messages begin."""

    @property
    def size(self) -> int:
        """In bytes."""

    @property
    def origin(self) -> tuple[Path, int]:
        """The file that they lie in, and where they begin there, if they lie in one as they are."""

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset``."""


@dataclass(frozen=True, slots=True)
class Found:
    """Bytes that were found in a file, and are in memory."""

    name: str
    data: bytes
    origin: tuple[Path, int] = (Path(), 0)

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset``, or those that there are."""
        return self.data[offset : offset + length]


class _Raw(io.RawIOBase):
    """What :func:`stream_of` reads from."""

    def __init__(self, file: ReadableAt) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._file.size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(self._at, max(min(len(buffer), self._file.size - self._at), 0))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def stream_of(file: ReadableAt) -> io.BufferedReader:
    """Return a stream over bytes, at their beginning; its errors are those of their ``read``."""
    return io.BufferedReader(_Raw(file), _BUFFER)


class SourceFile(Closing):
    """A regular file, opened for reading, whose size and time of change are remembered.

    Attributes:
        path: As given by the caller.
        origin: That, and 0, where it begins.
        name: What messages call it: the last component of the path.
        size: In bytes, when it was opened.
        stamp: Size and time of change then; a file that has another one now has changed.

    Raises:
        InputError: There is no such file, or it is a folder or a device.
        StorageError: It may not be read; from any method, the device fails, or someone has written
            to the file since it was opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.origin = (path, 0)
        self.name = printable(path.name)
        try:
            self._file = open_regular(path)
        except tuple(_NO_FILE) as error:
            raise InputError(f"{self.name}: {_NO_FILE[type(error)]}.") from error
        except OSError as error:
            raise StorageError(f"{self.name}: cannot be opened ({error.strerror}).") from error
        self.stamp = self._stamp_now()
        self.size = self.stamp[0]

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset``."""
        pieces = []
        while length > 0:
            try:
                piece = read_at(self.fileno(), length, offset)
            except OSError as error:
                raise StorageError(f"{self.name}: cannot be read ({error.strerror}).") from error
            if not piece:
                raise self._changed()
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def require_unchanged(self) -> None:
        """Check size and time of change against what they were when the file was opened."""
        self.require_stamp(self._stamp_now())

    def require_stamp(self, stamp: Stamp) -> None:
        """Check that the file is the one with ``stamp``."""
        if stamp != self.stamp:
            raise self._changed()

    def fileno(self) -> int:
        """Return the descriptor, for copies that the kernel makes."""
        return self._file.fileno()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _stamp_now(self) -> Stamp:
        status = os.fstat(self.fileno())
        return status.st_size, status.st_mtime_ns

    def _changed(self) -> StorageError:
        return StorageError(
            f"{self.name}: changed while it was being read; wait until it is complete, then retry."
        )


@dataclass(frozen=True, slots=True)
class FilePart:
    """Bytes of an open file, to be read as if they were a file of their own.

    Attributes:
        file: The file.
        start: Where they begin in it, in bytes.
        size: In bytes; must lie inside the file.
        name: What messages call them.
    """

    file: SourceFile
    start: int
    size: int
    name: str

    @property
    def path(self) -> Path:
        """The path of the file."""
        return self.file.path

    @property
    def origin(self) -> tuple[Path, int]:
        """The path of the file, and where the part begins in it."""
        return self.file.path, self.start

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset`` of the part."""
        return self.file.read(self.start + offset, length)

    def require_unchanged(self) -> None:
        """Check the file; see :meth:`SourceFile.require_unchanged`."""
        self.file.require_unchanged()
