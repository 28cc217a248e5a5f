"""What a `.pt2` of torch.export holds, without loading it.

The archive is a zip. A JSON table gives for each tensor of the state dict the entry with its
elements (torch's ``torch/export/pt2_archive/constants.py`` and ``torch/_export/serde/schema.py``).
The program itself, another JSON, is judged by its numbers.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.checkpoint.values import contiguous_stride
from converters.errors import printable
from converters.parity.contents.archive import Archive
from converters.parity.contents.held import Contents, HeldTensor
from converters.parity.contents.written import metadata_faults
from regnet.architecture import Normalise
from regnet.files.dtypes import item_size
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

_WEIGHTS, _CONSTANTS = "data/weights/", "data/constants/"
_WEIGHTS_TABLE = _WEIGHTS + "model_weights_config.json"
_CONSTANTS_TABLE = _CONSTANTS + "model_constants_config.json"
_INPUTS = "data/sample_inputs/model.pt"

_DTYPES = {5: "int64", 6: "float16", 7: "float32", 8: "float64", 13: "bfloat16"}
"""``ScalarType`` of the schema to torch's names."""


def read_pt2(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which tensors a file of torch.export holds.

    Raises:
        ConversionError: If it cannot be opened, or is no zip that every program reads alike.
        KeyError: If a table lacks what belongs there.
        ValueError: If an entry is missing or compressed, or a table is no JSON.
    """
    archive = Archive(path)
    table = _table(archive, _WEIGHTS_TABLE)
    tensors = tuple(_held(archive, name, entry) for name, entry in table.items())
    faults = _faults(folder, archive, {entry["path_name"] for entry in table.values()})
    stated = metadata_faults(folder, archive.stated())
    return Contents(tensors, counters=True, faults=(*faults, *stated))


def _table(archive: Archive, name: str) -> Mapping[str, Any]:
    table: Mapping[str, Any] = parse_json(bytes(archive.entry(name)))["config"]
    return table


def _held(
    archive: Archive, name: str, entry: Mapping[str, Any], place: str = _WEIGHTS
) -> HeldTensor:
    meta = entry["tensor_meta"]
    shape, strides = (tuple(int(n["as_int"]) for n in meta[key]) for key in ("sizes", "strides"))
    dtype = _DTYPES.get(meta["dtype"], f"of type {meta['dtype']}")
    data = archive.entry(place + entry["path_name"])
    needed = prod(shape) * item_size(dtype) if meta["dtype"] in _DTYPES else data.nbytes
    fault = None
    if entry["use_pickle"]:
        fault = "is pickled, and would run code"
    elif strides != contiguous_stride(shape) or meta["storage_offset"]["as_int"]:
        fault = "does not lie in row-major order"
    elif data.nbytes != needed:
        fault = f"has {data.nbytes} bytes where its shape needs {needed}"
    return HeldTensor(name, dtype, shape, data, fault)


def _faults(folder: ConvertedFolder, archive: Archive, used: set[str]) -> Iterator[str]:
    first = folder.architecture.operations[0]
    due = [first.mean, first.std] if isinstance(first, Normalise) else []
    for name, entry in _table(archive, _CONSTANTS_TABLE).items():
        held = _held(archive, name, entry, _CONSTANTS)
        wanted = np.array(due.pop(0), np.float32).tobytes() if due else None
        if wanted is None:
            yield f"holds a constant {printable(name)}, which nothing needs"
        elif held.fault or held.dtype != "float32" or bytes(held.data) != wanted:
            yield f"holds a constant {printable(name)}, which is not of the image processor"
        used.add(entry["path_name"])
    if due:
        yield "lacks a number that images are normalised by"
    if _INPUTS in archive.names and archive.entry(_INPUTS):
        yield f"holds {_INPUTS}, a pickle, which nothing needs"
    for name in archive.names:
        place, slash, leaf = name.rpartition("/")
        known = name in {_WEIGHTS_TABLE, _CONSTANTS_TABLE} or leaf in used
        if place + slash in {_WEIGHTS, _CONSTANTS} and not known:
            yield f"holds {printable(name)}, which nothing needs"
