"""Folders of torch.distributed.checkpoint in one run of bytes, and their changes.

A folder is its `.metadata`, eight bytes of whose length stand before it, and `__0_0.distcp`.
"""

from __future__ import annotations

import pickle
import struct
from typing import TYPE_CHECKING, Any

import torch

from fuzz.differential.pickles import change, changed_bytes
from tests.oracles.distributed import Written

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_LENGTH = 8
_KEYS = ("model", "a", "b", 0, 1, 2, -1, "", "a.b", True)
_SHIFTS = (-64, -1, 1, 2, 64)


def unpacked(data: bytes, folder: Path) -> None:
    """Write the folder."""
    (size,) = struct.unpack_from("<Q", data)
    folder.mkdir(exist_ok=True)
    (folder / ".metadata").write_bytes(data[_LENGTH : _LENGTH + size])
    (folder / "__0_0.distcp").write_bytes(data[_LENGTH + size :])


def _written(sign: int) -> Written:
    made = Written.empty()
    tensors = {
        ("model", "a"): (torch.arange(12.0).reshape(4, 3), ([2], [])),
        ("model", "b"): (torch.arange(12).reshape(3, 4), ([1], [2, 3])),
        ("list", 0): (torch.ones(2, dtype=torch.float16), ([],)),
        ("list", 1): (torch.tensor(7.0), ()),
    }
    for keys, (tensor, cuts) in tensors.items():
        name = ".".join(map(str, keys))
        made.add(name, tensor * sign, cuts)
        made.metadata.planner_data[name] = keys
    return made


def changed(rng: Random) -> bytes:
    """Make a folder of which something is changed, at times its bytes."""
    made = _written(rng.choice((1, -1)))
    for _ in range(rng.choice((0, 1, 1, 1, 2, 3))):
        _change(made.metadata, rng)
    described = pickle.dumps(made.metadata, rng.choice((2, 4, 5)))
    if rng.randrange(3) == 0:
        described = change(described, rng, pickle.dumps(_written(-1).metadata))
    content = bytes(made.content)
    if rng.randrange(8) == 0:
        content = changed_bytes(content, rng)
    return struct.pack("<Q", len(described)) + described + content


def _change(metadata: Any, rng: Random) -> None:
    """Change what a folder says of itself."""
    entries, places, keys = (
        metadata.state_dict_metadata,
        metadata.storage_data,
        metadata.planner_data,
    )
    name = rng.choice(list(entries))
    place, other = (places[rng.choice(list(places))] for _ in range(2))
    chunk = rng.choice(entries[name].chunks)
    match rng.randrange(8):
        case 0:
            chunk.sizes = _other(chunk.sizes, rng)
        case 1:
            chunk.offsets = _other(chunk.offsets, rng)
        case 2:
            entries[name].size = _other(entries[name].size, rng)
        case 3:
            place.offset, place.length = place.offset + rng.choice(_SHIFTS), place.length
        case 4:
            place.length += rng.choice(_SHIFTS)
        case 5:
            place.offset, other.offset = other.offset, place.offset
            place.length, other.length = other.length, place.length
        case 6:
            keys[name] = tuple(rng.choice(_KEYS) for _ in range(rng.choice((0, 1, 2, 3))))
        case _:
            entries[name].properties = entries[rng.choice(list(entries))].properties


def _other(sizes: torch.Size, rng: Random) -> torch.Size:
    found = list(sizes) or [1]
    found[rng.randrange(len(found))] += rng.choice((-1, 1, 2**40))
    return torch.Size(max(size, 0) for size in found)
