"""Zip archives in parts that can be changed one by one, and are put together with right numbers.

What one part says of another (the offset of a header, the size of a directory, a checksum) is a
reference to that part until the bytes are written, so an archive stays whole whatever is moved,
doubled or added; a number is wrong only where a change has set it. Layout: APPNOTE.TXT 4.3.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from struct import Struct, pack, unpack_from

_LOCAL = Struct("<4s5H3I2H")
_CENTRAL = Struct("<4s6H3I5H2I")
_RECORD = Struct("<4sQ2H2I4Q")
_LOCATOR = Struct("<4sIQI")
_END = Struct("<4s4H2IH")

STORED, DEFLATED = 0, 8
SIZES_FOLLOW = 8
_ZIP64_EXTRA = 1
_MASK = {"H": 0xFFFF, "I": 0xFFFFFFFF, "Q": 0xFFFFFFFFFFFFFFFF}


class Part:
    """A stretch of an archive."""

    said: dict[str, int]
    """Fields whose numbers are not those that would be right."""


@dataclass(eq=False)
class Local(Part):
    """A header, and the content behind it."""

    name: bytes
    content: bytes
    extra: bytes = b""
    flags: int = 0
    method: int = STORED
    descriptor: int = 0
    said: dict[str, int] = field(default_factory=dict)

    @property
    def packed(self) -> bytes:
        """The content as it is stored."""
        if self.method != DEFLATED:
            return self.content
        squeeze = zlib.compressobj(wbits=-zlib.MAX_WBITS)
        return squeeze.compress(self.content) + squeeze.flush()


@dataclass(eq=False)
class Row:
    """What a directory says of an entry."""

    local: Local
    name: bytes
    extra: bytes = b""
    comment: bytes = b""
    wide: bool = False
    said: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Directory(Part):
    """The rows of a directory."""

    rows: list[Row]
    said: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Record(Part):
    """A zip64 end record."""

    directory: Directory
    rest: bytes = b""
    said: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Locator(Part):
    """What says where a zip64 end record is."""

    record: Record
    said: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class End(Part):
    """An end record; ``wide`` ones leave the numbers to a zip64 end record."""

    directory: Directory
    comment: bytes = b""
    wide: bool = False
    said: dict[str, int] = field(default_factory=dict)


@dataclass(eq=False)
class Junk(Part):
    """Bytes that belong to nothing."""

    data: bytes
    said: dict[str, int] = field(default_factory=dict)


Archive = list[Part]


def parsed(data: bytes) -> Archive:
    """Take apart a whole archive as torch, safetensors or zipfile write it."""
    end_at = data.rindex(b"PK\5\6")
    *_, count, size, start, _ = _END.unpack_from(data, end_at)
    locals_: list[Local] = []
    rows: list[Row] = []
    at = start
    for _ in range(count):
        row, offset, at = _row(data, at)
        locals_.append(row.local)
        rows.append(row)
        row.local.said["offset"] = offset
    locals_.sort(key=lambda local: local.said["offset"])
    for local in locals_:
        del local.said["offset"]
    directory = Directory(rows)
    parts: Archive = [*locals_, directory]
    if data[at : at + 4] == b"PK\6\6":
        record = Record(directory)
        parts += [record, Locator(record)]
    assert at == start + size  # noqa: S101
    return [*parts, End(directory)]


def _row(data: bytes, at: int) -> tuple[Row, int, int]:
    fields = _CENTRAL.unpack_from(data, at)
    flags, method = fields[3], fields[4]
    size, packed, offset = fields[9], fields[8], fields[16]
    lengths = fields[10:13]
    at += _CENTRAL.size
    name, extra, comment = (
        data[at + sum(lengths[:index]) : at + sum(lengths[: index + 1])] for index in range(3)
    )
    there = _LOCAL.unpack_from(data, offset)
    body = offset + _LOCAL.size
    local_extra = data[body + there[9] : body + there[9] + there[10]]
    begin = body + there[9] + there[10]
    content = data[begin : begin + packed]
    if method == DEFLATED:
        content = zlib.decompress(content, -zlib.MAX_WBITS)
    assert len(content) == size  # noqa: S101
    behind = data[begin + packed :]
    descriptor = 0
    if flags & SIZES_FOLLOW and behind.startswith(b"PK\7\x08"):
        descriptor = 24 if unpack_from("<Q", behind, 8)[0] == packed else 16
    local = Local(name, content, local_extra, flags, method, descriptor)
    return Row(local, name, extra, comment), offset, at + sum(lengths)


def written(archive: Archive) -> bytes:
    """Put an archive together."""
    writer = _Writer(archive)
    return b"".join(writer.written(part) for part in archive)


class _Writer:
    """Knows where every part will lie."""

    def __init__(self, archive: Archive) -> None:
        self._offsets: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        at = 0
        for part in archive:
            size = len(self.written(part))
            self._offsets.setdefault(id(part), at)
            self._sizes[id(part)] = size
            at += size

    def written(self, part: Part) -> bytes:
        match part:
            case Local():
                return _local(part)
            case Directory():
                return b"".join(map(self._row, part.rows))
            case Record():
                return self._record(part)
            case Locator():
                return self._locator(part)
            case End():
                return self._end(part)
            case Junk():
                return part.data
        raise TypeError(part)

    def _offset(self, part: Part) -> int:
        return self._offsets.get(id(part), 0)

    def _size(self, part: Part) -> int:
        return self._sizes.get(id(part), 0)

    def _row(self, row: Row) -> bytes:
        local, extra = row.local, row.extra
        size, packed, offset = len(local.content), len(local.packed), self._offset(local)
        if row.wide:
            extra += pack("<2H3Q", _ZIP64_EXTRA, 24, size, packed, offset)
            size = packed = offset = 0xFFFFFFFF
        fields = {
            "made": 0, "needed": 20, "flags": local.flags, "method": local.method, "time": 0,
            "date": 33, "crc": zlib.crc32(local.content), "packed": packed, "size": size,
            "name": len(row.name), "extra": len(extra), "comment": len(row.comment), "disk": 0,
            "internal": 0, "external": 0, "offset": offset,
        }  # fmt: skip
        return _header(_CENTRAL, b"PK\1\2", fields, row.said) + row.name + extra + row.comment

    def _record(self, part: Record) -> bytes:
        count = len(part.directory.rows)
        fields = {
            "rest": 44 + len(part.rest), "made": 45, "needed": 45, "disk": 0, "start_disk": 0,
            "here": count, "entries": count, "size": self._size(part.directory),
            "offset": self._offset(part.directory),
        }  # fmt: skip
        return _header(_RECORD, b"PK\6\6", fields, part.said) + part.rest

    def _locator(self, part: Locator) -> bytes:
        fields = {"disk": 0, "offset": self._offset(part.record), "disks": 1}
        return _header(_LOCATOR, b"PK\6\7", fields, part.said)

    def _end(self, part: End) -> bytes:
        count = len(part.directory.rows)
        size, offset = self._size(part.directory), self._offset(part.directory)
        if part.wide:
            count, size, offset = 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF
        fields = {
            "disk": 0, "start_disk": 0, "here": count, "entries": count, "size": size,
            "offset": offset, "comment": len(part.comment),
        }  # fmt: skip
        return _header(_END, b"PK\5\6", fields, part.said) + part.comment


def _local(part: Local) -> bytes:
    packed, crc = part.packed, zlib.crc32(part.content)
    follow = bool(part.descriptor)
    fields = {
        "needed": 20, "flags": part.flags, "method": part.method, "time": 0, "date": 33,
        "crc": 0 if follow else crc, "packed": 0 if follow else len(packed),
        "size": 0 if follow else len(part.content), "name": len(part.name),
        "extra": len(part.extra),
    }  # fmt: skip
    header = _header(_LOCAL, b"PK\3\4", fields, part.said)
    behind = b""
    if part.descriptor:
        form = "<4sI2Q" if part.descriptor == 24 else "<4s3I"  # noqa: PLR2004
        behind = pack(form, b"PK\7\x08", crc, len(packed), len(part.content))
    return header + part.name + part.extra + packed + behind


def _header(
    layout: Struct, signature: bytes, fields: dict[str, int], said: dict[str, int]
) -> bytes:
    codes = "".join(
        code * int(count or 1) for count, code in _codes(layout.format.removeprefix("<4s"))
    )
    stated = (said.get(name, right) for name, right in fields.items())
    values = (number & _MASK[code] for code, number in zip(codes, stated, strict=True))
    begin = signature if "signature" not in said else said["signature"].to_bytes(4, "little")
    return layout.pack(begin, *values)


def _codes(text: str) -> list[tuple[str, str]]:
    pairs, count = [], ""
    for character in text:
        if character.isdigit():
            count += character
        else:
            pairs.append((count, character))
            count = ""
    return pairs
