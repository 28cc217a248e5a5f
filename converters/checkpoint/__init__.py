"""Opens any checkpoint without running code; one tensor in memory at a time."""

from __future__ import annotations

from converters.checkpoint.reader import Checkpoint, open_checkpoint
from converters.checkpoint.values import Opaque, Storage, StoredTensor, Tree

__all__ = ["Checkpoint", "Opaque", "Storage", "StoredTensor", "Tree", "open_checkpoint"]
