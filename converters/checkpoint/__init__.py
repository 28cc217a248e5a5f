"""Opens any checkpoint without running code; one tensor in memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.reader import Checkpoint, open_checkpoint
from converters.checkpoint.several import CheckpointFolder
from converters.checkpoint.values import Opaque, Storage, StoredTensor, Tree

if TYPE_CHECKING:
    from pathlib import Path

AnyCheckpoint = Checkpoint | CheckpointFolder


def open_any(path: Path) -> AnyCheckpoint:
    """Open a checkpoint that is a file or a folder.

    Args:
        path: Its name does not matter.

    Raises:
        InputError: It is missing, damaged, incomplete, or something else than a checkpoint.
        UnsafeInputError: It would run code in other programs, or they would disagree on it.
        StorageError: It may not be read, reading fails, or it changes meanwhile.
    """
    return CheckpointFolder(path) if path.is_dir() else open_checkpoint(path)


__all__ = [
    "AnyCheckpoint",
    "Checkpoint",
    "CheckpointFolder",
    "Opaque",
    "Storage",
    "StoredTensor",
    "Tree",
    "open_any",
    "open_checkpoint",
]
