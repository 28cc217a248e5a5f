"""The safetensors format: eight bytes of length, a JSON header, then the bytes of the tensors.

Specification: https://github.com/huggingface/safetensors, "Format". Of two entries of one name
JSON readers take the first or the last, so a header that has them is refused.
"""

from __future__ import annotations

import json
from math import prod
from typing import TYPE_CHECKING, Any, NoReturn

from converters.checkpoint.msgpack_container import PARAMETERS, STATISTICS
from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
)
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.dtypes import OF_SAFETENSORS, item_size
from regnet.files.safetensors_file import LENGTH_SIZE, METADATA_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from converters.checkpoint.source_file import SourceFile

MAX_HEADER = 1 << 23
"""In bytes. The specification allows 100 MB, of which Python makes 3 GB; those of published
RegNets have under 0.2 MB."""


def read_safetensors(file: SourceFile) -> tuple[Tree, dict[str, str]]:
    """Read the header of a file that `sniff.looks_like_safetensors` takes.

    Returns:
        The tensors by name, levels joined by dots, in the order of the header, and the metadata.

    Raises:
        InputError: The file is truncated, or breaks a rule of the format.
        UnsafeInputError: A key occurs twice.
    """
    header, data_start = _read_header(file)
    metadata = header.pop(METADATA_KEY, {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise _damaged(file, "its metadata is not text by name")
    tensors = [_tensor(file, data_start, name, entry) for name, entry in header.items()]
    _require_full_cover(file, data_start, [tensor.storage for tensor in tensors])
    tree: dict[Hashable, Tree] = {}
    for stored, tensor in zip(header, tensors, strict=True):
        name = _NAMES.get(metadata.get("format"), str)(stored)
        if name in tree:
            raise _damaged(file, f"it has {printable(name)} twice, in levels and with dots")
        tree[name] = tensor
    return tree, metadata


def _without_collection(name: str) -> str:
    collection, _, levels = name.partition(".")
    return levels if collection in {PARAMETERS, STATISTICS} else name


_NAMES: dict[str | None, Callable[[str], str]] = {
    "tf": lambda name: name.removesuffix(":0").replace("/", "."),
    "flax": _without_collection,
}
"""From the names that transformers' classes of TensorFlow and Flax save to those that are read of
their other files; by the metadata's word for who saved them."""


def _read_header(file: SourceFile) -> tuple[dict[str, Any], int]:
    length = int.from_bytes(file.read(0, min(LENGTH_SIZE, file.size)), "little")
    data_start = LENGTH_SIZE + length
    if length > MAX_HEADER:
        raise _damaged(file, f"its header claims {length} bytes, more than a network needs")
    if data_start > file.size:
        what = f"is truncated, it has {file.size} bytes and its header alone takes {data_start}"
        raise damaged(file.name, what)
    text = file.read(LENGTH_SIZE, length)
    try:
        return _parsed(text, file.name), data_start
    except (ValueError, RecursionError) as error:
        raise _damaged(file, "its header is not JSON") from error


def _parsed(text: bytes, where: str) -> dict[str, Any]:
    """Parse a header, as strictly as the format's own library.

    Raises:
        ValueError: It is no JSON of whole numbers and whole characters.
        UnsafeInputError: A key occurs twice.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for name, value in pairs:
            if name in values:
                raise UnsafeInputError(
                    f"{where}: has the key '{printable(name)}' twice, so that programs may "
                    "disagree on its content; get the checkpoint from a source you trust."
                )
            for said in (name, value):
                if isinstance(said, str):
                    said.encode()  # half a character, as an escape can be, is no text
            values[name] = value
        return values

    def refuse(constant: str) -> NoReturn:
        raise ValueError(f"{constant} is no JSON")

    def whole(number: str) -> int:
        if number == "-0":  # which the library takes for a fraction
            refuse(number)
        return int(number)

    header: dict[str, Any] = json.loads(
        text.decode(), object_pairs_hook=unique, parse_constant=refuse, parse_int=whole
    )
    return header


def _tensor(file: SourceFile, data_start: int, name: str, entry: object) -> StoredTensor:
    label = f"tensor '{printable(name)}'"
    match entry:
        case {"dtype": str(code), "shape": list(shape), "data_offsets": [begin, end]}:
            pass
        case _:
            raise _damaged(file, f"{label} lacks dtype, shape or data_offsets")
    if code not in OF_SAFETENSORS:
        raise InputError(
            f"{file.name}: {label} has the unsupported type {printable(code)}; convert it to a "
            "float type."
        )
    if len(shape) > MAX_AXES or not all(map(_is_size, [*shape, begin, end])):
        raise _damaged(file, f"{label} has sizes or offsets that cannot be")
    dtype, sizes = OF_SAFETENSORS[code], tuple(shape)
    if end - begin != prod(sizes) * item_size(dtype):
        raise _damaged(file, f"{label} has other bytes than its shape and type need")
    storage = Storage(file.path, data_start + begin, end - begin, None, label)
    return StoredTensor(dtype, sizes, contiguous_stride(sizes), storage, 0)


def _is_size(value: object) -> bool:
    # A bool is an int in Python; here it is a mistake.
    return type(value) is int and 0 <= value <= MAX_SIZE


def _require_full_cover(file: SourceFile, data_start: int, storages: list[Storage]) -> None:
    """Refuse holes, overlaps and bytes behind the last tensor, where another file could hide."""
    position = data_start
    for storage in sorted(storages, key=lambda storage: (storage.offset, storage.length)):
        if storage.offset != position:
            raise _damaged(file, f"{storage.label} does not begin where the one before ends")
        position += storage.length
    if position != file.size:
        what = "is truncated, it" if position > file.size else "goes on behind its last tensor, it"
        raise damaged(file.name, f"{what} has {file.size} bytes and should have {position}")


def _damaged(file: SourceFile, what: str) -> InputError:
    return damaged(file.name, f"is damaged, {what}")
