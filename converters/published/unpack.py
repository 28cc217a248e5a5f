"""A zip around a published file, as pytorchcv's releases have it."""

from __future__ import annotations

import hashlib
import zlib
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZIP_STORED, BadZipFile, ZipFile

from converters.errors import InputError, in_words
from regnet.files.system import flush

if TYPE_CHECKING:
    from pathlib import Path
    from zipfile import ZipInfo

_DAMAGED = (BadZipFile, EOFError, NotImplementedError, RuntimeError, ValueError, zlib.error)
"""What zipfile raises of zips that are none, encrypted, or packed in ways that it lacks."""


def unpack(path: Path, name: str, most: int, sha1: str | None) -> None:
    """Put in the place of a zip the one file that is in it.

    Args:
        path: The zip; still the zip if it is refused.
        name: What the file in it is called.
        most: Bytes that it may have.
        sha1: Its digest, in hexadecimal; None if that is not known.

    Raises:
        InputError: It is no zip of that file alone, or the file has other bytes.
        OSError: It cannot be written.
    """
    unpacked = path.with_name(f"{path.name}.unpacked")
    digest = hashlib.sha1(usedforsecurity=False)
    try:
        with ZipFile(path) as archive, unpacked.open("wb") as file:
            entry = _only(archive.infolist(), name, most)
            with archive.open(entry) as packed:
                for chunk in iter(lambda: packed.read(1 << 20), b""):
                    digest.update(chunk)
                    file.write(chunk)
            file.flush()
            flush(file.fileno())
    except _DAMAGED as error:
        unpacked.unlink(missing_ok=True)
        raise InputError(
            f"What was to be a zip of {name} is none ({in_words(error)}); it was deleted, so run "
            "the command again."
        ) from error
    if sha1 and digest.hexdigest() != sha1:
        unpacked.unlink()
        raise InputError(
            f"{name} has the sha1 {digest.hexdigest()} where {sha1} was published; it was deleted, "
            "so run the command again, and distrust the network if that repeats."
        )
    unpacked.replace(path)


def _only(entries: list[ZipInfo], name: str, most: int) -> ZipInfo:
    """The one entry of a zip.

    Raises:
        ValueError: There are others, or it is not what is asked for, with the reason.
    """
    if [entry.filename for entry in entries] != [name]:
        raise ValueError("it holds something else, or more")
    (entry,) = entries
    if entry.compress_type not in {ZIP_STORED, ZIP_DEFLATED}:
        raise ValueError("it is packed in a way of its own")
    if entry.file_size > most:
        raise ValueError(f"it unpacks to {entry.file_size} bytes, which no such network has")
    return entry
