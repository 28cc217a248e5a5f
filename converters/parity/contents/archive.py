"""The zip under TorchScript and `.pt2`: entries that lie as they are, and are mapped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint import Storage
from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.checkpoint.source_file import Found, SourceFile
from converters.checkpoint.zip_container import EXTRA
from converters.checkpoint.zip_directory import STORED, ZipDirectory
from converters.parity.contents.held import mapped, part

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint import StoredTensor, Tree


class Archive:
    """Finds the entries of a zip of torch, without executing anything.

    Args:
        path: The file.

    Attributes:
        names: Of all entries, below the folder that holds them.

    Raises:
        InputError: If it is damaged or no zip.
        UnsafeInputError: If programs may find other entries in it.
        StorageError: If it cannot be opened.
        ValueError: From any method, if an entry is missing or compressed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with SourceFile(path) as file:
            self._directory = ZipDirectory(file)
            self._directory.require_one_reading()
            self._directory.require_one_folder()
        self._entries = {entry.inside: entry for entry in self._directory.entries}
        self.names = tuple(self._entries)
        self._file = mapped(path)

    def unpickle(self, name: str) -> Tree:
        """What ``NAME.pkl`` says; its tensors lie in the folder ``NAME``."""
        source = PickleSource(Found(f"{name}.pkl", bytes(self.entry(f"{name}.pkl"))))
        return read_pickle(source, lambda key, _dtype, _numel: self._find(f"{name}/{key}"))

    def elements(self, tensor: StoredTensor) -> memoryview:
        """The bytes of a contiguous tensor."""
        entry = part(self._file, tensor.storage.offset, tensor.storage.length)
        return part(entry, tensor.storage_offset * tensor.itemsize, tensor.nbytes)

    def entry(self, name: str) -> memoryview:
        """The content of an entry."""
        place = self._find(name)
        return part(self._file, place.offset, place.length)

    def stated(self) -> dict[str, str]:
        """What it states beside the network, of torch's ``extra_files``, by key."""
        texts = {name.removeprefix(EXTRA): name for name in self.names if name.startswith(EXTRA)}
        return {key: bytes(self.entry(name)).decode() for key, name in texts.items()}

    def _find(self, name: str) -> Storage:
        if name not in self._entries:
            raise ValueError(f"the archive has no {name}")
        entry = self._entries[name]
        if entry.method != STORED:
            raise ValueError(f"{name} is compressed")
        offset = self._directory.data_offset(entry)
        return Storage(self._path, offset, entry.size, entry.crc32, name)
