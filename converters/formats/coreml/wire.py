"""Messages of protobuf, written as protobuf's own libraries write them.

A message is its fields in a row, each a tag and a number, or a tag, a length and so many bytes
(https://protobuf.dev/programming-guides/encoding). Core ML's are few and small, so they are written
without a library, and without the classes that coremltools would take seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Field = tuple[int, "int | str | bytes"]
"""Its number, and what it says: a number, a text, or a message or packed numbers as bytes."""

_VARINT, _LENGTH_DELIMITED = 0, 2
"""Wire types: a number, and bytes behind their length."""


def message(*fields: Field) -> bytes:
    """A message of some fields, in ascending order.

    A number of 0 and an empty text say nothing and are left out, as proto3 has it; a message
    without fields says that it is there.
    """
    return b"".join(_field(number, value) for number, value in fields)


def repeated(number: int, values: Iterable[int | str | bytes]) -> list[Field]:
    """A field that occurs once for each value."""
    return [(number, value) for value in values]


def entries(number: int, values: Mapping[str, bytes | str]) -> list[Field]:
    """A field that maps texts to messages or texts, in the order of the keys."""
    return [(number, message((1, key), (2, value))) for key, value in sorted(values.items())]


def packed(numbers: Iterable[int]) -> bytes:
    """Numbers of one field."""
    return b"".join(map(varint, numbers))


def varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that another byte follows."""
    value &= (1 << 64) - 1  # a negative number is ten bytes, as in two's complement
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return varint(number << 3 | _VARINT) + varint(value) if value else b""
    content = value.encode() if isinstance(value, str) else value
    if isinstance(value, str) and not value:
        return b""
    return varint(number << 3 | _LENGTH_DELIMITED) + varint(len(content)) + content
