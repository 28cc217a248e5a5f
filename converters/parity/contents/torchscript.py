"""What a TorchScript archive holds, without executing it.

The archive is a zip; its ``data.pkl`` describes the module and all below it, the elements are
entries beside it (torch's ``torch/csrc/jit/serialization/import.cpp``). A module is a note with a
dictionary of attributes, so the path to a tensor is its name in the state dict.
"""

from __future__ import annotations

from io import BytesIO
from typing import TYPE_CHECKING
from zipfile import ZIP_STORED, ZipFile

from converters.checkpoint import Opaque, Storage, StoredTensor
from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.parity.contents.held import Contents, HeldTensor, mapped, part
from converters.parity.contents.written import code_faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from zipfile import ZipInfo

    from converters.checkpoint import Tree
    from converters.folder import ConvertedFolder

_PROGRAM, _CONSTANTS = "data", "constants"
_LOCAL_HEADER = 30  # bytes before the entry's name

_ONE_VALUE = 8
"""Bytes that a constant of the program may have; what is larger could be a weight."""


def read_torchscript(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which tensors a TorchScript archive holds, and whether its code is what we write.

    Raises:
        ConversionError: If a pickle in it is damaged, or names what runs code.
        OSError: If it cannot be opened.
        ValueError: If it is no zip of one entry per name, or an entry is compressed.
        zipfile.BadZipFile: If it is no zip.
    """
    archive = _Archive(path)
    program = _held(archive, archive.unpickle(_PROGRAM), "")
    constants = _held(archive, archive.unpickle(_CONSTANTS), _CONSTANTS)
    large = (tensor for tensor in constants if tensor.data.nbytes > _ONE_VALUE)
    faults = tuple(code_faults(folder, archive.entry))
    return Contents((*program, *large), counters=True, faults=faults)


class _Archive:
    """Finds the entries of a zip of torch."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with ZipFile(path) as archive:
            entries = archive.infolist()
        self._entries = {entry.filename.partition("/")[2]: entry for entry in entries}
        if len(self._entries) < len(entries):
            raise ValueError("two entries of the archive have one name")
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


def _held(archive: _Archive, tree: Tree, name: str) -> Iterator[HeldTensor]:
    """Every tensor in a nest of modules and containers."""
    match tree:
        case StoredTensor():
            fault = None if tree.is_contiguous else "does not lie in row-major order"
            data = memoryview(b"") if fault else archive.elements(tree)
            yield HeldTensor(name, tree.dtype, tree.shape, data, fault)
        case Opaque():
            yield from _held(archive, tree.fields, name)
        case dict():
            for key, value in tree.items():
                yield from _held(archive, value, f"{name}.{key}" if name else str(key))
        case list() | tuple():
            for key, value in enumerate(tree):
                yield from _held(archive, value, f"{name}.{key}" if name else str(key))
