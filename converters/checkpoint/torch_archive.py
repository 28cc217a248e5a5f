"""The zip under a file of torch: stored, aligned, and the same bytes every time.

The layout is that of torch's ``caffe2/serialize/inline_container.cc``.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

from converters.checkpoint.zip_directory import LOCAL_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO, Self

ALIGNMENT = 64
"""Where an entry's data begins, in bytes: a mapped tensor can be used in place."""

_MODE = 0o644
_EXTRA_HEADER = struct.Struct("<HH")  # identifier, length
_PADDING_ID = 0x4246  # torch's, which readers skip
_ZIP64_EXTRA = 20  # bytes of the extra field with the size of a large entry
_ZIP64_FROM = 1 << 30  # in bytes; the format itself asks for it from 4 GiB, zipfile from 2 GiB


class TorchArchive:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._file:
            self._zip.close()
