"""What a TorchScript archive holds, without executing it.

The archive is a zip; its ``data.pkl`` describes the module and all below it, the elements are
entries beside it (torch's ``torch/csrc/jit/serialization/import.cpp``). A module is a note with a
dictionary of attributes, so the path to a tensor is its name in the state dict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint import Opaque, StoredTensor
from converters.parity.contents.archive import Archive
from converters.parity.contents.held import Contents, HeldTensor
from converters.parity.contents.written import code_faults, metadata_faults

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.checkpoint import Tree
    from converters.folder.folder import ConvertedFolder

_PROGRAM, _CONSTANTS = "data", "constants"

_ONE_VALUE = 8
"""Bytes that a constant of the program may have; what is larger could be a weight."""


def read_torchscript(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which tensors a TorchScript archive holds, and whether its code is what we write.

    Raises:
        ConversionError: If it cannot be opened, is no zip that every program reads alike, or a
            pickle in it is damaged or names what runs code.
        ValueError: If an entry is missing or compressed.
    """
    archive = Archive(path)
    program = _held(archive, archive.unpickle(_PROGRAM), "")
    constants = _held(archive, archive.unpickle(_CONSTANTS), _CONSTANTS)
    large = (tensor for tensor in constants if tensor.data.nbytes > _ONE_VALUE)
    faults = code_faults(folder, archive)
    return Contents(
        (*program, *large),
        counters=True,
        faults=(*(faults or ()), *metadata_faults(folder, archive.stated())),
        graph_compared=faults is not None,
    )


def _held(archive: Archive, tree: Tree, name: str) -> Iterator[HeldTensor]:
    """Every tensor in a nest of modules and containers."""
    match tree:
        case StoredTensor():
            fault = None if tree.is_contiguous else "does not lie in row-major order"
            data = memoryview(b"") if fault else archive.elements(tree)
            yield HeldTensor(name, tree.dtype, tree.shape, data, fault)
        case Opaque():
            yield from _held(archive, tree.fields, name)
        case dict() | list() | tuple():
            for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
                yield from _held(archive, value, f"{name}.{key}" if name else str(key))
