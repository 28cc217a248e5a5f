"""Tensors mapped from a safetensors file of any size, none of them read.

The safetensors library maps a file for torch as memory to be written to, for which Linux reserves
room: it refuses one that is larger than the machine's memory. Here nothing is reserved. Pages come
in as they are used and go out when memory is short; only what is written to takes memory.
"""

from __future__ import annotations

import json
import math
import mmap
import sys
from typing import TYPE_CHECKING, Any

import torch
from safetensors import safe_open

from regnet.files.dtypes import OF_SAFETENSORS
from regnet.files.safetensors_file import (
    INDEX_NAME,
    LENGTH_SIZE,
    METADATA_KEY,
    WEIGHTS_NAME,
    require_indexed,
    shards_of,
    weight_files,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

_NORESERVE = 0x4000 if sys.platform == "linux" else 0
"""Linux' ``MAP_NORESERVE``, for which Python's mmap has no name; others do not reserve."""


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Map the tensors of a folder's safetensors file or shards.

    Args:
        folder: With ``model.safetensors``, or ``model.safetensors.index.json`` and its shards.

    Returns:
        Name to CPU tensor, in the shape and dtype that is stored and the order of the files'
        headers; writing to one does not change the file. Where a file puts a tensor at no multiple
        of its item size, it is a copy.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is no safetensors file or is cut off.
    """
    held = {path.name: map_tensors(path) for path in weight_files(folder)}
    if WEIGHTS_NAME not in held:
        require_indexed(folder / INDEX_NAME, shards_of(folder / INDEX_NAME), held)
    return {name: tensor for tensors in held.values() for name, tensor in tensors.items()}


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of one file; see :func:`load_tensors`."""
    try:
        # The library proves the header: well formed, without gaps, as long as the file.
        with safe_open(path, framework="np"), path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_SIZE), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            mapping = mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE | _NORESERVE)
        header.pop(METADATA_KEY, None)
        start = LENGTH_SIZE + length
        return {name: _tensor(mapping, start, **entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; the folder is incomplete.") from None
    except Exception as error:  # safetensors raises classes of its own
        raise ValueError(f"{path} is not a readable safetensors file ({error}).") from error


def _tensor(
    mapping: mmap.mmap, start: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> Tensor:
    kind = getattr(torch, OF_SAFETENSORS[dtype])
    count = math.prod(shape)
    if count == 0:  # torch maps no memory of length zero
        return torch.empty(shape, dtype=kind)
    offset = start + data_offsets[0]
    tensor = torch.frombuffer(mapping, dtype=kind, count=count, offset=offset).view(shape)
    return tensor.clone() if offset % tensor.itemsize else tensor
