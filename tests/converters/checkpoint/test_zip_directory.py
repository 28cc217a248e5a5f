"""Archives in which programs would find different entries are refused, all others are read."""

from __future__ import annotations

import io
import os
import pickle
import shutil
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from torch.utils.serialization import config

from converters.checkpoint import open_checkpoint
from converters.checkpoint.security import inspect_security
from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_directory import ZipDirectory
from converters.errors import UnsafeInputError
from tests.converters.checkpoint.archives import (
    Made,
    archive,
    archive64,
    end_record,
    laid_out,
    two_directories,
)
from tests.converters.checkpoint.files import refusal, saved, tensor_pickle

if TYPE_CHECKING:
    from collections.abc import Callable

PICKLE = tensor_pickle()
FOLLOW = 0x0008
WIDE = 0xFFFFFFFF


def files(*more: Made) -> list[Made]:
    """The entries of a checkpoint with one tensor."""
    return [
        Made(b"a/data.pkl", PICKLE),
        Made(b"a/data/0", struct.pack("<2f", 1, 2)),
        Made(b"a/version", b"3\n"),
        *more,
    ]


def sizes(entry: Made, form: str = "<III") -> bytes:
    return struct.pack(form, zlib.crc32(entry.data), len(entry.data), len(entry.data))


def followed(signature: bytes = b"PK\7\10", form: str = "<III", **local: int) -> Made:
    """An entry whose sizes come behind it, as torch writes them."""
    entry = Made(b"a/x", b"content", both={"flags": FOLLOW})
    entry.local = {"crc": 0, "stored": 0, "size": 0} | local
    entry.behind = signature + sizes(entry, form)
    return entry


def field(number: int, content: bytes) -> bytes:
    return struct.pack("<HH", number, len(content)) + content


def name_field(name: bytes) -> bytes:
    return field(0x7075, b"\1" + struct.pack("<I", zlib.crc32(b"a/x")) + name)


def entries_of(path: Path) -> list[tuple[str, bytes]]:
    with SourceFile(path) as file:
        directory = ZipDirectory(file)
        directory.require_one_reading()
        return [(e.name, directory.content(e, 1 << 30)) for e in directory.entries]


PLAIN: dict[str, bytes] = {
    "as zipfile writes it": archive(files()),
    "as torch writes it": archive64(files(followed())),
    "sizes of 64 bits behind": archive64(files(followed(form="<IQQ"))),
    "no signature behind": archive(files(followed(b""))),
    "sizes behind and in front": archive(
        files(followed(crc=zlib.crc32(b"content"), stored=7, size=7))
    ),
    "zip64 numbers that are needed": archive64(
        files(
            Made(
                b"a/x",
                b"xy",
                local={"stored": WIDE, "size": WIDE, "extra": field(1, struct.pack("<QQ", 2, 2))},
                central={"stored": WIDE, "size": WIDE, "extra": field(1, struct.pack("<QQ", 2, 2))},
            )
        ),
        end={"here": 0xFFFF, "count": 0xFFFF, "size": WIDE, "start": WIDE},
    ),
    "a folder": archive([Made(b"a/"), *files()]),
    "a comment": archive(files(), comment=b"of no use"),
    "fields of other programs": archive(
        files(Made(b"a/x", both={"extra": field(0x5455, b"\3" + bytes(8)) + field(0x7875, b"")}))
    ),
    "the name in UTF-8 once more": archive(files(Made(b"a/x", both={"extra": name_field(b"a/x")}))),
    "another level of compression": archive(
        files(Made(b"a/x", b"\3\0", both={"method": 8, "size": 0, "crc": 0}, local={"flags": 2}))
    ),
}


@pytest.mark.parametrize("content", PLAIN.values(), ids=PLAIN)
def test_what_is_plain_is_read_as_zipfile_and_torch_read_it(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.pyth"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as theirs:
        expected = [(name, theirs.read(name)) for name in theirs.namelist()]
    assert entries_of(path) == expected
    reader = torch._C.PyTorchFileReader(str(path))
    assert [f"a/{name}" for name in reader.get_all_records()] == [name for name, _ in expected]
    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        assert checkpoint.array(checkpoint.tree["t"]).tolist() == [1, 2]


HEAD, TAIL = laid_out(files())
TWINS = (files(Made(b"a/x", b"one")), files(Made(b"a/x", b"two")))


def overlapping() -> bytes:
    """An entry whose data are the header and the data of another one."""
    inner = Made(b"a/x", b"inner")
    outer = Made(b"a/y", inner.header() + inner.data)
    body, directory = laid_out(files(outer))
    return (
        body
        + directory
        + (record := inner.record(len(body) - len(outer.data)))
        + end_record(directory + record, len(body), 5)
    )


AMBIGUOUS: dict[str, tuple[bytes, str]] = {
    # The end.
    "two directories": (two_directories(*TWINS), "has a zip64 locator at byte"),
    "zip64 that says otherwise": (
        archive64(files(), record={"count": 1, "here": 1}),
        "has two end records, at bytes",
    ),
    "zip64 of another directory": (
        archive64(files(), record={"start": 1}),
        "has two end records, at bytes",
    ),
    "zip64 that is elsewhere": (archive64(files(), leads={"record": 0}), "leads to byte 0"),
    "zip64 with more in it": (archive64(files(), record={"length": 50}), "has no zip64 record at"),
    "zip64 that is none": (
        archive64(files()).replace(b"PK\6\6", b"PK\6\5"),
        "has no zip64 record at",
    ),
    "a gap before the locator": (archive64(files(), between=b"x"), "leads to byte"),
    "several disks": (archive64(files(), leads={"disks": 2}), "has a zip64 locator"),
    "numbers that are missing": (archive(files(), count=0xFFFF), "has no zip64 record to which"),
    "another disk": (archive(files(), disk=1), "is one part of several"),
    "fewer on this disk": (archive(files(), here=1), "is one part of several"),
    "bytes behind": (archive(files()) + b"\n", "goes on for 1 bytes behind its end record"),
    "an end record in the comment": (
        archive(files(), comment=b"...." + end_record(TAIL, len(HEAD), 3, comment=b".")),
        "does not end at byte",
    ),
    "the beginning of one in the comment": (
        archive(files(), comment=b"PK\5\6...."),
        "has two end records, the last of which is cut off",
    ),
    "two archives": (archive(files()) + archive(files()), "does not end at byte"),
    "something before it": (b"PK\3\4" + archive(files()), "does not end at byte"),
    "a gap behind the directory": (
        HEAD + TAIL + b"x" + end_record(TAIL, len(HEAD), 3),
        "does not end at byte",
    ),
    "fewer entries than stated": (archive(files(), count=4, here=4), "not one of 4 entries"),
    "more entries than stated": (archive(files(), count=1, here=1), "not one of 1 entries"),
    # Names.
    "one name twice": (archive(files(Made(b"a/data.pkl"))), "has two entries called 'a/data.pkl'"),
    "another case": (archive(files(Made(b"a/DATA.pkl"))), "has two entries called 'a/DATA.pkl'"),
    "another case of other letters": (
        archive(
            files(
                Made("a/ä".encode(), both={"flags": 0x800}),
                Made("a/Ä".encode(), both={"flags": 0x800}),
            )
        ),
        "has two entries called",
    ),
    "one name in two encodings": (
        archive(files(Made("a/ä".encode(), both={"flags": 0x800}), Made("a/ä".encode()))),
        "has two entries called",
    ),
    "another case in two encodings": (
        archive(files(Made("a/äx".encode(), both={"flags": 0x800}), Made("a/äX".encode()))),
        "has two entries called",
    ),
    "one letter spelled in two ways": (
        archive(
            files(
                Made("a/\xe4".encode(), both={"flags": 0x800}),
                Made("a/a\u0308".encode(), both={"flags": 0x800}),
            )
        ),
        "has two entries called",
    ),
    "a file and a folder": (archive(files(Made(b"a/x"), Made(b"a/x/"))), "has two entries called"),
    "no UTF-8": (archive(files(Made(b"a/\xff", both={"flags": 0x800}))), "which is no UTF-8"),
    "a zero in a name": (archive(files(Made(b"a/x\0y"))), "of which programs make another"),
    "an empty folder name": (archive(files(Made(b"a//x"))), "of which programs make another"),
    "a folder that is this one": (archive(files(Made(b"a/./x"))), "programs make another"),
    "a folder with content": (archive(files(Made(b"a/x/", b"y"))), "which is a folder"),
    "content that is marked as a folder": (
        archive(files(Made(b"a/x", b"y", central={"attributes": 0x10}))),
        "marks 'a/x' as a folder",
    ),
    "another name in a field": (
        archive(files(Made(b"a/x", central={"extra": name_field(b"a/y")}))),
        "calls the entry 'a/x' also 'a/y'",
    ),
    "another name in its own field": (
        archive(files(Made(b"a/x", local={"extra": name_field(b"a/y")}))),
        "calls the entry 'a/x' also 'a/y'",
    ),
    "another name in its own header": (
        archive(files(Made(b"a/x", local={"name": b"a/y"}))),
        "calls the entry 'a/x' differently",
    ),
    # Sizes.
    "another method": (archive(files(Made(b"a/x", b"y", local={"method": 8}))), "stored otherwise"),
    "encrypted for one": (archive(files(Made(b"a/x", local={"flags": 1}))), "stored otherwise"),
    "sizes behind for one": (
        archive(files(Made(b"a/x", local={"flags": FOLLOW}))),
        "stored otherwise",
    ),
    "two sizes": (archive(files(Made(b"a/x", b"xyz", both={"size": 2}))), "has two sizes of 'a/x'"),
    "another size": (
        archive(files(Made(b"a/x", b"xyz", local={"size": 2, "stored": 2}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another size in the archive": (
        archive(files(Made(b"a/x", b"xyz", local={"stored": 2}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another size of the content": (
        archive(files(Made(b"a/x", b"xyz", local={"size": 2}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another size in a zip64 field to which nothing leads": (
        archive(files(Made(b"a/x", b"xyz", local={"extra": field(1, struct.pack("<Q", 2))}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another checksum": (
        archive(files(Made(b"a/x", b"xyz", local={"crc": 0}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another size in zip64": (
        archive(
            files(
                Made(
                    b"a/x",
                    b"xyz",
                    local={"stored": WIDE, "size": WIDE}
                    | {"extra": field(1, struct.pack("<QQ", 2, 2))},
                )
            )
        ),
        "has another size or checksum of 'a/x' at byte",
    ),
    "another size behind": (
        archive(files(followed(b"PK\7\10" + struct.pack("<III", 1, 2, 3)))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "nothing behind": (
        archive(files(Made(b"a/x", b"y", both={"flags": FOLLOW}))),
        "has another size or checksum of 'a/x' at byte",
    ),
    "zip64 numbers that are not needed": (
        archive(files(Made(b"a/x", central={"extra": field(1, bytes(8))}))),
        "does not say plainly how large 'a/x' is",
    ),
    "zip64 numbers that are missing": (
        archive(files(Made(b"a/x", central={"size": WIDE, "stored": WIDE}))),
        "does not say plainly how large 'a/x' is",
    ),
    "zip64 numbers twice": (
        archive(
            files(
                Made(
                    b"a/x",
                    central={"size": WIDE, "stored": WIDE, "extra": 2 * field(1, bytes(16))},
                )
            )
        ),
        "has two fields 0x0001 of 'a/x'",
    ),
    "a field that is cut off": (
        archive(files(Made(b"a/x", both={"extra": b"\1\0\x20\0abcd"}))),
        "has a field of 'a/x' that is cut off",
    ),
    "bytes that are no field": (
        archive(files(Made(b"a/x", both={"extra": b"abc"}))),
        "has a field of 'a/x' that is cut off",
    ),
    "an entry on another disk": (
        archive(files(Made(b"a/x", central={"disk": 1}))),
        "does not say plainly how large 'a/x' is or where",
    ),
    # Places.
    "an entry that is not listed": (
        archive(files(Made(b"a/y", b"hidden", listed=False), Made(b"a/x"))),
        "has 39 bytes at byte",
    ),
    "the last is not listed": (
        archive(files(Made(b"a/y", b"hidden", listed=False))),
        "has 39 bytes at byte",
    ),
    "the first is not listed": (
        archive([Made(b"a/data.pkl", b"hidden", listed=False), *files()]),
        "has something else before its first entry",
    ),
    "bytes between entries": (archive(files(Made(b"a/x", behind=b"\0"))), "has 1 bytes at byte"),
    "entries in entries": (overlapping(), "has entries that share the bytes from byte"),
}


@pytest.mark.parametrize(("content", "expected"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_programs_may_read_differently_is_unsafe(
    content: bytes, expected: str, tmp_path: Path
) -> None:
    message = refusal(content, tmp_path, UnsafeInputError)
    assert expected in message
    assert "programs may disagree on its content" in message
    with pytest.raises(UnsafeInputError):
        inspect_security(tmp_path / "model.pyth").require_harmless()


@pytest.mark.parametrize("size", [1, 21, 22, 40])
def test_an_end_that_is_cut_off_is_called_that(size: int, tmp_path: Path) -> None:
    whole = archive(files(), comment=b"x" * 18)
    assert "is truncated or damaged" in refusal(whole[:-size], tmp_path)


def test_torch_and_zipfile_do_read_two_directories_and_twins_differently(tmp_path: Path) -> None:
    path = tmp_path / "model.pyth"
    path.write_bytes(two_directories(*TWINS))
    reader = torch._C.PyTorchFileReader(str(path))
    assert reader.get_record("x") == b"one"
    if sys.version_info < (3, 12):  # later ones look where the locator leads
        with zipfile.ZipFile(path) as theirs:
            assert theirs.read("a/x") == b"two"
    different = []
    for twins in (b"xX", b"Xx"):
        path.write_bytes(archive(files(*(Made(b"a/%c" % name, b"%c" % name) for name in twins))))
        different.append(torch._C.PyTorchFileReader(str(path)).get_record("x") == b"X")
    assert any(different)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("checksums", [True, False])
@pytest.mark.parametrize("alignment", [64, 4096])
def test_whatever_torch_saves_is_read(
    protocol: int, checksums: bool, alignment: int, tmp_path: Path
) -> None:
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(checksums)
    try:
        with config.patch("save.storage_alignment", alignment):
            content = saved({"w": torch.arange(6.0), "none": torch.ones(0)}, "zip", protocol)
    finally:
        torch.serialization.set_crc32_options(before)
    (tmp_path / "model.pyth").write_bytes(content)
    with open_checkpoint(tmp_path / "model.pyth") as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        assert checkpoint.array(checkpoint.tree["w"]).tolist() == [0, 1, 2, 3, 4, 5]


def test_entries_and_places_beyond_four_gigabytes_are_read(tmp_path: Path) -> None:
    """The writer is torch's own, with holes in the file for what would take room."""
    path = tmp_path / "model.pyth"
    writer = torch._C.PyTorchFileWriter(str(path))
    writer.write_record("data.pkl", PICKLE, len(PICKLE))
    writer.write_record_metadata("data/1", (1 << 32) + 20)
    writer.write_record("data/0", struct.pack("<2f", 1, 2), 8)
    writer.write_record_metadata("data/2", 70)
    writer.write_end_of_file()
    if path.stat().st_blocks > 1 << 12:
        pytest.skip("the file system knows no holes")
    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        assert checkpoint.array(checkpoint.tree["t"]).tolist() == [1, 2]


class Pipe(io.RawIOBase):
    """A file that cannot be gone back in, so that zipfile writes sizes behind the data."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        self.content += bytes(data)  # type: ignore[call-overload]
        return len(bytes(data))  # type: ignore[call-overload]


def by_zipfile(folder: Path, file: str | io.RawIOBase, **options: bool) -> None:
    with zipfile.ZipFile(file, "w") as written:  # type: ignore[arg-type]
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                with written.open(zipfile.ZipInfo(str(path)), "w", **options) as entry:
                    entry.write(path.read_bytes())
    if isinstance(file, str):
        with zipfile.ZipFile(file, "a") as written:
            written.writestr(f"{folder}/more", b"appended")


def through_a_pipe(folder: Path) -> None:
    by_zipfile(folder, pipe := Pipe())
    Path("new.zip").write_bytes(pipe.content)


def by_program(*command: str) -> Callable[[Path], None]:
    def pack(folder: Path) -> None:
        if shutil.which(command[0]) is None:
            pytest.skip(f"no {command[0]} here")
        subprocess.run([*command, str(folder)], check=True, capture_output=True)

    return pack


PACKERS: dict[str, Callable[[Path], None]] = {
    "zipfile": lambda folder: by_zipfile(folder, "new.zip"),
    "zipfile, zip64": lambda folder: by_zipfile(folder, "new.zip", force_zip64=True),
    "zipfile, through a pipe": through_a_pipe,
    "zip -0": by_program("zip", "-q", "-0", "-r", "new.zip"),
    "zip -0 -X": by_program("zip", "-q", "-0", "-X", "-r", "new.zip"),
    "zip -0, sizes behind": by_program("zip", "-q", "-0", "-fd", "-r", "new.zip"),
    "zip -0, zip64": by_program("zip", "-q", "-0", "-fz", "-r", "new.zip"),
}


@pytest.mark.parametrize("packer", PACKERS)
def test_an_archive_that_was_packed_anew_is_read(
    packer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile(io.BytesIO(saved({"w": torch.ones(2)}))) as archive_of_torch:
        archive_of_torch.extractall()
    (folder,) = Path().iterdir()
    for path in folder.rglob("*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))  # torch says 1980, zip nothing before
    PACKERS[packer](folder)
    assert torch.load("new.zip", weights_only=True)["w"].tolist() == [1, 1]
    with open_checkpoint(Path("new.zip")) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        assert checkpoint.array(checkpoint.tree["w"]).tolist() == [1, 1]
