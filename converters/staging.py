"""A folder that appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import InputError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARK = ".regnet-"
"""In the names of unfinished folders, so that nobody mistakes them for results."""


@contextmanager
def staged_folder(target: Path, *, force: bool = False) -> Iterator[Path]:
    """Give a hidden folder beside ``target`` that becomes ``target`` when the block succeeds.

    If the block fails, for whatever reason, the hidden folder and the parents that were made for it
    are removed and ``target`` is as it was. An existing target is moved aside first and removed
    last, so the old folder is whole until the new one is in its place.

    Args:
        target: The folder to be published.
        force: Whether an existing folder may be replaced.

    Yields:
        The folder to write into.

    Raises:
        InputError: If ``target`` exists and may not be replaced, or is no folder.
        StorageError: If the disk is full or a folder cannot be written.
    """
    target = target.absolute()
    with storage_errors(target):
        _require_free(target, force=force)
        missing_parents = [parent for parent in target.parents if not parent.exists()]
        target.parent.mkdir(parents=True, exist_ok=True)
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}{_MARK}", dir=target.parent))
        try:
            yield staging
            _match_umask(staging)
            _sync(staging)
            _require_free(target, force=force)
            _swap(staging, target)
        finally:
            shutil.rmtree(staging, ignore_errors=True)
            _remove_empty(missing_parents)


@contextmanager
def staged_file(target: Path) -> Iterator[Path]:
    """Give a hidden file name beside ``target`` that replaces ``target`` when the block succeeds.

    Raises:
        StorageError: If the disk is full or the folder cannot be written.
    """
    with storage_errors(target):
        staging = target.with_name(f".{target.name}{_MARK}{os.getpid()}")
        try:
            yield staging
            staging.replace(target)
        finally:
            staging.unlink(missing_ok=True)


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
    """Give the folder the mode that mkdir would have; tempfile keeps it to its owner."""
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


def _swap(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_name(f"{staging.name}-old")
    target.rename(old)
    try:
        staging.rename(target)
    except BaseException:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
