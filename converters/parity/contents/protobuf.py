"""Cutting large fields out of a serialised protobuf message, without copying them.

The wire format is simple: a message is its fields in a row, each a tag, a length and that many
bytes (https://protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.parity.contents.held import part

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, TensorProto

_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
"""Wire types: a number, bytes behind their length, and values of so many bytes."""


def cut(
    message: memoryview, kind: type[ModelProto | GraphProto | TensorProto], field: str
) -> tuple[bytes, list[memoryview]]:
    """Cut one field out of a message.

    Args:
        message: As it lies in the file.
        kind: What it is.
        field: Name of a field that is a message, text or bytes.

    Returns:
        The message without the field, and the content of each of its occurrences.

    Raises:
        ValueError: If it ends inside a field, or holds what protobuf no longer writes.
    """
    wanted = kind.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES
    rest = bytearray()
    found = []
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        length, at = _length(message, at, tag & 7)
        content = part(message, at, length)
        at += length
        if tag == wanted:
            found.append(content)
        else:
            rest += message[start:at]
    return bytes(rest), found


def _length(message: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    """How many bytes the content of a field has, and where it begins."""
    if wire_type == _BYTES:
        return _varint(message, at)
    if wire_type == _VARINT:
        return 0, _varint(message, at)[1]
    if wire_type not in _FIXED_SIZES:
        raise ValueError(f"it is no protobuf, for a field has wire type {wire_type}")
    return _FIXED_SIZES[wire_type], at


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and what comes after it: seven bits a byte, lowest first."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that another byte follows
            return value, at
    raise ValueError("it ends inside a number")
