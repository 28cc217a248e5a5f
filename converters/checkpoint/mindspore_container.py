"""MindSpore's checkpoints: a protobuf message of one entry for each tensor, and nothing else.

In protobuf's own words: ``Checkpoint {repeated Value value = 1}``, ``Value {string tag = 1;
TensorProto tensor = 2}``, ``TensorProto {repeated int64 dims = 1; string tensor_type = 2; bytes
tensor_content = 3}``. Entries of one tag, one behind another, are pieces of one tensor. A file may
end in a checksum of all of it. Source: mindspore 2.10 ``train/checkpoint.proto`` and
``train/serialization.py`` (``_exec_save``, ``_parse_ckpt_proto``, ``_load_ckpt_into_param_dict``).

protobuf takes a field that occurs twice, and fields that nobody knows; MindSpore writes neither, so
files that have them are refused.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
    join,
)
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator

    from converters.checkpoint.source_file import SourceFile

MAX_ENTRIES = 100_000
"""In a file; a training checkpoint of the largest published RegNet has a thousand."""

_MAX_NAME = 1 << 10  # bytes
_MAX_TEXT = 1 << 16  # bytes
_PIECE = 1 << 20  # bytes

_VARINT, _RUN = 0, 2
"""Wire types: a number, and a length with as many bytes behind it."""

_MAX_VARINT = 10  # bytes
_MAX_FIELD = 2 * _MAX_VARINT  # bytes of a field before its content

_CHECKSUM, _CHECKSUM_SIZE = b"crc_num", 17
"""How the checksum begins that a file may end in: a word, and ten bytes, the highest first."""

_TEXT = "str"
_TYPES = {
    "Bool": "bool",
    "UInt8": "uint8",
    "Int8": "int8",
    "UInt16": "uint16",
    "Int16": "int16",
    "UInt32": "uint32",
    "Int32": "int32",
    "UInt64": "uint64",
    "Int64": "int64",
    "Float16": "float16",
    "BFloat16": "bfloat16",
    "Float32": "float32",
    "Float64": "float64",
}
"""MindSpore's names of element types to torch's."""


@dataclass(slots=True)
class _Entry:
    """What is known of a tensor: its pieces' places in the file, in bytes."""

    dims: tuple[int, ...]
    kind: str
    runs: list[tuple[int, int]] = field(default_factory=list)


def read_mindspore(file: SourceFile) -> Tree:
    """Read the names and places of tensors in a file that `sniff.looks_like_mindspore` takes.

    Only a file that ends in a checksum is read through.

    Returns:
        Tensors and texts by name, in the order of the file; a scalar has no axes.

    Raises:
        InputError: It is truncated, damaged, or holds what is no tensor of numbers.
        UnsafeInputError: A name occurs twice.
    """
    end = _content_end(file)
    entries: dict[str, _Entry] = {}
    last = None
    for count, (number, value) in enumerate(_fields(file, 0, end)):
        if number != 1 or isinstance(value, int):
            raise _damaged(file, "it has a field that MindSpore does not write")
        if count >= MAX_ENTRIES:
            raise _damaged(
                file, f"it has more than {MAX_ENTRIES} entries, more than a network needs"
            )
        name, entry = _entry(file, *value)
        known = entries.setdefault(name, entry)
        if known is not entry:
            _require_piece(file, name, known, entry, follows=name == last)
            known.runs += entry.runs
        last = name
    file.require_unchanged()
    tree: dict[Hashable, Tree] = {name: _read(file, name, one) for name, one in entries.items()}
    return tree


def _content_end(file: SourceFile) -> int:
    """Where the message ends; a checksum behind it is compared."""
    end = file.size - _CHECKSUM_SIZE
    if end < 0:
        return file.size
    tail = file.read(end, _CHECKSUM_SIZE)
    if not tail.startswith(_CHECKSUM):
        return file.size
    found = 0
    for start in range(0, end, _PIECE):
        found = crc32(file.read(start, min(_PIECE, end - start)), found)
    if found != int.from_bytes(tail[len(_CHECKSUM) :], "big"):
        raise _damaged(file, "it has another checksum than it states")
    return end


def _fields(file: SourceFile, start: int, end: int) -> Iterator[tuple[int, int | tuple[int, int]]]:
    """The fields of a message: number, and value or where it begins and ends; no content is read.

    Raises:
        InputError: A field is of no kind that MindSpore writes, or goes beyond the message.
    """
    while start < end:
        head = file.read(start, min(_MAX_FIELD, end - start))
        key, used = _varint(file, head, 0)
        value, used = _varint(file, head, used)
        start += used
        if key & 7 == _VARINT:
            yield key >> 3, value
        elif key & 7 == _RUN:
            if start + value > file.size:
                what = f"is truncated, it has {file.size} bytes and an entry needs {start + value}"
                raise damaged(file.name, what)
            if start + value > end:
                raise _damaged(file, "an entry in it goes beyond the one that it is in")
            yield key >> 3, (start, start + value)
            start += value
        else:
            raise _damaged(file, "it has a field that MindSpore does not write")


def _varint(file: SourceFile, data: bytes, start: int) -> tuple[int, int]:
    """A number at ``start``, seven bits a byte, and where it ends."""
    value = 0
    for position, byte in enumerate(data[start : start + _MAX_VARINT]):
        value |= (byte & 0x7F) << 7 * position
        if byte < 0x80:  # noqa: PLR2004 -- the highest bit says that there are more
            return value, start + position + 1
    raise _damaged(file, "a number in it does not end")


def _entry(file: SourceFile, start: int, end: int) -> tuple[str, _Entry]:
    """One ``Value``."""
    name, tensor = _once(file, start, end, {1, 2})
    if name is None or tensor is None:
        raise _damaged(file, "an entry lacks a name or a tensor")
    return _text(file, *name, _MAX_NAME), _tensor(file, *tensor)


def _once(
    file: SourceFile, start: int, end: int, numbers: set[int]
) -> list[tuple[int, int] | None]:
    """Where the content of each of a message's fields lies, which occur once at most."""
    found: dict[int, tuple[int, int]] = {}
    for number, value in _fields(file, start, end):
        if number not in numbers or number in found or isinstance(value, int):
            raise _damaged(file, "an entry has a field twice, or one that holds no tensor")
        found[number] = value
    return [found.get(number) for number in sorted(numbers)]


def _tensor(file: SourceFile, start: int, end: int) -> _Entry:
    """One ``TensorProto``."""
    dims: list[int] = []
    found: dict[int, tuple[int, int]] = {}
    for number, value in _fields(file, start, end):
        if number == 1 and isinstance(value, int) and len(dims) < MAX_AXES:
            dims.append(value)
        elif number in {2, 3} and number not in found and not isinstance(value, int):
            found[number] = value
        else:
            raise _damaged(file, "a tensor has a field twice, or one that MindSpore does not write")
    if len(found) < 2 or any(size > MAX_SIZE for size in dims):  # noqa: PLR2004
        raise _damaged(file, "a tensor lacks its type or content, or has a size that cannot be")
    kind = _text(file, *found[2], _MAX_NAME)
    # MindSpore reads one axis of no elements as no axis.
    return _Entry(() if dims == [0] else tuple(dims), kind, [found[3]])


def _text(file: SourceFile, start: int, end: int, most: int) -> str:
    if end - start > most:
        raise _damaged(file, f"a name in it has {end - start} bytes, more than {most}")
    try:
        return file.read(start, end - start).decode()
    except UnicodeDecodeError as error:
        raise _damaged(file, "a name in it is no text") from error


def _require_piece(
    file: SourceFile, name: str, known: _Entry, entry: _Entry, *, follows: bool
) -> None:
    """Check that a name that was met before means one more piece of a tensor.

    Raises:
        InputError: It is a piece of another tensor.
        UnsafeInputError: It is no piece: MindSpore would forget the first tensor of this name.
    """
    if not follows:
        raise UnsafeInputError(
            f"{file.name}: has the name '{printable(name)}' twice, so that programs may disagree "
            "on its content; get the checkpoint from a source you trust."
        )
    if (entry.dims, entry.kind) != (known.dims, known.kind):
        raise _damaged(file, f"the pieces of '{printable(name)}' have several shapes or types")


def _read(file: SourceFile, name: str, entry: _Entry) -> Tree:
    """The tensor, without its numbers, or the text, of an entry."""
    label = f"tensor '{printable(name)}'"
    if entry.kind == _TEXT:
        return _unicode(file, label, entry)
    dtype = _TYPES.get(entry.kind)
    if dtype is None:
        raise InputError(
            f"{file.name}: {label} has the unsupported type {printable(entry.kind)}; convert it "
            "to a float type."
        )
    size = item_size(dtype)
    lengths = [end - start for start, end in entry.runs]
    if sum(lengths) != prod(entry.dims) * size or any(length % size for length in lengths):
        raise _damaged(file, f"{label} has other bytes than its shape and type need")
    storages = [Storage(file.path, s, e - s, None, label) for s, e in entry.runs]
    if len(storages) == 1:
        return StoredTensor(dtype, entry.dims, contiguous_stride(entry.dims), storages[0], 0)
    pieces = [StoredTensor(dtype, (s.length // size,), (1,), s, 0) for s in storages]
    return join(pieces, entry.dims)


def _unicode(file: SourceFile, label: str, entry: _Entry) -> str:
    """A text, which is stored as NumPy does: four bytes a character."""
    if sum(end - start for start, end in entry.runs) > _MAX_TEXT:
        raise _damaged(file, f"{label} is a text of more than {_MAX_TEXT} bytes")
    try:
        found = b"".join(file.read(start, end - start) for start, end in entry.runs)
        return found.decode("utf-32-le")
    except UnicodeDecodeError as error:
        raise _damaged(file, f"{label} is said to be a text and is none") from error


def _damaged(file: SourceFile, what: str) -> InputError:
    return damaged(file.name, f"is damaged, {what}")
