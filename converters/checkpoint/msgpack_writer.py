"""Writes trees of arrays as Flax packs them, the same bytes; an array's elements are passed on.

Source: flax ``serialization.py`` (what it packs, and into which extensions) and msgpack's
``spec.md`` (the shortest form of every value is the one that is written).
"""

from __future__ import annotations

import struct
from functools import partial
from math import prod
from typing import TYPE_CHECKING, BinaryIO

from converters.checkpoint.array import Array
from converters.checkpoint.msgpack_container import ARRAY, CHUNKED, CHUNKS, SHAPE
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

MAX_CHUNK = 1 << 30
"""Bytes of an array; a larger one is cut (flax's ``MAX_CHUNK_SIZE``)."""

_FIXED_EXTENSIONS = {1: 0xD4, 2: 0xD5, 4: 0xD6, 8: 0xD7, 16: 0xD8}

# The largest number or length that goes into the first byte, and what that byte is then, for none;
# the first bytes of larger ones, which follow in one, two and four bytes.
_SIZED = {
    "int": (127, 0x00, (0xCC, 0xCD, 0xCE)),
    "map": (15, 0x80, (None, 0xDE, 0xDF)),
    "array": (15, 0x90, (None, 0xDC, 0xDD)),
    "str": (31, 0xA0, (0xD9, 0xDA, 0xDB)),
    "bin": (-1, 0x00, (0xC4, 0xC5, 0xC6)),
    "ext": (-1, 0x00, (0xC7, 0xC8, 0xC9)),
}
_TRUE = b"\xc3"


def write_msgpack(path: Path, tree: Mapping[str, object]) -> None:
    """Write a tree: maps by name, whose leaves are :class:`Array`.

    Args:
        path: Created or replaced.
        tree: It; keys stay in their order.

    Raises:
        ValueError: If an array gives more or fewer bytes than its shape says.
        OSError: If the file cannot be written.
    """
    with path.open("wb") as file:
        _write(file, tree)


def _write(file: BinaryIO, value: object) -> None:
    match value:
        case Array() if value.nbytes > MAX_CHUNK:
            _write_chunked(file, value)
        case Array():
            _write_array(file, value)
        case dict():
            file.write(_sized("map", len(value)))
            for key, member in value.items():
                file.write(_text(key))
                _write(file, member)
        case int():
            file.write(_sized("int", value))


def _write_array(file: BinaryIO, array: Array) -> None:
    sizes = b"".join(_sized("int", size) for size in array.shape)
    head = _sized("array", 3) + _sized("array", len(array.shape)) + sizes + _text(array.dtype)
    head += _sized("bin", array.nbytes)
    file.write(_extension(len(head) + array.nbytes) + head)
    file.writelines(array.chunks())


def _write_chunked(file: BinaryIO, array: Array) -> None:
    """Write a map that stands for an array: pieces of it, flat, of a number of elements each."""
    step = max(1, MAX_CHUNK // item_size(array.dtype))
    count = prod(array.shape)
    file.write(_sized("map", 3) + _text(CHUNKED) + _TRUE + _text(SHAPE))
    _write(file, {str(axis): size for axis, size in enumerate(array.shape)})
    starts = range(0, count, step)
    file.write(_text(CHUNKS) + _sized("map", len(starts)))
    cut = _Cut(array.chunks())
    for number, start in enumerate(starts):
        file.write(_text(str(number)))
        size = min(step, count - start)
        piece = partial(cut.take, size * item_size(array.dtype))
        _write_array(file, Array(array.dtype, (size,), piece))


class _Cut:
    """Bytes in chunks of any size, to be taken up in pieces of others."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._left = chunks, b""

    def take(self, size: int) -> Iterator[bytes]:
        """The next bytes, fewer if there are no more."""
        while size:
            chunk = self._left or next(self._chunks, b"")
            if not chunk:
                return
            part, self._left = chunk[:size], chunk[size:]
            size -= len(part)
            yield part


def _text(text: str) -> bytes:
    content = text.encode()
    return _sized("str", len(content)) + content


def _sized(kind: str, length: int) -> bytes:
    """A number, or how what has so many bytes or members begins."""
    within, base, firsts = _SIZED[kind]
    if length <= within:
        return bytes([base + length])
    forms = zip(firsts, (">BB", ">BH", ">BI"), (0xFF, 0xFFFF, 0xFFFFFFFF), strict=True)
    form, first = next((f, first) for first, f, largest in forms if first and length <= largest)
    return struct.pack(form, first, length)


def _extension(length: int) -> bytes:
    """How an extension that holds an array begins."""
    fixed = _FIXED_EXTENSIONS.get(length)
    head = bytes([fixed]) if fixed else _sized("ext", length)
    return head + bytes([ARRAY])
