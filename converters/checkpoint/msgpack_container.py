"""Flax's msgpack: a tree of maps by name, whose leaves are arrays. Only headers are read.

Source: flax ``serialization.py`` (what it packs, and into which extensions), and the format's
``spec.md`` (https://github.com/msgpack/msgpack). An array is an extension of type 1, which holds
msgpack itself: shape, NumPy's name of the type, and the elements in C order, little-endian. Those
of more than a gigabyte are cut into flat ones. There is no way in the format to name code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Opaque,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
    join,
)
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.dtypes import ELEMENT_TYPES, item_size

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping

    from converters.checkpoint.source_file import SourceFile

PARAMETERS, STATISTICS = "params", "batch_stats"
"""The collections of variables of a Flax network with batch norms."""

MAX_VALUES = 1 << 18
"""In a file, keys included; the largest RegNet with its optimiser has 20,000."""

MAX_DEPTH = 32
"""Levels of maps; those of a RegNet are ten."""

MAX_TEXT = 1 << 20
"""Bytes of a text; a name has a hundred."""

ARRAY, COMPLEX, SCALAR = 1, 2, 3
"""Types of Flax's extensions."""

CHUNKED = "__msgpack_chunked_array__"
"""The key of a map that stands for an array."""

CHUNKS, SHAPE = "chunks", "shape"
"""Its keys beside that one: flat arrays and sizes, both numbered."""


# First byte to what follows it: struct's format of the number, or of the length.
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q",
    0xD0: ">b", 0xD1: ">h", 0xD2: ">i", 0xD3: ">q",
}  # fmt: skip
_PLAIN = {0xC0: None, 0xC2: False, 0xC3: True}
_LENGTHS = {
    "bin": {0xC4: ">B", 0xC5: ">H", 0xC6: ">I"},
    "ext": {0xC7: ">B", 0xC8: ">H", 0xC9: ">I"},
    "str": {0xD9: ">B", 0xDA: ">H", 0xDB: ">I"},
    "array": {0xDC: ">H", 0xDD: ">I"},
    "map": {0xDE: ">H", 0xDF: ">I"},
}
_FIXED_EXTENSIONS = {0xD4: 1, 0xD5: 2, 0xD6: 4, 0xD7: 8, 0xD8: 16}

# The smallest and the largest first byte that has a length or a number in itself.
_SHORT = ((0x80, 0x8F, "map"), (0x90, 0x9F, "array"), (0xA0, 0xBF, "str"))
_POSITIVE_END, _NEGATIVE_START = 0x80, 0xE0


def read_msgpack(file: SourceFile) -> Tree:
    """Read the headers of a file that :func:`sniff.looks_like_msgpack` takes.

    Returns:
        Tensors by name, levels joined by dots: parameters and statistics of batch norms together,
        without the levels that hold them apart; what else stands beside these is nested as it is.

    Raises:
        InputError: The file is truncated, breaks a rule of the format, or holds what Flax does not
            write.
        UnsafeInputError: A key occurs twice.
    """
    reader = _Reader(file)
    tree = reader.value((), 0)
    if reader.at != file.size:
        what = f"goes on behind its tree, it has {file.size} bytes and should have {reader.at}"
        raise damaged(file.name, what)
    return _arranged(tree, file.name)


def _arranged(tree: Tree, where: str) -> Tree:
    if not isinstance(tree, dict):
        return tree
    # A shard may hold one of the two alone.
    parameters, statistics = tree.get(PARAMETERS, {}), tree.get(STATISTICS, {})
    is_network = not tree.keys().isdisjoint({PARAMETERS, STATISTICS})
    if not (is_network and isinstance(parameters, dict) and isinstance(statistics, dict)):
        return _unique(_leaves(tree), where)
    beside = ((k, v) for k, v in tree.items() if k not in {PARAMETERS, STATISTICS})
    return _unique((*_leaves(parameters), *_leaves(statistics), *beside), where)


def _leaves(tree: Mapping[Hashable, Tree], prefix: str = "") -> Iterator[tuple[str, Tree]]:
    """The leaves of nested maps, each with its name."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _unique(leaves: Iterable[tuple[Hashable, Tree]], where: str) -> dict[Hashable, Tree]:
    found: dict[Hashable, Tree] = {}
    for name, value in leaves:
        if name in found:  # levels of two trees, or one that is called "a.b"
            raise InputError(
                f"{where}: has {printable(str(name))} twice; save the network alone, with Flax."
            )
        found[name] = value
    return found


@dataclass
class _Reader:
    """Goes through a file; of arrays it reads the headers.

    Attributes:
        file: It.
        at: The offset of the next byte.
        end: Where to stop, in bytes; None at the end of the file.
        left: How many values may still come.
    """

    file: SourceFile
    at: int = 0
    end: int | None = None
    left: int = MAX_VALUES

    def value(self, place: tuple[str, ...], depth: int) -> Tree:
        """Read what comes next; ``place`` are the keys that lead to it."""
        self.left -= 1
        if self.left < 0 or depth > MAX_DEPTH:
            what = f"{MAX_VALUES} values" if self.left < 0 else f"{MAX_DEPTH} levels"
            raise InputError(
                f"{self.file.name}: holds more than {what}, which no RegNet needs; save the "
                "network alone."
            )
        start = self.at
        kind, said = self._header()
        match kind:
            case "plain":
                plain: Tree = said
                return plain
            case "map":
                return self._map(said, place, depth)
            case "array":
                self._require(said)
                return [self.value((*place, str(i)), depth + 1) for i in range(said)]
            case "str":
                return self._text(said, start)
            case "ext":
                return self._extension(said, place)
        self._skip(said)
        return Opaque("bytes")

    def _map(self, count: int, place: tuple[str, ...], depth: int) -> Tree:
        self._require(2 * count)
        found: dict[Hashable, Tree] = {}
        for _ in range(count):
            start = self.at
            key = self.value(place, depth + 1)
            if not isinstance(key, str):
                raise self._damaged(start, f"a key is of type {type(key).__name__}")
            if key in found:
                raise UnsafeInputError(
                    f"{self.file.name}: has the key '{printable(key)}' twice, so that programs may "
                    "disagree on its content; get the checkpoint from a source you trust."
                )
            found[key] = self.value((*place, key), depth + 1)
        return self._whole(found, place) if CHUNKED in found else found

    def _whole(self, chunked: Mapping[Hashable, Tree], place: tuple[str, ...]) -> StoredTensor:
        """The array that was cut into flat ones."""
        name = printable(".".join(place))
        shape, chunks = (_in_order(chunked.get(key)) for key in (SHAPE, CHUNKS))
        pieces = [chunk for chunk in chunks if isinstance(chunk, StoredTensor)]
        sizes = tuple(size for size in shape if type(size) is int and 0 <= size <= MAX_SIZE)
        whole = (
            0 < len(pieces) == len(chunks)
            and len(sizes) == len(shape) <= MAX_AXES
            and all(len(piece.shape) == 1 for piece in pieces)
            and len({piece.dtype for piece in pieces}) == 1
            and sum(piece.numel for piece in pieces) == prod(sizes)
        )
        if not whole:
            raise self._damaged(self.at, f"the chunks of {name} are not those of one array")
        return join(pieces, sizes)

    def _text(self, length: int, start: int) -> str:
        if length > MAX_TEXT:
            raise self._damaged(start, f"a text claims {length} bytes, more than a network needs")
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise self._damaged(start, "a text is not UTF-8") from error

    def _extension(self, length: int, place: tuple[str, ...]) -> Tree:
        start = self.at
        (kind,) = struct.unpack(">b", self._take(1))
        self._require(length)
        if kind in {ARRAY, SCALAR}:
            inside = _Reader(self.file, self.at, self.at + length, self.left)
            tensor = inside._array(place)
            self.left, self.at = inside.left, inside.at
            return tensor
        if kind != COMPLEX:
            raise self._damaged(start, f"an extension is of type {kind}, which Flax has not")
        self._skip(length)
        return Opaque("complex")

    def _array(self, place: tuple[str, ...]) -> StoredTensor:
        """The tensor that the payload of an extension describes, which ends where that ends."""
        start, label = self.at, f"tensor '{printable('.'.join(place))}'"
        kind, count = self._header()
        if (kind, count) != ("array", 3):
            raise self._damaged(start, f"{label} is not shape, type and elements")
        shape, code = self.value(place, MAX_DEPTH - 1), self.value(place, MAX_DEPTH)
        kind, length = self._header()
        if not isinstance(shape, list) or not isinstance(code, str) or kind not in {"bin", "str"}:
            raise self._damaged(start, f"{label} is not shape, type and elements")
        sizes = tuple(size for size in shape if type(size) is int and 0 <= size <= MAX_SIZE)
        if len(sizes) != len(shape) or len(shape) > MAX_AXES:
            raise self._damaged(start, f"{label} has sizes that cannot be")
        if code not in ELEMENT_TYPES:
            raise InputError(
                f"{self.file.name}: {label} has the unsupported type {printable(code)}; convert it "
                "to a float type."
            )
        if length != prod(sizes) * item_size(code) or self.at + length != self.end:
            raise self._damaged(start, f"{label} has other bytes than its shape and type need")
        storage = Storage(self.file.path, self.at, length, None, label)
        self._skip(length)
        return StoredTensor(code, sizes, contiguous_stride(sizes), storage, 0)

    def _header(self) -> tuple[str, Any]:
        """What comes next, and its value where it is plain, else how many bytes or members."""
        start = self.at
        first = self._take(1)[0]
        if first < _POSITIVE_END or first >= _NEGATIVE_START:
            return "plain", first if first < _POSITIVE_END else first - 0x100
        for lowest, highest, kind in _SHORT:
            if lowest <= first <= highest:
                return kind, first - lowest
        for kind, formats in _LENGTHS.items():
            if first in formats:
                return kind, self._number(formats[first])
        if first in _FIXED_EXTENSIONS:
            return "ext", _FIXED_EXTENSIONS[first]
        if first in _NUMBERS:
            return "plain", self._number(_NUMBERS[first])
        if first not in _PLAIN:
            raise self._damaged(start, f"a value begins with {first:#04x}")
        return "plain", _PLAIN[first]

    def _number(self, form: str) -> int | float:
        number: int | float = struct.unpack(form, self._take(struct.calcsize(form)))[0]
        return number

    def _take(self, length: int) -> bytes:
        self._require(length)
        data = self.file.read(self.at, length)
        self.at += length
        return data

    def _skip(self, length: int) -> None:
        self._require(length)
        self.at += length

    def _require(self, length: int) -> None:
        """Make sure that so many bytes follow, before anything is made of them."""
        end = self.file.size if self.end is None else self.end
        if self.at + length <= end:
            return
        if self.end is not None:
            raise self._damaged(self.at, "an array goes on behind its end")
        what = f"is truncated, it has {end} bytes and needs at least {self.at + length}"
        raise damaged(self.file.name, what)

    def _damaged(self, at: int, what: str) -> InputError:
        return damaged(self.file.name, f"is damaged or no checkpoint of Flax, {what} (byte {at})")


def _in_order(numbered: object) -> list[Tree]:
    """What Flax numbers, as it makes maps of tuples; empty if something is missing."""
    if not isinstance(numbered, dict):
        return []
    keys = [str(index) for index in range(len(numbered))]
    return [numbered[key] for key in keys] if numbered.keys() == set(keys) else []
