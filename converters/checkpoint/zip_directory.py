"""Which entries a zip archive has, where no two programs can find others in it.

torch (by miniz), Python's zipfile, libzip and readers from front to back find the entries in ways
of their own, and where an archive is not plain, they find others. So whatever opens an archive
here, be it a checkpoint or an artefact, goes by this directory, and what is not plain is refused.
Source of the rules: PKWARE's APPNOTE.TXT 6.3.10, sections 4.3 to 4.6, without all that it allows
but does not ask for; and torch's ``caffe2/serialize/inline_container.cc``, which has sizes follow
stored data, and pads headers with a field of its own.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING
from unicodedata import normalize

from converters.checkpoint.source_file import damaged
from converters.errors import InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.checkpoint.source_file import ReadableAt

ZIP_START = b"PK\x03\x04"
"""How an archive with an entry begins, and each entry in it."""

STORED = 0
"""The method of an entry that lies as it is."""

ENCRYPTED = 0x0001
SIZES_FOLLOW, UTF8_NAME = 0x0008, 0x0800
"""Flags; torch sets the last two and no other."""

MAX_DIRECTORY = 1 << 24
"""In bytes; an entry of torch.save's takes about a hundred."""

_IS_FOLDER = 0x10  # among the attributes that MS-DOS gives a file
_LEVEL = 0x0006  # bits that say how hard deflate tried

LOCAL_HEADER = struct.Struct("<4sHHHHHIIIHH")
_CENTRAL = struct.Struct("<4sHHHHHHIIIHHHHHII")
_END = struct.Struct("<4sHHHHIIH")
_END64 = struct.Struct("<4sQHHIIQQQQ")
_LOCATOR = struct.Struct("<4sIQI")
_CENTRAL_START, _END_START = b"PK\x01\x02", b"PK\x05\x06"
_END64_START, _LOCATOR_START = b"PK\x06\x06", b"PK\x06\x07"
_DESCRIPTOR_START = b"PK\x07\x08"

_MAX_COMMENT = 0xFFFF
_ELSEWHERE16, _ELSEWHERE32 = 0xFFFF, 0xFFFFFFFF  # the number is in a zip64 record
_ZIP64_FIELD, _NAME_FIELD = 0x0001, 0x7075
_FIELD_HEADER = 4  # bytes: its number, and the length of what follows
_NAME_FIELD_HEADER = 5  # bytes: a version, and the checksum of the name it stands for
_DESCRIPTORS = ("<III", "<IQQ")  # checksum, size in the archive, size


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry, as the directory has it.

    Attributes:
        name: With the folders before it, slashes between.
        raw_name: The bytes of the name.
        flags: Bits; see :data:`ENCRYPTED` and the others.
        method: How it is compressed; :data:`STORED` is not.
        crc32: Of its content.
        stored: How many bytes it takes in the archive.
        size: How many bytes its content has.
        header: Where its own header begins, in bytes.
    """

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc32: int
    stored: int
    size: int
    header: int

    @property
    def inside(self) -> str:
        """The name below the folder that holds all entries of an archive of torch's."""
        return self.name.partition("/")[2]


class ZipDirectory:
    """The entries of an archive.

    What its end says is checked at once; :meth:`require_one_reading` checks the rest, for what
    wants to see the entries of a deceitful archive too.

    Attributes:
        entries: In the order of the directory.

    Raises:
        InputError: It is truncated or damaged.
        UnsafeInputError: Programs may disagree where its directory is.
        StorageError: It cannot be read.
    """

    def __init__(self, file: ReadableAt) -> None:
        self._file = file
        start, size, count = self._end_records()
        self._end = start  # of the entries
        self.entries = tuple(self._records(file.read(start, size), count))
        self._data: dict[int, int] = {}  # header to where the data begins, of what was checked

    def require_one_reading(self, begin: int = 0) -> None:
        """Check that every program finds these entries and no others.

        Only headers and what lies between the entries are read.

        Args:
            begin: Where the first entry begins, in bytes: not at 0 if a file of another kind, whose
                end is known otherwise, lies before them.

        Raises:
            InputError: An entry is missing, or reaches beyond the others.
            UnsafeInputError: Programs may disagree.
        """
        seen: set[bytes | str] = set()
        for entry in self.entries:
            self._require_plain_name(entry)
            # torch, by miniz, looks for names whatever the case of ASCII letters, and many file
            # systems whatever the case of any.
            folded = normalize("NFC", entry.name).casefold().rstrip("/")
            names: set[bytes | str] = {entry.raw_name.lower().rstrip(b"/"), folded}
            if not seen.isdisjoint(names):
                raise self.ambiguous(f"has two entries called '{printable(entry.name)}'")
            seen |= names
        at = begin
        for entry in sorted(self.entries, key=lambda entry: entry.header):
            if entry.header != at:
                raise self._out_of_place(entry.header, at)
            self._data[entry.header] = self._require_local_header(entry)
            at = self._require_descriptor(entry)
        if at != self._end:
            raise self._out_of_place(self._end, at)

    def require_one_folder(self) -> str:
        """The folder that holds all entries, as in every archive of torch's; "" of none.

        Raises:
            UnsafeInputError: There are several.
        """
        folders = sorted({entry.name.partition("/")[0] for entry in self.entries})
        if len(folders) > 1:
            raise self.ambiguous(f"has {len(folders)} folders, such as '{printable(folders[1])}'")
        return folders[0] if folders else ""

    def data_offset(self, entry: Entry) -> int:
        """Where the bytes of an entry begin, by its own header."""
        if entry.header not in self._data:  # nobody asked for one reading
            left = max(self._file.size - entry.header, 0)
            header = self._file.read(entry.header, min(LOCAL_HEADER.size, left))
            sizes = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
            return entry.header + LOCAL_HEADER.size + sum(sizes)
        return self._data[entry.header]

    def content(self, entry: Entry, limit: int) -> bytes:
        """What an entry holds, as a careless program finds it; of a longer one the beginning.

        Neither the checksum nor the flags count: torch ignores some, and scanners that stopped at
        them were passed by (GHSA-w8jq-xcqf-f792). At most ``limit`` bytes are read, and returned.
        """
        start = self.data_offset(entry)
        length = min(entry.stored, limit, max(self._file.size - start, 0))
        data = self._file.read(start, length)
        if entry.method == STORED:
            return data
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, limit)
        except zlib.error:
            return b""

    def ambiguous(self, what: str) -> UnsafeInputError:
        """The error for an archive that programs may read as different ones: it ``what``."""
        return UnsafeInputError(
            f"{self._file.name}: {what}, so that programs may disagree on its content; get the "
            "file anew, from a source you trust."
        )

    # The end.

    def _end_record(self) -> tuple[int, list[int]]:
        """Where the last end record begins, and its numbers."""
        tail_size = min(self._file.size, _END.size + _MAX_COMMENT)
        tail_start = self._file.size - tail_size
        tail = self._file.read(tail_start, tail_size)
        at = tail.rfind(_END_START)
        if at < 0 or len(tail) - at < _END.size:
            if tail.rfind(_END_START, 0, max(at, 0)) >= 0:
                raise self.ambiguous("has two end records, the last of which is cut off")
            raise self._truncated()
        _, *numbers, comment = _END.unpack_from(tail, at)
        behind = len(tail) - at - _END.size - comment
        if behind < 0:
            raise self._truncated()
        if behind > 0:
            raise self.ambiguous(f"goes on for {behind} bytes behind its end record")
        return tail_start + at, numbers

    def _end_records(self) -> tuple[int, int, int]:
        """Where the directory begins, its bytes, and its entries."""
        end, numbers = self._end_record()
        disk, directory_disk, here, count, size, start = numbers
        directory_end = end
        located = self._zip64_record(end)
        if located is not None:
            directory_end, numbers64 = located
            limits = (*(_ELSEWHERE16,) * 4, *(_ELSEWHERE32,) * 2)
            if any(a not in {b, m} for a, b, m in zip(numbers, numbers64, limits, strict=True)):
                raise self.ambiguous(
                    f"has two end records, at bytes {directory_end} and {end}, that disagree"
                )
            disk, directory_disk, here, count, size, start = numbers64
        elif _ELSEWHERE16 in numbers[:4] or _ELSEWHERE32 in numbers[4:]:
            raise self.ambiguous(f"has no zip64 record to which the end record at byte {end} leads")
        if disk or directory_disk or here != count:
            raise self.ambiguous(f"is one part of several, says the end record at byte {end}")
        if start + size != directory_end:
            raise self.ambiguous(
                f"has a table of contents that does not end at byte {directory_end}, where its end "
                "record begins"
            )
        if size > MAX_DIRECTORY:
            raise InputError(
                f"{self._file.name}: has a table of contents of {size} bytes, too large for a "
                "checkpoint; save the state dict alone."
            )
        return start, size, count

    def _zip64_record(self, end: int) -> tuple[int, list[int]] | None:
        """Where the zip64 record before the end record is, and its numbers; None without one."""
        at = end - _LOCATOR.size
        locator = self._file.read(at, _LOCATOR.size) if at >= 0 else b""
        if not locator.startswith(_LOCATOR_START):
            return None
        _, disk, record, disks = _LOCATOR.unpack(locator)
        expected = at - _END64.size
        if record != expected or (disk, disks) != (0, 1):
            raise self.ambiguous(
                f"has a zip64 locator at byte {at} that leads to byte {record} and not to byte "
                f"{expected}, where the record before it begins"
            )
        start, size, _, _, *numbers = _END64.unpack(self._file.read(record, _END64.size))
        if start != _END64_START or size != _END64.size - 12:
            raise self.ambiguous(f"has no zip64 record at byte {record}, where its locator leads")
        return record, numbers

    def _truncated(self) -> InputError:
        size = f"its {self._file.size} bytes"
        what = f"is truncated or damaged, {size} end without the table of contents of a zip archive"
        return damaged(self._file.name, what)

    # The directory.

    def _records(self, directory: bytes, count: int) -> Iterator[Entry]:
        at = 0
        for _ in range(count):
            record = directory[at : at + _CENTRAL.size]
            if len(record) < _CENTRAL.size or not record.startswith(_CENTRAL_START):
                break
            numbers = _CENTRAL.unpack(record)
            name_size, extra_size, comment_size = numbers[10:13]
            name_end = at + _CENTRAL.size + name_size
            raw_name = directory[at + _CENTRAL.size : name_end]
            extra = directory[name_end : name_end + extra_size]
            at = name_end + extra_size + comment_size
            if at > len(directory):
                break
            yield self._entry(numbers, raw_name, extra)
        else:
            if at == len(directory):
                return
        raise self.ambiguous(f"has a table of contents that is not one of {count} entries")

    def _entry(self, numbers: tuple[int, ...], raw_name: bytes, extra: bytes) -> Entry:
        *_, flags, method, _, _, crc32, stored, size = numbers[:10]
        disk, _, attributes, header = numbers[13:]
        name = self._name(raw_name, flags)
        if attributes & _IS_FOLDER and not name.endswith("/"):  # of which miniz reads nothing
            raise self.ambiguous(f"marks '{printable(name)}' as a folder, which has content")
        (size, stored, header), wide = self._widened(extra, raw_name, name, size, stored, header)
        if disk or wide or _ELSEWHERE32 in {size, stored, header}:
            raise self.ambiguous(f"does not say plainly how large '{printable(name)}' is or where")
        return Entry(name, raw_name, flags, method, crc32, stored, size, header)

    def _name(self, raw_name: bytes, flags: int) -> str:
        try:
            return raw_name.decode("utf-8" if flags & UTF8_NAME else "cp437")
        except UnicodeDecodeError:
            shown = printable(raw_name.decode("latin-1"))
            raise self.ambiguous(f"has an entry called '{shown}', which is no UTF-8") from None

    def _fields(self, extra: bytes, name: str) -> dict[int, bytes]:
        """The extra fields of an entry by their number."""
        fields: dict[int, bytes] = {}
        at = 0
        while len(extra) - at >= _FIELD_HEADER:
            number, length = struct.unpack_from("<HH", extra, at)
            at += _FIELD_HEADER + length
            if number in fields and number in {_ZIP64_FIELD, _NAME_FIELD}:
                raise self.ambiguous(f"has two fields {number:#06x} of '{printable(name)}'")
            fields[number] = extra[at - length : at]
        if at > len(extra) or extra[at:].strip(b"\0"):
            raise self.ambiguous(f"has a field of '{printable(name)}' that is cut off")
        return fields

    def _widened(
        self, extra: bytes, raw_name: bytes, name: str, *narrow: int
    ) -> tuple[list[int], list[int]]:
        """Numbers of 32 bits, of which the extra fields may have some in 64; and what is left."""
        fields = self._fields(extra, name)
        said = fields.get(_NAME_FIELD, bytes(_NAME_FIELD_HEADER) + raw_name)[_NAME_FIELD_HEADER:]
        if said != raw_name:
            other = printable(said.decode("latin-1"))
            raise self.ambiguous(f"calls the entry '{printable(name)}' also '{other}'")
        field = fields.get(_ZIP64_FIELD, b"")
        wide = [number for (number,) in struct.iter_unpack("<Q", field[: len(field) // 8 * 8])]
        return [wide.pop(0) if wide and n == _ELSEWHERE32 else n for n in narrow], wide

    def _require_plain_name(self, entry: Entry) -> None:
        name, shown = entry.name, printable(entry.name)
        parts = name.removesuffix("/").split("/")
        if name.startswith("/") or "\\" in name or ".." in parts or ":" in name[:2]:
            raise self.ambiguous(f"has an entry called '{shown}', which leads out of it")
        if "\0" in name or "" in parts or "." in parts:
            raise self.ambiguous(f"has an entry called '{shown}', of which programs make another")
        if name.endswith("/") and entry.size:
            raise self.ambiguous(f"has content in '{shown}', which is a folder")

    # The entries themselves.

    def _require_local_header(self, entry: Entry) -> int:
        """Check an entry's own header against the directory; return where its data begins."""
        shown = printable(entry.name)
        if entry.header + LOCAL_HEADER.size > self._end:
            raise self._damaged(entry, "lies outside the file")
        header = self._file.read(entry.header, LOCAL_HEADER.size)
        start, _, flags, method, _, _, crc32, stored, size, name_size, extra_size = (
            LOCAL_HEADER.unpack(header)
        )
        if start != ZIP_START:
            raise self._damaged(entry, "is damaged, its header is missing")
        data: int = entry.header + LOCAL_HEADER.size + name_size + extra_size
        if data + entry.stored > self._end:
            raise self._damaged(entry, "reaches beyond the file")
        rest = self._file.read(entry.header + LOCAL_HEADER.size, name_size + extra_size)
        if rest[:name_size] != entry.raw_name:
            raise self.ambiguous(f"calls the entry '{shown}' differently in two places")
        free = _LEVEL | (UTF8_NAME if entry.raw_name.isascii() else 0)
        if (flags ^ entry.flags) & ~free or method != entry.method:
            raise self.ambiguous(f"says of '{shown}' in two places that it is stored otherwise")
        if entry.method == STORED and entry.stored != entry.size:
            raise self.ambiguous(f"has two sizes of '{shown}', which is not compressed")
        extra = rest[name_size:]
        (size, stored), wide = self._widened(extra, entry.raw_name, entry.name, size, stored)
        # What follows the data needs not be in front of it; and torch writes its zip64 field
        # whether or not the numbers lead there.
        unknown = {0} if flags & SIZES_FOLLOW else set()
        if (
            crc32 not in unknown | {entry.crc32}
            or size not in unknown | {entry.size}
            or stored not in unknown | {entry.stored}
            or not {0, entry.size, entry.stored, entry.header}.issuperset(wide)
        ):
            raise self.ambiguous(f"has another size or checksum of '{shown}' at byte {data}")
        return data

    def _require_descriptor(self, entry: Entry) -> int:
        """Check what follows an entry's data, if anything is to; return where the entry ends."""
        at = self._data[entry.header] + entry.stored
        if not entry.flags & SIZES_FOLLOW:
            return at
        found = self._file.read(at, min(24, self._end - at))
        signature = _DESCRIPTOR_START if found.startswith(_DESCRIPTOR_START) else b""
        numbers = (entry.crc32, entry.stored, entry.size)
        for form in _DESCRIPTORS[max(numbers) > _ELSEWHERE32 :]:
            descriptor = signature + struct.pack(form, *numbers)
            if found.startswith(descriptor):
                return at + len(descriptor)
        raise self.ambiguous(
            f"has another size or checksum of '{printable(entry.name)}' at byte {at}, behind it"
        )

    def _out_of_place(self, start: int, expected: int) -> UnsafeInputError:
        if start < expected:
            return self.ambiguous(f"has entries that share the bytes from byte {start}")
        if expected == 0:
            return self.ambiguous("has something else before its first entry")
        return self.ambiguous(
            f"has {start - expected} bytes at byte {expected} that belong to no entry"
        )

    def _damaged(self, entry: Entry, what: str) -> InputError:
        return damaged(f"{self._file.name}, {printable(entry.name)}", what, "the file")
