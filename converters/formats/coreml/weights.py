"""The file of an ML program's weights, MIL's blob storage of version 2.

A header says how many tensors there are; each is described in 64 bytes, its elements follow, and
both begin at multiples of 64. Source: coremltools' ``mlmodel/src/MILBlob/Blob/StorageFormat.hpp``.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.formats.onnx.file import Weight

_HEADER = Struct("<II56x")
"""How many tensors there are, and the version."""

_VERSION = 2

_DESCRIPTION = Struct("<IIQQ40x")
"""A mark, the type, and of the elements the size and where they begin, in bytes."""

_MARK = 0xDEADBEEF
_TYPES = {"float16": 1, "float32": 2}
_ALIGNMENT = 64


def places(weights: Sequence[Weight]) -> dict[str, int]:
    """Where each tensor is described, in bytes, by its name."""
    found = {}
    end = _HEADER.size
    for weight in weights:
        found[weight.name] = _aligned(end)
        end = found[weight.name] + _DESCRIPTION.size + weight.nbytes
    return found


def write_weights(path: Path, weights: Sequence[Weight]) -> None:
    """Write the file in one pass, holding one tensor at a time.

    Args:
        path: Created or replaced.
        weights: In the order of the file.

    Raises:
        InputError: If float16 cannot hold one.
        OSError: If it cannot be written.
    """
    with path.open("wb") as file:
        file.write(_HEADER.pack(len(weights), _VERSION))
        for weight, place in zip(weights, places(weights).values(), strict=True):
            file.write(bytes(place - file.tell()))
            begin = place + _DESCRIPTION.size
            kind = _TYPES[weight.element]
            file.write(_DESCRIPTION.pack(_MARK, kind, weight.nbytes, begin))
            file.write(weight.computed().data)


def _aligned(offset: int) -> int:
    return offset + -offset % _ALIGNMENT
