"""A folder that appears whole or not at all."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

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
            _match_mode(staging, target)
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
                _sync(staging)
                staging.replace(target)
            finally:
                if _is_same(staging, lock):
                    staging.unlink()


@contextmanager
def staged_update(target: Path, names: Sequence[str]) -> Iterator[Path]:
    """Give a hidden folder that becomes ``target``, with other files of some names.

    It holds all other files of ``target`` already, as links. When the block succeeds, the two
    folders are exchanged in one step. That cannot be done to a folder in which a file system is
    mounted or a process works, as this one may, and not on every file system; there the files are
    replaced one after the other, each whole.

    Args:
        target: An existing folder.
        names: Paths in it, in the order in which they are replaced. What the block does not write
            is removed.

    Yields:
        The folder to write the named files into, and no others.

    Raises:
        StorageError: If the disk is full, a folder cannot be written, or another process is about
            to make ``target``.
    """
    target = target.resolve()
    is_movable = os.access(target.parent, os.W_OK) and not target.is_mount()
    is_movable = is_movable and not Path.cwd().is_relative_to(target)
    staging = _partial(target) if is_movable else target / partial_name("update")
    with storage_errors(target), _claimed(staging, target, ()) as folder:
        _keep_others(target, folder, names)
        yield folder
        if is_movable:
            _keep_others(target, folder, names)  # once more: they may have changed meanwhile
            _match_mode(folder, target)
            _sync(folder)
            if _exchange_with_old(folder, target):
                return
        _replace_each(folder, target, names)


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
                if path.name not in keep or path.is_symlink() or path.stat().st_nlink > 1:
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
        left = "what could not be removed" if os.path.lexists(_partial(target)) else "nothing"
        raise StorageError(
            f"Writing {target} failed ({reason}); {left} was left behind, make room or choose "
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


def _match_mode(folder: Path, target: Path) -> None:
    """Give a folder mode and owner of the one it replaces, or the mode that mkdir gives.

    Until then it is its owner's alone.
    """
    if target.exists():
        status = target.stat()
        with suppress(PermissionError):  # only root can give it away
            os.chown(folder, status.st_uid, status.st_gid)
        folder.chmod(stat.S_IMODE(status.st_mode))
        return
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _sync(folder: Path) -> None:
    """Bring a file, or every file in a folder, to the disk before it is given its name."""
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
    """Give the new folder its name; where the system can, the old one has it until then."""
    if not target.exists():
        staging.rename(target)
    elif not _exchange_with_old(staging, target):
        try:
            target.rename(_old(staging))
            staging.rename(target)
        finally:
            _finish_swap(staging, target)


def _exchange_with_old(staging: Path, target: Path) -> bool:
    """Exchange the folders and remove the old one; False where the system cannot.

    The old folder is locked, since under its new name it looks like one that was left.
    """
    old = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _exchange(staging, target)
    finally:
        if _is_same(staging, old):  # whatever else happened in the moment after
            shutil.rmtree(staging, ignore_errors=True)
        os.close(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders have each other's name, in one step: renameat2(2) of Linux."""
    import ctypes

    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _keep_others(target: Path, folder: Path, names: Collection[str]) -> None:
    """Let a folder hold what another holds, all but some names; where it can be done, as links."""
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target)
        place = folder / name
        if name.as_posix() in names or _MARK in name.as_posix():
            continue
        if path.is_dir() and not path.is_symlink():
            place.mkdir(exist_ok=True)
            shutil.copystat(path, place)
        elif not _is_copy(place, path):
            place.unlink(missing_ok=True)
            _link(path, place)


def _is_copy(place: Path, path: Path) -> bool:
    if not place.is_symlink() and not place.exists():
        return False
    one, other = place.lstat(), path.lstat()
    return (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)


def _link(path: Path, place: Path) -> None:
    try:
        os.link(path, place, follow_symlinks=False)
    except OSError:  # not on this file system, or not another user's file
        shutil.copy2(path, place, follow_symlinks=False)


def _replace_each(folder: Path, target: Path, names: Sequence[str]) -> None:
    for name in names:
        if (folder / name).exists():
            (target / name).parent.mkdir(exist_ok=True)
            (folder / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)
