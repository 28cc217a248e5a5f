"""A zip archive torch would not have written is refused."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from converters.errors import ConversionError, InputError, UnsafeInputError
from tests.converters.checkpoint.files import in_zip, refusal, tensor_pickle, zip_of

if TYPE_CHECKING:
    from pathlib import Path


def encrypted(content: bytes) -> bytes:
    """Set the flag of encryption on every entry, in both of its headers."""
    headers = ((b"PK\x01\x02\x14\x03\x14\x00", b"\x00"), (b"PK\x03\x04\x14\x00", b"\x00"))
    for start, flags in headers:
        assert start + flags in content
        content = content.replace(start + flags, start + b"\x01")
    return content


GOOD = tensor_pickle()
ZIPS: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "compressed": (
        zip_of({"archive/data.pkl": GOOD}, zipfile.ZIP_DEFLATED),
        InputError,
        "archive/data.pkl: is compressed",
    ),
    "encrypted": (encrypted(in_zip(GOOD)), InputError, "is encrypted"),
    "big-endian": (in_zip(GOOD, byteorder=b"big"), InputError, "archive/byteorder: is 'big'"),
    # torch.load takes it for text before anything else, and fails.
    "no text as its number": (
        in_zip(GOOD, **{".data/serialization_id": b"0" * 36 + b"\xff000"}),
        InputError,
        "which is no text that torch takes",
    ),
    "no pickle": (zip_of({"archive/data/0": b""}), InputError, "it has no data.pkl"),
    "two folders": (
        zip_of({"a/data.pkl": GOOD, "b/data.pkl": GOOD}),
        UnsafeInputError,
        "has 2 folders, such as 'b'",
    ),
    # torch.load takes the last of these, whatever the letters' case.
    "two pickles": (
        in_zip(GOOD, **{"DATA.PKL": GOOD}),
        UnsafeInputError,
        "has two entries called 'archive/DATA.PKL'",
    ),
    "outside": (in_zip(GOOD, **{"../../x": b""}), UnsafeInputError, "leads out of it"),
    "absolute": (zip_of({"/data.pkl": GOOD}), UnsafeInputError, "leads out of it"),
    "two archives": (in_zip(GOOD) + in_zip(GOOD), UnsafeInputError, "does not end at byte"),
    "other local name": (
        in_zip(GOOD).replace(b"archive/data/0", b"archive/data/1", 1),
        UnsafeInputError,
        "calls the entry 'archive/data/0' differently in two places",
    ),
    "no local header": (
        in_zip(GOOD).replace(b"PK\x03\x04", b"PK\x05\x04").replace(b"PK\x05\x04", b"PK\x03\x04", 1),
        InputError,
        "its header is missing",
    ),
}


@pytest.mark.parametrize(("content", "kind", "expected"), ZIPS.values(), ids=ZIPS)
def test_a_zip_torch_would_not_write_is_refused(
    content: bytes, kind: type[ConversionError], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(content, tmp_path, kind)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_entries_of_one_name_are_unsafe(tmp_path: Path) -> None:
    buffer = io.BytesIO(in_zip(GOOD))
    with zipfile.ZipFile(buffer, "a") as archive:
        archive.writestr("archive/data.pkl", GOOD)
    message = refusal(buffer.getvalue(), tmp_path, UnsafeInputError)
    assert "has two entries called 'archive/data.pkl'" in message


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_a_package_of_torch_is_called_that(tmp_path: Path) -> None:
    path = tmp_path / "program.pt2"
    with torch.package.PackageExporter(path) as exporter:
        exporter.save_pickle("weights", "data.pkl", {"a": 1})
    assert "torch.package" in refusal(path.read_bytes(), tmp_path, UnsafeInputError)
