"""An unfinished file or folder has a name of its own, and belongs to one process while it lives."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from converters.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

MARK = ".regnet-"
"""In every name of what is unfinished, so that nobody mistakes it for a result."""


def partial_name(name: str) -> str:
    """What the hidden folder of :func:`staged_folder` is called, for a target's name."""
    return f".{name}{MARK}partial"


def partial(target: Path, suffix: str = "") -> Path:
    """Where a target lies until it is whole: beside it, in the same file system."""
    return target.with_name(partial_name(target.name) + suffix)


@contextmanager
def claimed(folder: Path, target: Path, keep: Collection[str]) -> Iterator[Path]:
    """Make a folder or take over one that was left, and remove it when the block ends."""
    with locked(folder, os.O_RDONLY | os.O_DIRECTORY, target) as lock:
        try:
            for path in folder.iterdir():
                if path.name not in keep or path.is_symlink() or path.stat().st_nlink > 1:
                    _remove(path)
            yield folder
        finally:
            if is_same(folder, lock):  # not published, whereupon another process may have made one
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, flags: int, target: Path) -> Iterator[int]:
    """Make a file or folder and keep other processes from it for the block.

    The lock is the system's, on the very thing that it protects: it ends with the process.

    Yields:
        The descriptor with the lock.
    """
    while True:
        if flags & os.O_DIRECTORY:
            path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o666)
        try:
            if _lock(path, descriptor, target):
                yield descriptor
                return
        finally:
            os.close(descriptor)


def _lock(path: Path, descriptor: int, target: Path) -> bool:
    """Lock what was opened; False if who had it until now has renamed or removed it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise StorageError(
            f"{target} is being made by another process; wait until it has ended, or choose "
            "another output."
        ) from None
    if os.fstat(descriptor).st_uid != os.geteuid():  # who could change it at any time
        raise PermissionError(errno.EACCES, f"{path.name} is another user's")
    return is_same(path, descriptor)


def is_same(path: Path, descriptor: int) -> bool:
    """Whether a path still leads to what was opened, and not to what has taken its place."""
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
