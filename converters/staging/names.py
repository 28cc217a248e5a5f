"""What unfinished files and folders are called, so that nobody mistakes them for results."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

MARK = ".regnet-"
"""In every such name."""


def partial_name(name: str) -> str:
    """What the hidden folder of :func:`staged_folder` is called, for a target's name."""
    return f".{name}{MARK}partial"


def partial(target: Path, suffix: str = "") -> Path:
    """Where a target lies until it is whole: beside it, in the same file system."""
    return target.with_name(partial_name(target.name) + suffix)


def old_place(staging: Path) -> Path:
    """Where a folder goes that is being replaced."""
    return staging.with_name(f"{staging.name}-old")
