"""A new folder takes the place of an old one, or some new files do and the others stay."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from converters.staging.unfinished import MARK
from regnet.files import system

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


def swap(staging: Path, target: Path) -> None:
    """Give the new folder its name; where the system can, the old one has it until then.

    Where it cannot, as on Windows, the old folder is moved aside first. A process that is killed
    right then leaves it there, whole, and the next one brings it back.
    """
    if not target.exists():
        staging.rename(target)
    elif not exchange_with_old(staging, target):
        try:
            target.rename(_old_place(staging))
            staging.rename(target)
        finally:
            finish_swap(staging, target)


def finish_swap(staging: Path, target: Path) -> None:
    """Bring back, or remove, the old folder of a process that was killed in :func:`swap`."""
    old = _old_place(staging)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def _old_place(staging: Path) -> Path:
    """Where a folder goes that is being replaced."""
    return staging.with_name(f"{staging.name}-old")


def exchange_with_old(staging: Path, target: Path) -> bool:
    """Exchange the folders and remove the old one; False where the system cannot.

    The old folder is locked, since under its new name it looks like one that was left.
    """
    with system.locked(target, is_folder=True) as old:
        try:
            return system.exchange(staging, target)
        finally:
            if old.is_at(staging):  # whatever else happened in the moment after
                shutil.rmtree(staging, ignore_errors=True)


def keep_others(target: Path, folder: Path, names: Collection[str]) -> None:
    """Let a folder hold what another holds, all but some names; where it can be done, as links."""
    for path in sorted(target.rglob("*")):
        name = path.relative_to(target)
        place = folder / name
        if name.as_posix() in names or MARK in name.as_posix():
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
    except (OSError, NotImplementedError):  # not on this system, or not another user's file
        shutil.copy2(path, place, follow_symlinks=False)


def replace_each(folder: Path, target: Path, names: Sequence[str]) -> None:
    """Replace files of some names one after the other; those that are not there are removed."""
    for name in names:
        if (folder / name).exists():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)
