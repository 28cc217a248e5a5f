"""Opens any checkpoint without running code; one tensor in memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.lists import CheckpointList, is_list
from converters.checkpoint.reader import Checkpoint, open_checkpoint
from converters.checkpoint.several import CheckpointFolder
from converters.checkpoint.values import Opaque, Storage, StoredTensor, Tree

if TYPE_CHECKING:
    from pathlib import Path

AnyCheckpoint = Checkpoint | CheckpointFolder | CheckpointList


def open_any(path: Path) -> AnyCheckpoint:
    """Open a checkpoint that is a file, a folder, or a list of files beside it.

    Args:
        path: Its name does not matter.

    Raises:
        InputError: It is missing, damaged, incomplete, or something else than a checkpoint.
        UnsafeInputError: It would run code in other programs, or they would disagree on it.
        StorageError: It may not be read, reading fails, or it changes meanwhile.
    """
    if path.is_dir():
        return CheckpointFolder(path)
    checkpoint = open_checkpoint(path)
    try:
        return CheckpointList(checkpoint) if is_list(checkpoint) else checkpoint
    except BaseException:
        checkpoint.close()
        raise


__all__ = [
    "AnyCheckpoint",
    "Checkpoint",
    "CheckpointFolder",
    "CheckpointList",
    "Opaque",
    "Storage",
    "StoredTensor",
    "Tree",
    "open_any",
    "open_checkpoint",
]
