"""Changes of the stream that torch wrote before 1.6: five pickles, then the storages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.checkpoint.source_file import Found
from converters.checkpoint.values import Storage
from fuzz.differential import pickles
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

_COUNT = 8
_CONTENT, _KEYS = 3, 4


@dataclass
class Stored:
    """The elements of a storage.

    Attributes:
        count: How many they are said to be.
        data: Their bytes.
    """

    count: int
    data: bytes


@dataclass
class Legacy:
    """A legacy file, taken apart."""

    pickles: list[bytes]
    storages: list[Stored]


def parsed(data: bytes, path: Path) -> Legacy:
    """Take apart a whole file.

    Args:
        data: The file's bytes.
        path: Any.
    """
    sizes: dict[str, int] = {}

    def find_storage(key: str, dtype: str, numel: int) -> Storage:
        sizes[key] = item_size(dtype)
        return Storage(path, 0, numel * item_size(dtype), None, key)

    source = PickleSource(Found("seed", data))
    parts, begin = [], 0
    for _ in range(_KEYS + 1):
        keys = read_pickle(source, find_storage, has_views=True)
        parts.append(data[begin : source.tell()])
        begin = source.tell()
    storages = []
    assert isinstance(keys, list)  # noqa: S101
    for key in keys:
        count = int.from_bytes(data[begin : begin + _COUNT], "little")
        begin += _COUNT
        storages.append(Stored(count, data[begin : begin + count * sizes[str(key)]]))
        begin += len(storages[-1].data)
    assert begin == len(data)  # noqa: S101
    return Legacy(parts, storages)


def written(legacy: Legacy) -> bytes:
    """Put a file together."""
    storages = (
        (stored.count % (1 << 64)).to_bytes(_COUNT, "little") + stored.data
        for stored in legacy.storages
    )
    return b"".join((*legacy.pickles, *storages))


def change(legacy: Legacy, rng: Random, other: bytes) -> None:
    """Make one change, in place.

    Args:
        legacy: The file.
        rng: Decides everything.
        other: The content of another file, of which instructions may be taken.
    """
    index = rng.choice((0, 1, 2, _CONTENT, _CONTENT, _CONTENT, _CONTENT, _CONTENT, _KEYS, _KEYS))
    if rng.randrange(4):
        legacy.pickles[index] = pickles.change(legacy.pickles[index], rng, other)
    elif legacy.storages:
        _change_storage(legacy.storages, rng)


def _change_storage(storages: list[Stored], rng: Random) -> None:
    at, to = rng.randrange(len(storages)), rng.randrange(len(storages))
    stored = storages[at]
    match rng.randrange(7):
        case 0:
            storages[at], storages[to] = storages[to], stored
        case 1:
            storages.insert(to, Stored(stored.count, stored.data))
        case 2:
            del storages[at]
        case 3:
            stored.count = rng.choice((stored.count + 1, stored.count - 1, 0, 1 << 63, -1))
        case 4:
            stored.data = pickles.changed_bytes(stored.data, rng)
        case 5:
            stored.data += stored.data
            stored.count *= 2
        case 6:
            stored.count, storages[to].count = storages[to].count, stored.count
