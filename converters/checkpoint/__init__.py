"""Opens any checkpoint without running code; one tensor in memory at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.beside import (
    graph_in,
    index_of,
    is_of_folder,
    of_file,
    of_folder,
    open_folder,
)
from converters.checkpoint.reader import Checkpoint, open_checkpoint
from converters.checkpoint.values import Opaque, Storage, StoredTensor, Tree
from regnet.files.safetensors_file import is_file

if TYPE_CHECKING:
    from pathlib import Path


def open_any(path: Path) -> Checkpoint:
    """Open a checkpoint that is a file, a folder, or a list of files beside it.

    A file named inside a folder of Hugging Face's libraries is read as the folder is: with its
    configuration, and of a shard or an index all shards; and so is one that is told of by its
    configuration, where that is named. A folder may also be one of torch.distributed.checkpoint
    or DeepSpeed, or hold an ONNX file with its configuration.

    Raises:
        ConversionError: See :func:`open_checkpoint`; or one of several files is missing.
    """
    from converters.checkpoint.deepspeed import require_no_part, whole_network_in
    from converters.checkpoint.distributed import distributed_in, open_distributed, require_no_piece
    from converters.checkpoint.lists import complete

    if path.is_dir():
        pieces = distributed_in(path)
        if pieces is not None:
            return open_distributed(path, pieces)
        whole = whole_network_in(path)
        if whole is not None:
            return open_checkpoint(whole)
        graph = graph_in(path)
        return open_folder(path) if graph is None else _open_graph(graph, path)
    if is_of_folder(path):
        return open_any(path.parent)
    require_no_piece(path)
    require_no_part(path)
    index = index_of(path) if is_file(path) else None
    if index is not None:
        return open_folder(path, index)
    checkpoint = open_checkpoint(path)
    with checkpoint.closed_on_error():
        if not complete(checkpoint):
            checkpoint.beside = of_file(path)
        return checkpoint


def _open_graph(graph: Path, folder: Path) -> Checkpoint:
    checkpoint = open_checkpoint(graph)
    with checkpoint.closed_on_error():
        checkpoint.beside = of_folder(folder)
        return checkpoint


__all__ = [
    "Checkpoint",
    "Opaque",
    "Storage",
    "StoredTensor",
    "Tree",
    "open_any",
    "open_checkpoint",
]
