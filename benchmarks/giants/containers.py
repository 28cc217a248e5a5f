"""The containers of checkpoints, written front to back into files that may have holes."""

from __future__ import annotations

import pickle  # writes plain values; nothing is unpickled
from dataclasses import dataclass, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from benchmarks.giants.content import Part
from benchmarks.giants.sparse import SparseFile
from converters.checkpoint.legacy_container import MAGIC_NUMBER, PROTOCOL_VERSION
from converters.checkpoint.torch_pickle import opcodes, program, save_archive
from regnet.files.safetensors_file import (
    TensorSpec,
    header_bytes,
    in_file_order,
)

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from benchmarks.giants.content import Content

CONTAINERS = ("zip", "legacy", "safetensors")

_PICKLE_PROTOCOL = 2
_MACHINE = {
    "protocol_version": PROTOCOL_VERSION,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes the files of one giant.

    Attributes:
        container: One of :data:`CONTAINERS`.
        content: The numbers.
    """

    container: str
    content: Content

    def write(self, path: Path, tree: dict[str, Any]) -> None:
        """Write one file.

        Args:
            path: Created or replaced.
            tree: Plain values, and each tensor as a :class:`~benchmarks.giants.content.Part`.

        Raises:
            ValueError: If the container cannot hold such a tree.
            OSError: If the file cannot be written.
        """
        tree = _numbered(tree, count(), legacy=self.container == "legacy")
        if self.container == "safetensors":
            self._safetensors(path, tree)
        elif self.container == "legacy":
            self._legacy(path, tree)
        else:
            file = SparseFile(path)
            save_archive(file, tree, ((p.nbytes, self._chunks(p, file)) for p in parts_of(tree)))

    def _legacy(self, path: Path, tree: dict[str, Any]) -> None:
        """The stream of torch before 1.6; see `converters.checkpoint.legacy_container`."""
        parts = list(parts_of(tree))
        with SparseFile(path) as file:
            for plain in (MAGIC_NUMBER, PROTOCOL_VERSION, _MACHINE):
                file.write(pickle.dumps(plain, _PICKLE_PROTOCOL))
            file.write(program(opcodes(tree)))
            file.write(pickle.dumps([part.key for part in parts], _PICKLE_PROTOCOL))
            for part in parts:
                file.write(part.stored.numel.to_bytes(8, "little"))
                for chunk in self._chunks(part, file):
                    file.write(chunk)

    def _safetensors(self, path: Path, tree: dict[str, Any]) -> None:
        if not all(isinstance(value, Part) for value in tree.values()):
            raise ValueError("safetensors holds a flat state dict alone; choose zip or legacy.")
        specs = [TensorSpec(name, part.dtype, part.stored.shape) for name, part in tree.items()]
        ordered = in_file_order(specs)
        with SparseFile(path) as file:
            file.write(header_bytes(ordered))
            for spec in ordered:
                for chunk in self._chunks(tree[spec.name], file):
                    file.write(chunk)

    def _chunks(self, part: Part, file: SparseFile) -> Iterator[bytes]:
        """A part's bytes; holes begin where the file stands when the first one is asked for."""
        yield from self.content.chunks(part, file.tell())


def _numbered(tree: Any, keys: Iterator[int], *, legacy: bool) -> Any:
    """The same tree, its parts with the keys that the container knows their elements by."""
    if isinstance(tree, Part):
        return replace(tree, key=str(next(keys)), legacy=legacy)
    if isinstance(tree, dict):
        items = ((key, _numbered(value, keys, legacy=legacy)) for key, value in tree.items())
        return type(tree)(items)
    if isinstance(tree, list):
        return [_numbered(value, keys, legacy=legacy) for value in tree]
    return tree


def parts_of(tree: Any) -> Iterator[Part]:
    """The parts in a tree, in order."""
    if isinstance(tree, Part):
        yield tree
    elif isinstance(tree, dict):
        for value in tree.values():
            yield from parts_of(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from parts_of(value)
