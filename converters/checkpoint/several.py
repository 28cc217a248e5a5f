"""Several files that are one checkpoint; a folder of Hugging Face's libraries is such."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.beside import WEIGHTS, of_folder, read_index
from converters.checkpoint.reader import Checkpoint
from converters.errors import InputError
from regnet.files.safetensors_file import require_indexed, unindexed

if TYPE_CHECKING:
    from collections.abc import Hashable, Sequence
    from pathlib import Path

    from converters.checkpoint.values import Tree

_STALE = "named like a shard, but not by the index"


def open_folder(path: Path, index: Path | None = None) -> Checkpoint:
    """Open a folder as Hugging Face's libraries write it.

    Args:
        path: What the user named: the folder, or a file in it.
        index: The index of the shards, where it is the file or names it; None looks for it.

    Returns:
        The tensors of all weights files by name; what lies beside them has the files that are named
        like shards and were not read.
    """
    folder = index.parent if index else path
    beside = of_folder(folder)
    found = index or _weights_of(folder)
    is_index = found.suffix == ".json"
    shards = read_index(found) if is_index else {found.name: set()}
    checkpoint = Checkpoint(path, "folder")
    with checkpoint.closed_on_error():
        opened = [checkpoint.add(folder / name) for name in shards]
        checkpoint.tree = _merged(opened)
        if is_index:
            _require_indexed(found, shards, opened)
        ignored = dict.fromkeys(unindexed(folder, shards), _STALE)
        checkpoint.beside = replace(beside, ignored=ignored)
    return checkpoint


def _merged(checkpoints: Sequence[Checkpoint]) -> Tree:
    tree: dict[Hashable, Tree] = {}
    for checkpoint in checkpoints:
        name = checkpoint.path.name
        if not isinstance(checkpoint.tree, dict):
            raise InputError(f"{name}: holds no tensors by name; give a state dict.")
        repeated = tree.keys() & checkpoint.tree.keys()
        if repeated:
            raise InputError(f"{name}: repeats {min(map(str, repeated))} of another shard.")
        tree.update(checkpoint.tree)
    return tree


def _require_indexed(
    index: Path, shards: dict[str, set[str]], opened: Sequence[Checkpoint]
) -> None:
    names = {c.path.name: map(str, c.tree) for c in opened if isinstance(c.tree, dict)}
    try:
        require_indexed(index, shards, names)
    except ValueError as error:
        raise InputError(str(error)) from error


def _weights_of(folder: Path) -> Path:
    """The file with the weights, or an index."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    raise InputError(
        f"{folder}: holds none of {', '.join(WEIGHTS[:4])}; give the checkpoint's file, or a "
        "folder that transformers or timm wrote."
    )
