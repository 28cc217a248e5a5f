"""The files of a folder that stay when some are replaced."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING

from converters.staging.names import MARK

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from pathlib import Path


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
    except OSError:  # not on this file system, or not another user's file
        shutil.copy2(path, place, follow_symlinks=False)


def replace_each(folder: Path, target: Path, names: Sequence[str]) -> None:
    """Replace files of some names one after the other; those that are not there are removed."""
    for name in names:
        if (folder / name).exists():
            (target / name).parent.mkdir(exist_ok=True)
            (folder / name).replace(target / name)
        else:
            (target / name).unlink(missing_ok=True)
