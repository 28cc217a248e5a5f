"""Compares what our reader makes of a file with what torch made of it."""

from __future__ import annotations

import argparse
from unittest.mock import patch

import numpy as np
import torch

from converters.checkpoint import Checkpoint, Opaque, StoredTensor, reader

LAYOUTS = {"zip": True, "legacy": False}
"""Container -> the value of torch.save's ``_use_new_zipfile_serialization``."""


class Settings(dict):  # type: ignore[type-arg]
    """A dict with attributes and a class of its own, as yacs' CfgNode is."""


def raw_bytes(tensor: torch.Tensor) -> bytes:
    """Return the elements of a tensor in row-major order, as torch has them in memory."""
    flat = tensor.detach().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def in_chunks(checkpoint: Checkpoint, tensor: StoredTensor, size: int) -> bytes:
    """Return the elements of a tensor, read in chunks of ``size`` bytes."""
    with patch.object(reader, "CHUNK_SIZE", size):
        return b"".join(checkpoint.chunks(tensor))


def assert_same(ours: object, theirs: object, checkpoint: Checkpoint) -> None:
    """Check that ``ours``, read from ``checkpoint``, says what the object ``theirs`` is."""
    if isinstance(theirs, torch.Tensor):
        assert isinstance(ours, StoredTensor)
        assert f"torch.{ours.dtype}" == str(theirs.dtype)
        assert (ours.shape, ours.stride) == (tuple(theirs.shape), theirs.stride())
        assert ours.is_contiguous == theirs.is_contiguous()
        assert ours.nbytes == theirs.nbytes
        assert in_chunks(checkpoint, ours, 24) == raw_bytes(theirs)
        array = checkpoint.array(ours)
        assert array.shape == ours.shape
        assert array.tobytes() == raw_bytes(theirs)
        assert array.flags.c_contiguous
        assert array.flags.writeable
    elif isinstance(theirs, Settings):
        assert isinstance(ours, Opaque)
        assert_same(ours.fields, {**vars(theirs), **theirs}, checkpoint)
    elif isinstance(theirs, dict):
        assert isinstance(ours, dict)
        assert list(ours) == list(theirs)
        for key, value in theirs.items():
            assert_same(ours[key], value, checkpoint)
    elif isinstance(theirs, list | tuple):
        assert isinstance(ours, list if isinstance(theirs, list) else tuple)
        assert len(ours) == len(theirs)
        for ours_member, theirs_member in zip(ours, theirs, strict=True):
            assert_same(ours_member, theirs_member, checkpoint)
    elif isinstance(theirs, argparse.Namespace):
        assert isinstance(ours, Opaque)
        assert ours.qualified_name == "argparse.Namespace"
        assert_same(ours.fields, vars(theirs), checkpoint)
    elif isinstance(theirs, torch.dtype):
        assert isinstance(ours, Opaque)
        assert ours.qualified_name == str(theirs)
    else:
        plain = theirs.item() if isinstance(theirs, np.generic) else theirs
        assert type(ours) is type(plain)
        assert ours == plain or (ours != ours and plain != plain)  # noqa: PLR0124 (NaN)
