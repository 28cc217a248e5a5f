"""Zip archives written field by field, so that each field can say something else."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Made:
    """An entry; what its two headers say can be set apart.

    Attributes:
        name: As both headers have it.
        data: Its bytes in the archive.
        local: Fields of its own header that differ: ``name``, ``flags``, ``method``, ``crc``,
            ``stored``, ``size``, ``extra``.
        central: Likewise in the directory, which has ``offset``, ``disk`` and
            ``attributes`` too.
        both: Likewise in both.
        behind: What follows the data.
        listed: Whether the directory has it.
    """

    name: bytes
    data: bytes = b""
    local: dict[str, Any] = field(default_factory=dict)
    central: dict[str, Any] = field(default_factory=dict)
    both: dict[str, Any] = field(default_factory=dict)
    behind: bytes = b""
    listed: bool = True

    def fields(self, where: str, **more: Any) -> dict[str, Any]:
        plain: dict[str, Any] = {
            "name": self.name,
            "flags": 0,
            "method": 0,
            "crc": zlib.crc32(self.data),
            "stored": len(self.data),
            "size": len(self.data),
            "extra": b"",
        }
        return plain | more | self.both | (self.local if where == "local" else self.central)

    def header(self) -> bytes:
        f = self.fields("local")
        return (
            struct.pack(
                "<4s5H3I2H",
                *(b"PK\3\4", 20, f["flags"], f["method"], 0, 33),
                *(f["crc"], f["stored"], f["size"], len(f["name"]), len(f["extra"])),
            )
            + f["name"]
            + f["extra"]
        )

    def record(self, offset: int) -> bytes:
        f = self.fields("central", offset=offset, disk=0, attributes=0)
        return (
            struct.pack(
                "<4s6H3I5H2I",
                *(b"PK\1\2", 20, 20, f["flags"], f["method"], 0, 33),
                *(f["crc"], f["stored"], f["size"], len(f["name"]), len(f["extra"])),
                *(0, f["disk"], 0, f["attributes"], f["offset"]),
            )
            + f["name"]
            + f["extra"]
        )


def laid_out(entries: list[Made], start: int = 0) -> tuple[bytes, bytes]:
    """The entries one behind the other, and their directory."""
    body, directory = b"", b""
    for entry in entries:
        if entry.listed:
            directory += entry.record(start + len(body))
        body += entry.header() + entry.data + entry.behind
    return body, directory


def end_record(directory: bytes, start: int, count: int, /, **fields: Any) -> bytes:
    """The end record; ``fields`` are those that differ."""
    f = {"disk": 0, "first_disk": 0, "here": count, "count": count, "comment": b""}
    f |= {"size": len(directory), "start": start, "comment_size": None} | fields
    comment_size = len(f["comment"]) if f["comment_size"] is None else f["comment_size"]
    numbers = (f["disk"], f["first_disk"], f["here"], f["count"], f["size"], f["start"])
    return struct.pack("<4s4H2IH", b"PK\5\6", *numbers, comment_size) + f["comment"]


def zip64_record(directory: bytes, start: int, count: int, /, **fields: Any) -> bytes:
    """The end record of zip64."""
    f = {"length": 44, "disk": 0, "first_disk": 0, "here": count, "count": count}
    f |= {"size": len(directory), "start": start} | fields
    return struct.pack(
        "<4sQHHIIQQQQ",
        *(b"PK\6\6", f["length"], 45, 45, f["disk"], f["first_disk"]),
        *(f["here"], f["count"], f["size"], f["start"]),
    )


def locator(record: int, disk: int = 0, disks: int = 1) -> bytes:
    return struct.pack("<4sIQI", b"PK\6\7", disk, record, disks)


def archive(entries: list[Made], **end: Any) -> bytes:
    """A whole archive, whose end record may differ in ``end``."""
    body, directory = laid_out(entries)
    count = sum(entry.listed for entry in entries)
    return body + directory + end_record(directory, len(body), count, **end)


def archive64(
    entries: list[Made],
    end: dict[str, Any] | None = None,
    record: dict[str, Any] | None = None,
    leads: dict[str, Any] | None = None,
    between: bytes = b"",
) -> bytes:
    """The same with zip64 records, as torch writes them."""
    body, directory = laid_out(entries)
    count, at = len(entries), len(body) + len(directory)
    return (
        body
        + directory
        + zip64_record(directory, len(body), count, **(record or {}))
        + between
        + locator(**({"record": at} | (leads or {})))
        + end_record(directory, len(body), count, **(end or {}))
    )


def two_directories(for_torch: list[Made], for_zipfile: list[Made]) -> bytes:
    """Two zip64 records: the locator leads to one, the other lies in front of it."""
    first, first_directory = laid_out(for_torch)
    second, second_directory = laid_out(for_zipfile, len(first))
    content = first + second
    start = len(content)
    content += first_directory
    record = len(content)
    content += zip64_record(first_directory, start, len(for_torch))
    start = len(content)
    content += second_directory + zip64_record(second_directory, start, len(for_zipfile))
    missing = {"here": 0xFFFF, "count": 0xFFFF, "size": 0xFFFFFFFF, "start": 0xFFFFFFFF}
    return content + locator(record) + end_record(b"", 0, 0, **missing)
