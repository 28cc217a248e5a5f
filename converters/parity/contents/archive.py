"""The zip under TorchScript and `.pt2`: entries that lie as they are, and are mapped."""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZIP_STORED, ZipFile

from converters.checkpoint import Storage
from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.parity.contents.held import mapped, part

if TYPE_CHECKING:
    from pathlib import Path
    from zipfile import ZipInfo

    from converters.checkpoint import StoredTensor, Tree

_LOCAL_HEADER = 30  # bytes before the entry's name


class Archive:
    """Finds the entries of a zip of torch, without executing anything.

    Args:
        path: The file.

    Attributes:
        names: Of all entries, below the folder that holds them.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If two entries have one name; from any method, if an entry is missing or
            compressed.
        zipfile.BadZipFile: If it is no zip.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with ZipFile(path) as archive:
            entries = archive.infolist()
        self._entries = {entry.filename.partition("/")[2]: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ValueError("two entries of the archive have one name")
        self.names = tuple(self._entries)
        self._file = mapped(path)

    def unpickle(self, name: str) -> Tree:
        """What ``NAME.pkl`` says; its tensors lie in the folder ``NAME``."""
        data = self.bytes_of(self._find(f"{name}.pkl"))
        source = PickleSource(BytesIO(data), 0, len(data), f"{name}.pkl")
        return read_pickle(source, lambda key, _dtype, _numel: self._find(f"{name}/{key}"))

    def elements(self, tensor: StoredTensor) -> memoryview:
        """The bytes of a contiguous tensor."""
        offset = tensor.storage_offset * tensor.itemsize
        return part(self.bytes_of(tensor.storage), offset, tensor.nbytes)

    def bytes_of(self, storage: Storage) -> memoryview:
        """The bytes of an entry."""
        return part(self._file, storage.offset, storage.length)

    def entry(self, name: str) -> bytes | None:
        """The content of an entry, None if there is none."""
        return bytes(self.bytes_of(self._find(name))) if name in self._entries else None

    def view(self, name: str) -> memoryview:
        """The content of an entry, mapped."""
        return self.bytes_of(self._find(name))

    def _find(self, name: str) -> Storage:
        if name not in self._entries:
            raise ValueError(f"the archive has no {name}")
        entry = self._entries[name]
        if entry.compress_type != ZIP_STORED:
            raise ValueError(f"{name} is compressed")
        return Storage(self._path, self._offset(entry), entry.file_size, entry.CRC, name)

    def _offset(self, entry: ZipInfo) -> int:
        """Where the bytes begin: behind a header whose last two numbers are lengths."""
        header = part(self._file, entry.header_offset, _LOCAL_HEADER)
        name, extra = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        return entry.header_offset + _LOCAL_HEADER + name + extra
