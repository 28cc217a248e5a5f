"""The file under a checkpoint: exact reads at an offset, and a watch that it stays the same."""

from __future__ import annotations

import os
import stat
from abc import ABC, abstractmethod
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from converters.errors import InputError, StorageError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Stamp = tuple[int, int]
"""Size in bytes, and time of change in nanoseconds."""


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


class SourceFile(Closing):
    """A regular file, opened for reading, whose size and time of change are remembered.

    Attributes:
        path: As given by the caller.
        name: What messages call it: the last component of the path.
        size: In bytes, when it was opened.
        stamp: Size and time of change then; a file that has another one now has changed.
        stream: A buffered reader; :meth:`read` does not move it.

    Raises:
        InputError: There is no such file, or it is a folder or a device.
        StorageError: It may not be read, or reading fails.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = printable(path.name)
        try:
            # Asked before opening: opening a pipe would wait for someone to write into it.
            _require_regular_file(self.name, path.stat().st_mode)
            self.stream = path.open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise InputError(f"{self.name}: there is no such file; check the path.") from error
        except OSError as error:
            raise StorageError(f"{self.name}: cannot be opened ({error.strerror}).") from error
        self._fd = self.stream.fileno()
        self.stamp = self._stamp_now()
        self.size = self.stamp[0]

    def read(self, offset: int, length: int) -> bytes:
        """Return the ``length`` bytes at ``offset``.

        Raises:
            StorageError: The device fails, or the file has become shorter.
        """
        pieces = []
        while length > 0:
            try:
                piece = os.pread(self._fd, length, offset)
            except OSError as error:
                raise StorageError(f"{self.name}: cannot be read ({error.strerror}).") from error
            if not piece:
                raise self._changed()
            pieces.append(piece)
            offset += len(piece)
            length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def require_unchanged(self) -> None:
        """Check size and time of change against what they were when the file was opened.

        Raises:
            StorageError: Someone has written to the file since.
        """
        self.require_stamp(self._stamp_now())

    def require_stamp(self, stamp: Stamp) -> None:
        """Check that the file is the one with ``stamp``.

        Raises:
            StorageError: Someone has written to the file meanwhile.
        """
        if stamp != self.stamp:
            raise self._changed()

    def fileno(self) -> int:
        """Return the descriptor, for copies that the kernel makes."""
        return self._fd

    def close(self) -> None:
        """Close the file."""
        self.stream.close()

    def _stamp_now(self) -> Stamp:
        status = os.fstat(self._fd)
        return status.st_size, status.st_mtime_ns

    def _changed(self) -> StorageError:
        return StorageError(
            f"{self.name}: changed while it was being read; wait until it is complete, then retry."
        )


def _require_regular_file(name: str, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise InputError(f"{name}: is a folder; name the checkpoint file inside it.")
    if not stat.S_ISREG(mode):
        raise InputError(f"{name}: is not a regular file; copy the checkpoint to disk first.")
