"""What torch.distributed.checkpoint notes of a checkpoint, in the pickle `.metadata` of its folder.

Source: torch/distributed/checkpoint, ``metadata.py`` (`Metadata`, `TensorStorageMetadata`,
`MetadataIndex`), ``filesystem.py`` (`_StorageInfo`) and ``default_planner.py``, which flattens
nested state dicts and notes the keys that lead to each entry. The pickle is read as notes about
objects, whose states are looked at; ``torch.distributed.checkpoint.load`` unpickles it.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING, Any

from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import MAX_AXES, MAX_SIZE, Opaque
from converters.errors import InputError, printable
from regnet.files.reading import is_bare

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.checkpoint.source_file import SourceFile

METADATA_NAME = ".metadata"

_MAX_METADATA = 3_800_000
"""In bytes: an entry of a single piece takes 250, and 120 of all the instructions that a pickle may
have."""

_MAX_KEYS = 64
"""That lead to an entry."""

GATHER = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch"
"""Torch's own tool, which takes a folder and the file to write."""

_PACKAGE = "torch.distributed."  # in whose modules the classes have been over the years
_MEMORY_FORMATS = (
    (0,),
    (1,),
    (2,),
)  # of the class of its numbers, which older versions call without the `_`
_CHUNK_FIELDS = ("offsets", "sizes")

Sizes = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where the bytes of an entry, or of a piece of it, lie: a complete file of torch.save.

    Attributes:
        file: The name of the file in the folder.
        offset: Of the first byte.
        length: In bytes.
    """

    file: str
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length


@dataclass(frozen=True, slots=True)
class Piece:
    """A block of a tensor.

    Attributes:
        corner: The index of its first element in the tensor.
        shape: Its sizes.
        place: Where it lies.
    """

    corner: Sizes
    shape: Sizes
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor, or a value of another type.

    Attributes:
        name: All keys that lead to it, joined by dots.
        keys: Those keys.
        dtype: Of a tensor, without the ``torch.``; empty of another value.
        shape: Of a tensor.
        pieces: Blocks that make up the tensor; of another value, or one without elements, a single
            one.
    """

    name: str
    keys: tuple[str | int, ...]
    dtype: str
    shape: Sizes
    pieces: tuple[Piece, ...]

    @property
    def is_tensor(self) -> bool:
        """Whether it is a tensor."""
        return bool(self.dtype)


def read_metadata(file: SourceFile) -> list[Entry]:
    """Read what a `.metadata` says, in its order.

    Raises:
        InputError: It is damaged, something else, or contradicts itself; or the pieces are
            transformed in a way that is not read.
        UnsafeInputError: It would run code in programs that unpickle it.
        StorageError: It cannot be read.
    """
    if file.size > _MAX_METADATA:
        raise InputError(
            f"{file.name}: has {file.size} bytes, of more pieces than are read; gather them with "
            f"`{GATHER} FOLDER FILE`, and give the file."
        )
    source = PickleSource(file)
    tree = read_pickle(source)
    file.require_unchanged()
    if source.tell() != file.size:
        raise damaged(file.name, "goes on behind its end")
    try:
        return list(_entries(file.name, tree))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = f"is not as torch.distributed.checkpoint writes it ({printable(str(error))})"
        raise damaged(file.name, what) from error


def _entries(where: str, tree: object) -> Iterator[Entry]:
    content = _state(tree, "Metadata")
    described, planned = content["state_dict_metadata"], content.get("planner_data")
    places = _places(where, content["storage_data"])
    keys_of = planned if isinstance(planned, dict) else {}
    if not all(isinstance(name, str) for name in keys_of):  # some objects can be no key of torch's
        raise TypeError("keys of an entry without a name")
    left = len(places)
    for name, entry in described.items():
        if not isinstance(name, str):
            raise TypeError("an entry without a name")
        keys = _keys(keys_of.get(name, (name,)))
        if ".".join(map(str, keys)) != name:  # torch finds no entry by other keys
            raise ValueError(f"keys that do not lead to {name}")
        if _is(entry, "BytesStorageMetadata"):
            place = _placed(where, places, name, None)
            yield Entry(name, keys, "", (), (Piece((), (), place),))
            continue
        said = _state(entry, "TensorStorageMetadata")
        chunks, shape = said["chunks"], _sizes(said["size"])
        left -= len(chunks)  # a list may stand in many places of a pickle
        if left < 0:
            raise ValueError("more pieces of tensors than places")
        pieces = [_piece(where, places, name, chunk) for chunk in chunks]
        used = _fitting(f"{where}, {printable(name)}", shape, pieces)
        yield Entry(name, keys, _dtype(said["properties"]), shape, tuple(used))
    unnamed = {name for name, _ in places} - described.keys()
    if unnamed:
        raise ValueError(f"a place of {min(unnamed)}, which is no entry")


def _is(value: object, kind: str) -> bool:
    """Whether a value is an object of one of the package's classes."""
    return (
        isinstance(value, Opaque)
        and value.args is not None
        and value.qualified_name.startswith(_PACKAGE)
        and value.qualified_name.rpartition(".")[2] == kind
    )


def _state(value: Any, kind: str) -> dict[Any, Any]:
    """What an object of a class was to be made of: its attributes by name."""
    if not _is(value, kind) or not isinstance(value.state, dict):
        raise TypeError(f"no {kind} where one belongs")
    return dict(value.state)


def _places(where: str, stored: Any) -> dict[tuple[str, Sizes | None], Place]:
    """Where each piece lies, by the name of its entry and its corner; None of no tensor.

    Raises:
        InputError: They are transformed, or two share bytes.
    """
    places: dict[tuple[str, Sizes | None], Place] = {}
    for index, info in stored.items():
        key, said = _state(index, "MetadataIndex"), _state(info, "_StorageInfo")
        corner = key.get("offset")
        known = (key["fqn"], None if corner is None else _sizes(corner))
        if not isinstance(known[0], str) or known in places:
            raise ValueError("two places of one piece, or one of none")
        if said.get("transform_descriptors"):
            how = ", ".join(map(str, said["transform_descriptors"]))
            raise InputError(
                f"{where}: its pieces were transformed when they were written "
                f"({printable(how)}), which is not read; load them with torch and save them "
                "again without an extension."
            )
        places[known] = _place(said)
    ordered = sorted(places.values(), key=lambda place: (place.file, place.offset))
    for before, after in pairwise(ordered):
        if before.file == after.file and before.end > after.offset:
            raise ValueError(f"two pieces that share byte {after.offset} of {after.file}")
    return places


def _place(said: Mapping[Any, Any]) -> Place:
    file, offset, length = said["relative_path"], said["offset"], said["length"]
    if not isinstance(file, str) or not is_bare(file):
        raise ValueError("a file that is not named by its name alone")
    if file.startswith("."):
        raise ValueError("a hidden file")
    start, size = _sizes((offset, length))
    return Place(file, start, size)


def _placed(
    where: str, places: Mapping[tuple[str, Sizes | None], Place], name: str, corner: Sizes | None
) -> Place:
    place = places.get((name, corner))
    if place is None:
        raise damaged(f"{where}, {printable(name)}", "does not say where a piece of it lies")
    return place


def _piece(
    where: str, places: Mapping[tuple[str, Sizes | None], Place], name: str, chunk: Any
) -> Piece:
    said = _state(chunk, "ChunkStorageMetadata")
    corner, shape = (_sizes(said[field]) for field in _CHUNK_FIELDS)
    return Piece(corner, shape, _placed(where, places, name, corner))


def _fitting(label: str, shape: Sizes, pieces: Sequence[Piece]) -> Sequence[Piece]:
    """The pieces that have elements, after checking that they make up the tensor.

    They do as the cells of a grid, which is how every mesh of processes cuts tensors.

    Raises:
        InputError: They do not.
    """
    for piece in pieces:
        inside = len(piece.corner) == len(piece.shape) == len(shape) and all(
            start + size <= whole
            for start, size, whole in zip(piece.corner, piece.shape, shape, strict=True)
        )
        if not inside:
            what = f"has a piece at {list(piece.corner)} that lies outside of its {list(shape)}"
            raise damaged(label, what, "the folder")
    used = [piece for piece in pieces if prod(piece.shape)]
    if not prod(shape):
        used = [piece for piece in pieces if piece.shape == shape][:1]
        if not used:
            raise damaged(label, "has no piece", "the folder")
        return used
    have, need = sum(prod(piece.shape) for piece in used), prod(shape)
    if have < need:
        what = f"has pieces of {have} elements together where it has {need}"
        raise damaged(label, what, "the folder")
    starts = [sorted({piece.corner[axis] for piece in used}) for axis in range(len(shape))]
    ends = [
        dict(zip(starts[axis], [*starts[axis][1:], shape[axis]], strict=True))
        for axis in range(len(shape))
    ]
    cells = all(
        start + size == end[start]
        for piece in used
        for start, size, end in zip(piece.corner, piece.shape, ends, strict=True)
    )
    if have > need or not cells or len({piece.corner for piece in used}) != len(used):
        raise damaged(label, "has pieces that overlap, or are no cells of a grid", "the folder")
    return used


def _dtype(properties: Any) -> str:
    """The type of a tensor's elements; before torch 2.3 the properties were of another module."""
    if not _is(properties, "TensorProperties"):
        raise TypeError("a tensor without its properties")
    state = properties.state
    if isinstance(state, dict):
        dtype = state.get("dtype")
    else:
        dtype, _, _, memory, _ = state
        known = any(_is(memory, kind) for kind in ("_MEM_FORMAT_ENCODING", "MEM_FORMAT_ENCODING"))
        if not known or memory.args not in _MEMORY_FORMATS:
            raise TypeError("a tensor of no order in memory that torch has")
    if not isinstance(dtype, Opaque) or not dtype.qualified_name.startswith("torch."):
        raise TypeError("a tensor without a type")
    return dtype.qualified_name.removeprefix("torch.")


def _sizes(values: Any) -> Sizes:
    if not isinstance(values, tuple) or len(values) > MAX_AXES:
        raise TypeError("sizes that are none")
    if not all(type(value) is int and 0 <= value <= MAX_SIZE for value in values):
        raise ValueError("sizes that cannot be")
    return values


def _keys(values: Any) -> tuple[str | int, ...]:
    if not isinstance(values, tuple) or not 0 < len(values) <= _MAX_KEYS:
        raise TypeError("keys that are none")
    if not all(isinstance(value, str) or type(value) is int for value in values):
        raise TypeError("a key that is neither text nor a number")
    return values
