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
    from collections.abc import Mapping

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
    sizes: dict[str, tuple[str, int]] = {}
    storages: dict[str, Storage] = {}

    def find_storage(key: str, dtype: str, numel: int) -> Storage:
        if sizes.setdefault(key, (dtype, numel)) != (dtype, numel):
            raise ValueError(f"{_label(key)} with two sizes")
        if key in storages:
            return storages[key]
        return Storage(file.path, 0, numel * item_size(dtype), None, _label(key))

    source = PickleSource(file)
    _require_header(source)
    start = source.tell()
    read_pickle(source, find_storage, has_views=True)
    storages |= _located(source, file, sizes)
    file.require_unchanged()
    return read_pickle(PickleSource(file, start), find_storage, has_views=True)


def _require_header(source: PickleSource) -> None:
    """Check the first three pickles."""
    if read_pickle(source) != MAGIC_NUMBER:
        raise InputError(
            f"{source.label}: is a Python pickle that torch.save did not write; give a "
            "state dict that torch.save or safetensors wrote."
        )
    if read_pickle(source) != PROTOCOL_VERSION:
        what = "has another version of the layout than torch.save writes"
        raise damaged(source.label, f"{what}, which is {PROTOCOL_VERSION}")
    read_pickle(source)


def _located(
    source: PickleSource, file: SourceFile, sizes: Mapping[str, tuple[str, int]]
) -> dict[str, Storage]:
    """Walk over the storages behind the content, reading nothing but their counts.

    Raises:
        InputError: The file ends before the last one, goes on behind it, or names others.
    """
    keys = read_pickle(source)
    names = [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []
    if names != keys or sorted(names) != sorted(sizes):
        raise damaged(file.name, "is damaged, its list of storages is not the one its tensors use")
    offset = source.tell()
    lengths = {key: numel * item_size(dtype) for key, (dtype, numel) in sizes.items()}
    end = offset + sum(_COUNT_SIZE + length for length in lengths.values())
    if end != file.size:
        what = "is truncated, it" if end > file.size else "goes on behind its end, it"
        raise damaged(file.name, f"{what} has {file.size} bytes and should have {end}")
    storages = {}
    for key in names:
        count, numel = int.from_bytes(file.read(offset, _COUNT_SIZE), "little"), sizes[key][1]
        if count != numel:
            what = f"has {count} elements where its tensors say {numel}"
            raise damaged(f"{file.name}, {_label(key)}", what, "the file")
        storages[key] = Storage(file.path, offset + _COUNT_SIZE, lengths[key], None, _label(key))
        offset = storages[key].end
    return storages


def _label(key: str) -> str:
    return f"storage {printable(key)}"
