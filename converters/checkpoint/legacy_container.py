"""The stream that torch.save wrote before 1.6, and writes on request since.

Five pickles (a magic number, the version of the layout, facts about the machine, the content, the
keys of the storages in their order), then for each storage the number of its elements in eight
bytes, and its bytes. Source: torch/serialization.py, ``_legacy_save``. Where a storage lies is
thus known only after the pickle that mentions it; that pickle is read twice, first for the sizes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import Storage, Tree
from converters.errors import InputError, printable
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from converters.checkpoint.source_file import SourceFile

MAGIC_NUMBER = 0x1950A86A20F9469CFC6C
PROTOCOL_VERSION = 1001
_COUNT_SIZE = 8


def read_legacy(file: SourceFile) -> Tree:
    """Read what a legacy checkpoint holds; of its storages only their sizes.

    Raises:
        InputError: It is truncated, damaged, or another pickle than torch.save writes.
        UnsafeInputError: It names code to run.
    """
    reader = _Reader(file)
    start = reader.require_header()
    reader.read(start)
    reader.locate_storages()
    file.require_unchanged()
    return reader.read(start)


class _Reader:
    """What is known so far of the storages of a file."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._sizes: dict[str, tuple[str, int]] = {}
        self._storages: dict[str, Storage] = {}
        self._source = self._source_at(0)

    def require_header(self) -> int:
        """Check the first three pickles and return where the fourth begins, in bytes."""
        if read_pickle(self._source) != MAGIC_NUMBER:
            raise InputError(
                f"{self._file.name}: is a Python pickle that torch.save did not write; give a "
                "state dict that torch.save or safetensors wrote."
            )
        version = read_pickle(self._source)
        if version != PROTOCOL_VERSION:
            what = "has another version of the layout than torch.save writes"
            raise damaged(self._file.name, f"{what}, which is {PROTOCOL_VERSION}")
        read_pickle(self._source)
        return self._source.tell()

    def read(self, start: int) -> Tree:
        """Read the content, whose pickle begins at byte ``start``."""
        self._source = self._source_at(start)
        return read_pickle(self._source, self._find_storage, has_views=True)

    def locate_storages(self) -> None:
        """Walk over the storages behind the content, reading nothing but their counts.

        Raises:
            InputError: The file ends before the last one, goes on behind it, or names others.
        """
        keys = read_pickle(self._source)
        names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
        if names != keys or sorted(names) != sorted(self._sizes):
            what = "is damaged, its list of storages is not the one its tensors use"
            raise damaged(self._file.name, what)
        offset = self._source.tell()
        lengths = (numel * item_size(dtype) for dtype, numel in self._sizes.values())
        end = offset + sum(_COUNT_SIZE + length for length in lengths)
        if end != self._file.size:
            what = "is truncated, it" if end > self._file.size else "goes on behind its end, it"
            what = f"{what} has {self._file.size} bytes and should have {end}"
            raise damaged(self._file.name, what)
        for key in names:
            self._storages[key] = self._storage_at(offset, key)
            offset += _COUNT_SIZE + self._storages[key].length

    def _storage_at(self, offset: int, key: str) -> Storage:
        dtype, numel = self._sizes[key]
        count = int.from_bytes(self._file.read(offset, _COUNT_SIZE), "little")
        if count != numel:
            what = f"has {count} elements where its tensors say {numel}"
            raise damaged(f"{self._file.name}, {_label(key)}", what, "the file")
        length = numel * item_size(dtype)
        return Storage(self._file.path, offset + _COUNT_SIZE, length, None, _label(key))

    def _source_at(self, start: int) -> PickleSource:
        return PickleSource(self._file.stream, start, self._file.size, self._file.name)

    def _find_storage(self, key: str, dtype: str, numel: int) -> Storage:
        size = self._sizes.setdefault(key, (dtype, numel))
        if size != (dtype, numel):
            raise ValueError(f"{_label(key)} with two sizes")
        if key in self._storages:
            return self._storages[key]
        return Storage(self._file.path, 0, numel * item_size(dtype), None, _label(key))


def _label(key: str) -> str:
    return f"storage {printable(key)}"
