"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from converters.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

_MARK = ".regnet-"
"""In the names of unfinished folders, so that nobody mistakes them for results."""


@contextmanager
def staged_folder(
    target: Path, *, force: bool = False, keep: Collection[str] = ()
) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` that becomes ``target`` when the block succeeds.

    If the block fails, for whatever reason, the hidden folder and the parents that were made for it
    are removed and ``target`` is as it was. An existing target is moved aside first and removed
    last, so the old folder is whole until the new one is in its place.

    A process that is killed leaves the hidden folder; the next one takes it over, with the files to
    keep. Nobody has checked what is in them.

    Args:
        target: The folder to be published.
        force: Whether an existing folder may be replaced.
        keep: Names of files that the block can take up where an earlier one was interrupted.

    Yields:
        The folder to write into; empty but for files to keep.

    Raises:
        InputError: If ``target`` exists and may not be replaced, or is no folder.
        StorageError: If the disk is full, a folder cannot be written, or another process is about
            to make ``target``.
    """
    target = target.absolute()
    with storage_errors(target):
        _require_free(target, force=force)
        with _parents(target), _claimed(_partial(target), target, keep) as staging:
            _finish_swap(staging, target)
            _require_free(target, force=force)
            yield staging
            _match_umask(staging)
            _sync(staging)
            _require_free(target, force=force)
            _swap(staging, target)


@contextmanager
def working_folder(target: Path, *, keep: Collection[str] = ()) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` that is gone when the block ends.

    Like :func:`staged_folder` it is taken over from a process that was killed.

    Args:
        target: What the block makes in the end.
        keep: Names of what the block can take up.

    Raises:
        StorageError: If it cannot be made, or another process has it.
    """
    target = target.absolute()
    with storage_errors(target), _claimed(_partial(target, "-work"), target, keep) as folder:
        yield folder


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Give a hidden file beside ``target`` that replaces ``target`` when the block succeeds.

    Yields:
        The file to write; what it holds, perhaps of a process that was killed, is to be replaced.

    Raises:
        StorageError: If the disk is full, the folder cannot be written, or another process is about
            to make ``target``.
    """
    with storage_errors(target), _parents(target):
        staging = _partial(target)
        with _locked(staging, os.O_RDWR | os.O_CREAT, target) as lock:
            try:
                yield staging
                staging.replace(target)
            finally:
                if _is_same(staging, lock):
                    staging.unlink()


@contextmanager
def staged_files(target: Path, companions: Collection[str]) -> Iterator[Path]:
    """Like :func:`staged_file`, for a file that needs others beside it.

    Each file appears whole; the companions come first, since it is ``target`` that asks for them.

    Args:
        target: The file that is opened.
        companions: Names of files beside it. One that the block does not write is removed.

    Yields:
        Where to write the file; it has the name of ``target``, in a hidden folder of its own.

    Raises:
        StorageError: As from :func:`staged_file`.
    """
    with storage_errors(target), _parents(target), working_folder(target) as folder:
        yield folder / target.name
        for name in companions:
            if (folder / name).is_file():
                (folder / name).replace(target.with_name(name))
            else:
                target.with_name(name).unlink(missing_ok=True)
        (folder / target.name).replace(target)


def require_space(folder: Path, nbytes: int, target: Path) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where it will be written; what it holds already is taken up.
        nbytes: What it will hold.
        target: What messages name.

    Raises:
        StorageError: If the disk has too little room.
    """
    needed = nbytes - sum(path.stat().st_size for path in folder.iterdir())
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise StorageError(
            f"{target} cannot be written: its disk has room for {free} bytes where {needed} are "
            "to be written; make room or choose another output."
        )


def partial_name(name: str) -> str:
    """What the hidden folder of :func:`staged_folder` is called, for a target's name."""
    return f".{name}{_MARK}partial"


def _partial(target: Path, suffix: str = "") -> Path:
    return target.with_name(partial_name(target.name) + suffix)


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; those that are empty in the end are removed again."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        _remove_empty(missing)


@contextmanager
def _claimed(folder: Path, target: Path, keep: Collection[str]) -> Iterator[Path]:
    """Make a folder or take over one that was left, and remove it when the block ends."""
    with _locked(folder, os.O_RDONLY | os.O_DIRECTORY, target) as lock:
        try:
            for path in folder.iterdir():
                if path.name not in keep or path.is_symlink():
                    _remove(path)
            yield folder
        finally:
            if _is_same(folder, lock):  # not published, whereupon another process may have made one
                shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(path: Path, flags: int, target: Path) -> Iterator[int]:
    """Make a file or folder and keep other processes from it for the block.

    The lock is the system's, on the very thing that it protects: it ends with the process.

    Yields:
        The descriptor with the lock.
    """
    descriptor = _open_locked(path, flags, target)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _open_locked(path: Path, flags: int, target: Path) -> int:
    while True:
        if flags & os.O_DIRECTORY:
            path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o666)
        try:
            if _lock(path, descriptor, target):
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
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
    return _is_same(path, descriptor)


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's errors into one sentence about ``target``."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StorageError(
            f"Writing {target} failed ({reason}); nothing was left behind, make room or choose "
            "another place and run the command again."
        ) from error


def _require_free(target: Path, *, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise InputError(f"{target} exists and is not a folder; choose another output.")
    if not force and any(target.iterdir()):
        raise InputError(
            f"{target} exists already; choose another output or replace it with --force."
        )


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, innermost first; those that hold the target by now are not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


def _match_umask(folder: Path) -> None:
    """Give the folder the mode that mkdir gives; until then it is its owner's alone."""
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _sync(folder: Path) -> None:
    """Bring every file to the disk before the folder is given its name."""
    for path in [*folder.rglob("*"), folder]:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _old(staging: Path) -> Path:
    """Where a folder goes that is being replaced."""
    return staging.with_name(f"{staging.name}-old")


def _is_same(path: Path, descriptor: int) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _finish_swap(staging: Path, target: Path) -> None:
    """Bring back, or remove, the old folder of a process that was killed in :func:`_swap`."""
    old = _old(staging)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    old = _old(staging)
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
