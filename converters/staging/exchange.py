"""A new folder takes the place of an old one, in one step where the system has one."""

from __future__ import annotations

import ctypes
import fcntl
import os
import shutil
from typing import TYPE_CHECKING

from converters.staging.locks import is_same
from converters.staging.names import old_place

if TYPE_CHECKING:
    from pathlib import Path


def swap(staging: Path, target: Path) -> None:
    """Give the new folder its name; where the system can, the old one has it until then."""
    if not target.exists():
        staging.rename(target)
    elif not exchange_with_old(staging, target):
        try:
            target.rename(old_place(staging))
            staging.rename(target)
        finally:
            finish_swap(staging, target)


def finish_swap(staging: Path, target: Path) -> None:
    """Bring back, or remove, the old folder of a process that was killed in :func:`swap`."""
    old = old_place(staging)
    if old.exists() and not target.exists():
        old.rename(target)
    shutil.rmtree(old, ignore_errors=True)


def exchange_with_old(staging: Path, target: Path) -> bool:
    """Exchange the folders and remove the old one; False where the system cannot.

    The old folder is locked, since under its new name it looks like one that was left.
    """
    old = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(old, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return _exchange(staging, target)
    finally:
        if is_same(staging, old):  # whatever else happened in the moment after
            shutil.rmtree(staging, ignore_errors=True)
        os.close(old)


def _exchange(one: Path, other: Path) -> bool:
    """Let two folders have each other's name, in one step: renameat2(2) of Linux."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, exchange = -100, 2  # AT_FDCWD of fcntl.h, RENAME_EXCHANGE of linux/fs.h
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)
