"""Protobuf's wire format, walked in the file that it lies in; only what is asked for is read.

A message is its fields in a row, each a tag, then a number or a length and that many bytes
(https://protobuf.dev/programming-guides/encoding). What a field of bytes holds is given as a
:class:`Span` of the file, be it a name or the weights of a network.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from converters.checkpoint.source_file import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.checkpoint.source_file import ReadableAt
    from converters.errors import InputError

MAX_FIELDS = 1 << 20
"""Of all messages together; a network's thousand nodes and tensors have some ten thousand."""

MAX_TEXT = 1 << 22
"""Bytes of a name, or of a text that a file carries; those of 21,000 classes take one MB."""

_WINDOW = 1 << 14  # bytes read at a time
_LONGEST = 10  # bytes of a number of 64 bits
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_WIDTHS = {_FIXED64: 8, _FIXED32: 4}


class Span(NamedTuple):
    """A stretch of the file.

    Attributes:
        start: Its first byte.
        end: Behind its last one.
    """

    start: int
    end: int

    @property
    def length(self) -> int:
        """In bytes."""
        return self.end - self.start


Value = int | bytes | Span
"""Of a field: a number, eight or four bytes that are one, or where its content lies."""

Message = dict[int, list[Value]]
"""Number of a field to its values, in the order of the file."""


class ProtobufReader:
    """Takes messages apart.

    Args:
        file: What they lie in.
        most: How many fields are read, in all messages together.

    Raises:
        InputError: From any method: what is read is no protobuf, or has more parts than bounds
            allow.
        StorageError: Likewise, the file cannot be read.
    """

    def __init__(self, file: ReadableAt, most: int = MAX_FIELDS) -> None:
        self._file = file
        self._most = self._left = most
        self._start, self._window = 0, b""

    @property
    def whole(self) -> Span:
        """All of the file."""
        return Span(0, self._file.size)

    def message(self, span: Value) -> Message:
        """The fields of a message, those of bytes as spans."""
        found: Message = {}
        for number, value in self._fields(self._as_span(span)):
            found.setdefault(number, []).append(value)
        return found

    def content(self, span: Value, most: int = MAX_TEXT) -> bytes:
        """The bytes of a field, of which there may be no more than ``most``."""
        span = self._as_span(span)
        if span.length > most:
            raise self.damaged(f"a text of {span.length} bytes is in it")
        return self._file.read(span.start, span.length)

    def text(self, span: Value) -> str:
        """The text of a field."""
        return self.content(span).decode("utf-8", "replace")

    def numbers(self, values: list[Value], most: int) -> list[int]:
        """The integers of a repeated field, which may stand packed into bytes.

        Args:
            values: Of the field.
            most: How many there may be.
        """
        found: list[int] = []
        for value in values:
            if not isinstance(value, Span):
                found.append(self.integer(value))
                continue
            at = value.start
            while at < value.end and len(found) <= most:
                number, at = self._varint(at, value.end)
                found.append(_signed(number))
        if len(found) > most:
            raise self.damaged(f"more than {most} numbers stand where a network has few")
        return found

    def integer(self, value: Value) -> int:
        """A signed number."""
        if not isinstance(value, int):
            raise self.damaged("something else stands where a number belongs")
        return _signed(value)

    def float32(self, value: Value) -> float:
        """A number of four bytes."""
        if not isinstance(value, bytes) or len(value) != _WIDTHS[_FIXED32]:
            raise self.damaged("something else stands where a number belongs")
        (number,) = struct.unpack("<f", value)
        return float(number)

    def damaged(self, what: str) -> InputError:
        """The error for a message that is none."""
        return damaged(self._file.name, f"cannot be read as protobuf, {what}")

    def _as_span(self, value: Value) -> Span:
        if not isinstance(value, Span):
            raise self.damaged("a number stands where a message or text belongs")
        return value

    def _fields(self, span: Span) -> Iterator[tuple[int, Value]]:
        at = span.start
        while at < span.end:
            self._left -= 1
            if self._left < 0:
                raise self.damaged(f"it has more than {self._most} parts")
            tag, at = self._varint(at, span.end)
            number, wire = tag >> 3, tag & 7
            if wire == _VARINT:
                value, at = self._varint(at, span.end)
                yield number, value
                continue
            if wire == _BYTES:
                length, at = self._varint(at, span.end)
            elif wire in _WIDTHS:
                length = _WIDTHS[wire]
            else:
                raise self.damaged(f"it has a field of the unknown kind {wire} at byte {at}")
            if length > span.end - at:
                raise self.damaged(f"it ends at byte {span.end}, inside a field of {length} bytes")
            field = Span(at, at + length)
            yield number, field if wire == _BYTES else self._near(at, length)
            at = field.end

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """A number, seven bits a byte, lowest first; and what comes after it."""
        value = 0
        for place, byte in enumerate(self._near(at, min(_LONGEST, end - at))):
            value |= (byte & 0x7F) << 7 * place
            if byte < 0x80:  # noqa: PLR2004 -- the top bit says that another byte follows
                return value & 0xFFFF_FFFF_FFFF_FFFF, at + place + 1
        raise self.damaged(f"it ends inside a number at byte {at}")

    def _near(self, at: int, length: int) -> bytes:
        """A few bytes, out of the window that was read last where they lie in it."""
        skip = at - self._start
        if not 0 <= skip <= len(self._window) - length:
            size = min(_WINDOW, self._file.size - at)
            self._start, self._window, skip = at, self._file.read(at, size), 0
        return self._window[skip : skip + length]


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
