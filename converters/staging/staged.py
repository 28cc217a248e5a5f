"""Contexts whose file or folder appears whole when the block succeeds, or not at all."""

from __future__ import annotations

import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import ConversionError, InputError, StorageError, escaped, in_words
from converters.staging.exchange import (
    exchange_with_old,
    finish_swap,
    keep_others,
    replace_each,
    swap,
)
from converters.staging.unfinished import claimed, locked, partial, partial_name
from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence


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
    given, target = target, target.absolute()
    with storage_errors(target):
        _require_free(target, force=force)
        with _parents(target), claimed(partial(target), target, keep) as staging:
            finish_swap(staging, target)
            _require_free(target, force=force)
            with _spoken_of(staging, given):
                yield staging
            _match_mode(staging, target)
            _sync(staging)
            _require_free(target, force=force)
            swap(staging, target)


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
    with storage_errors(target), claimed(partial(target, "-work"), target, keep) as folder:
        yield folder


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Give a hidden file beside ``target`` that replaces ``target`` when the block succeeds.

    Yields:
        The file to write; what it holds, perhaps of a process that was killed, is to be replaced.

    Raises:
        StorageError: As :func:`staged_folder` does.
    """
    with storage_errors(target), _parents(target):
        staging = partial(target)
        with locked(staging, target, is_folder=False) as held:
            try:
                yield staging
                _sync(staging)
                staging.replace(target)
            finally:
                if held.is_at(staging):
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
        StorageError: As :func:`staged_folder` does.
    """
    given, target = target, target.resolve()
    is_movable = os.access(target.parent, os.W_OK) and not os.path.ismount(target)
    is_movable = is_movable and not Path.cwd().is_relative_to(target)
    staging = partial(target) if is_movable else target / partial_name("update")
    with storage_errors(target), claimed(staging, target, ()) as folder:
        keep_others(target, folder, names)
        with _spoken_of(folder, given):
            yield folder
        if is_movable:
            keep_others(target, folder, names)  # once more: they may have changed meanwhile
            _match_mode(folder, target)
            _sync(folder)
            if exchange_with_old(folder, target):
                return
        replace_each(folder, target, names)


def require_place(target: Path, nbytes: int, *, force: bool) -> None:
    """Refuse what :func:`staged_folder` and :func:`require_space` would, without writing.

    Args:
        target: The folder to be published.
        nbytes: What it will hold.
        force: Whether an existing folder may be replaced.

    Raises:
        InputError: If ``target`` exists and may not be replaced, or is no folder.
        StorageError: If no folder can be made there, or the disk has too little room.
    """
    target = target.absolute()
    with storage_errors(target):
        _require_free(target, force=force)
        place = next(parent for parent in target.parents if parent.exists())
        if not place.is_dir() or not os.access(place, os.W_OK | os.X_OK):
            raise StorageError(
                f"{target} cannot be written: in {place} nothing can be made; choose another "
                "output."
            )
        require_space(partial(target), nbytes, target)


def require_space(folder: Path, nbytes: int, target: Path) -> None:
    """Refuse to begin what the disk has no room for.

    Args:
        folder: Where it will be written; what it holds already is taken up.
        nbytes: What it will hold.
        target: What messages name.

    Raises:
        StorageError: If the disk has too little room.
    """
    place = next(path for path in (folder, *folder.parents) if path.exists())
    needed = nbytes - sum(path.stat().st_size for path in folder.glob("*"))
    disk = f"{target} cannot be written: its disk"
    require_bytes(place, needed, disk, "written", "choose another output")


def require_bytes(place: Path, needed: int, disk: str, done: str, remedy: str) -> None:
    """Refuse what the disk under a place has no room for, in a sentence of these words."""
    free = shutil.disk_usage(place).free
    if free < needed:
        raise StorageError(
            f"{disk} has room for {free} bytes where {needed} are to be {done}; make room or "
            f"{remedy}."
        )


@contextmanager
def storage_errors(target: Path) -> Iterator[None]:
    """Turn the operating system's errors into one sentence about ``target``."""
    try:
        yield
    except OSError as error:
        left = "what could not be removed" if os.path.lexists(partial(target)) else "nothing"
        raise StorageError(
            f"Writing {target} failed ({in_words(error)}); {left} was left behind, make room "
            "or choose another place and run the command again."
        ) from error


@contextmanager
def _spoken_of(staging: Path, given: Path) -> Iterator[None]:
    """Let sentences name what somebody gave, and not the hidden folder that takes its place."""
    try:
        yield
    except ConversionError as error:
        hidden, known = escaped(str(staging)), escaped(str(given))
        error.args = tuple(str(said).replace(hidden, known) for said in error.args)
        raise


@contextmanager
def _parents(target: Path) -> Iterator[None]:
    """Make the folders above ``target``; those that are empty in the end are removed again."""
    missing = [parent for parent in target.parents if not parent.exists()]
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with suppress(OSError):  # those that hold the target by now are not empty
            for parent in missing:  # innermost first
                parent.rmdir()


def _require_free(target: Path, *, force: bool) -> None:
    if not target.exists() and not target.is_symlink():
        return
    if not target.is_dir() or target.is_symlink():
        raise InputError(f"{target} exists and is not a folder; choose another output.")
    if not force and any(target.iterdir()):
        raise InputError(
            f"{target} exists already; choose another output or replace it with --force."
        )


def _match_mode(folder: Path, target: Path) -> None:
    """Give a folder mode and owner of the one it replaces, or the mode that mkdir gives.

    Until then it is its owner's alone.
    """
    if target.exists():
        status = target.stat()
        system.give_owner(folder, status)
        folder.chmod(stat.S_IMODE(status.st_mode))
        return
    mask = os.umask(0)
    os.umask(mask)
    folder.chmod(0o777 & ~mask)


def _sync(folder: Path) -> None:
    """Bring a file, or every file in a folder, to the disk before it is given its name."""
    for path in [*folder.rglob("*"), folder]:
        system.sync(path)
