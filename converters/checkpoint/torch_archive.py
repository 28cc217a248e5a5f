"""The zip under a file of torch: how it is written, and what is checked before torch opens one.

The layout is that of torch's ``caffe2/serialize/inline_container.cc``: stored, aligned, and the
same bytes every time. torch has a reader of archives of its own, which runs what it finds. So what
two readers could take for different programs does not get there, nor what grows in memory without
bound.
"""

from __future__ import annotations

import struct
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

from converters.checkpoint.source_file import Closing, SourceFile
from converters.checkpoint.zip_directory import LOCAL_HEADER, STORED, ZipDirectory
from converters.errors import InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

ALIGNMENT = 64
"""Where an entry's data begins, in bytes: a mapped tensor can be used in place."""

_MODE = 0o644
_EXTRA_HEADER = struct.Struct("<HH")  # identifier, length
_PADDING_ID = 0x4246  # torch's, which readers skip
_ZIP64_EXTRA = 20  # bytes of the extra field with the size of a large entry
_ZIP64_FROM = 1 << 30  # in bytes; the format itself asks for it from 4 GiB, zipfile from 2 GiB

MAX_INFLATED = 1 << 24
"""Bytes of an archive's compressed entries together; the code of RegNetY-128GF, traced, with its
debug records has some hundred thousand."""

_CODE = "code/"
"""What torch.jit.save compresses; weights and everything in a `.pt2` lie as they are."""


class TorchArchive(Closing):
    """Writes a zip front to back; a context manager that completes it.

    Args:
        place: A path, created or replaced; or a file open for writing, which is closed in the end.
        root: The folder inside the zip that holds every entry.

    Raises:
        OSError: From any method, if the file cannot be written.
    """

    def __init__(self, place: Path | BinaryIO, root: str) -> None:
        self._root = root
        self._file = place.open("wb") if isinstance(place, Path) else place
        self._zip = ZipFile(self._file, "w")

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Write an entry.

        Args:
            name: Below the root.
            size: Of all chunks together, in bytes.
            chunks: Each is gone from memory when the next one comes.
        """
        info = ZipInfo(f"{self._root}/{name}")  # dated 1980-01-01, whatever the clock says
        info.external_attr = _MODE << 16
        zip64 = size >= _ZIP64_FROM
        header = LOCAL_HEADER.size + len(info.filename.encode()) + _EXTRA_HEADER.size
        padding = -(self._file.tell() + header + zip64 * _ZIP64_EXTRA) % ALIGNMENT
        info.extra = _EXTRA_HEADER.pack(_PADDING_ID, padding) + bytes(padding)
        with self._zip.open(info, "w", force_zip64=zip64) as entry:
            for chunk in chunks:
                entry.write(chunk)

    def close(self) -> None:
        """Complete the zip and close its file."""
        with self._file:
            self._zip.close()


@contextmanager
def loadable(path: Path) -> Iterator[ZipDirectory]:
    """Check a TorchScript, `.pt2` or AOTInductor file before torch opens it, inside the block.

    Raises:
        RuntimeError: It is damaged or no zip, as torch says it.
        UnsafeInputError: Programs may find other entries in it, or it inflates.
        StorageError: It cannot be read.
    """
    with SourceFile(path) as file:
        try:
            directory = ZipDirectory(file)
            directory.require_one_reading()
            directory.require_one_folder()
        except InputError as error:
            raise RuntimeError(str(error)) from error
        inflated = 0
        for entry in directory.entries:
            if entry.method == STORED:
                continue
            inflated += entry.size
            if not entry.inside.startswith(_CODE) or inflated > MAX_INFLATED:
                raise UnsafeInputError(
                    f"{file.name}, {printable(entry.name)}: is compressed, {entry.stored} bytes to "
                    f"{entry.size}, as torch writes none; nothing was loaded, get the file from a "
                    "source you trust."
                )
        yield directory
