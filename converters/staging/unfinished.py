"""An unfinished file or folder has a name of its own, and belongs to one process while it lives."""

from __future__ import annotations

import errno
import shutil
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from converters.errors import StorageError
from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from regnet.files.system import Held

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
    with locked(folder, target, is_folder=True) as held:
        try:
            for path in folder.iterdir():
                if path.name not in keep or path.is_symlink() or path.stat().st_nlink > 1:
                    _remove(path)
            yield folder
        finally:
            if held.is_at(folder):  # not published, whereupon another process may have made one
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def locked(path: Path, target: Path, *, is_folder: bool) -> Iterator[Held]:
    """Keep other processes from a file or folder; see :func:`regnet.files.system.locked`.

    Raises:
        StorageError: Another process has it.
        OSError: It cannot be made, or is another user's.
    """
    with ExitStack() as stack:
        try:
            held = stack.enter_context(system.locked(path, is_folder=is_folder))
        except BlockingIOError:
            raise StorageError(
                f"{target} is being made by another process; wait until it has ended, or choose "
                "another output."
            ) from None
        if not held.is_own:  # who could change it at any time
            raise PermissionError(errno.EACCES, f"{path.name} is another user's")
        yield held


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
