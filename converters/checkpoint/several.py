"""Several files that are one checkpoint; a folder of Hugging Face's libraries is such."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.beside import WEIGHTS, Beside, of_folder, read_index
from converters.checkpoint.reader import CHUNK_SIZE, open_checkpoint
from converters.checkpoint.source_file import Closing
from converters.checkpoint.values import JoinedTensor
from converters.errors import InputError
from regnet.files.safetensors_file import require_indexed, unindexed

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from converters.checkpoint.reader import Checkpoint
    from converters.checkpoint.source_file import SourceFile, Stamp
    from converters.checkpoint.values import StoredTensor, Tree

_STALE = "named like a shard, but not by the index"

_MAX_OPEN = 128
"""Files held open at once; a system may allow no more than 256."""


class SeveralFiles(Closing):
    """Open files that are one checkpoint; what it holds is up to the subclass.

    Attributes are those of :class:`Checkpoint`, of all files together, in the order they were
    opened; ``path`` is what the user named.
    """

    container = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.beside = Beside()
        self.tree: Tree = {}
        self.size = 0
        self.stamps: dict[Path, Stamp] = {}
        self._open: OrderedDict[Path, Checkpoint] = OrderedDict()

    def chunks(self, tensor: StoredTensor, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield a tensor's bytes; see :meth:`Checkpoint.chunks`."""
        for part in tensor.parts:
            yield from self._file(part.storage.path).chunks(part, chunk_size)

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor as an array; see :meth:`Checkpoint.array`."""
        import numpy as np

        if not isinstance(tensor, JoinedTensor):
            return self._file(tensor.storage.path).array(tensor)
        pieces = [self._file(piece.storage.path).array(piece) for piece in tensor.pieces]
        return np.concatenate(pieces).reshape(tensor.shape)

    def verify(self, tensor: StoredTensor) -> None:
        """Check the storages of a tensor; see :meth:`Checkpoint.verify`."""
        for part in tensor.parts:
            self._file(part.storage.path).verify(part)

    def source_file(self, path: Path) -> SourceFile:
        """Return one of the files, open until another one is asked for."""
        return self._file(path).source_file(path)

    def close(self) -> None:
        """Close every file."""
        while self._open:
            self._open.popitem()[1].close()

    def _add(self, path: Path) -> Checkpoint:
        """Open one file more, which was not opened before."""
        return self._keep(open_checkpoint(path))

    def _keep(self, checkpoint: Checkpoint) -> Checkpoint:
        """Take over an open file."""
        self.stamps |= checkpoint.stamps
        self.size += checkpoint.size
        return self._hold(checkpoint)

    def _hold(self, checkpoint: Checkpoint) -> Checkpoint:
        """Hold a file open; of too many, the one unused for longest is closed."""
        self._open[checkpoint.path] = checkpoint
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()
        return checkpoint

    def _file(self, path: Path) -> Checkpoint:
        """One of the files, opened again if there were too many."""
        if path not in self._open:
            self._hold(open_checkpoint(path)).source_file(path).require_stamp(self.stamps[path])
        self._open.move_to_end(path)
        return self._open[path]


class CheckpointFolder(SeveralFiles):
    """An open folder as Hugging Face's libraries write it; reads like a `Checkpoint`.

    Args:
        path: What the user named: the folder, or a file in it.
        index: The index of the shards, where it is the file or names it; None looks for it.

    Attributes:
        tree: The tensors of all weights files, by name.
        beside: What the folder says, and which files that are named like its shards were not read.
    """

    container = "folder"

    def __init__(self, path: Path, index: Path | None = None) -> None:
        super().__init__(path)
        beside = of_folder(index.parent if index else path)
        found = index or _weights_of(path)
        is_index = found.suffix == ".json"
        shards = read_index(found) if is_index else {found.name: set()}
        with self.closed_on_error():
            opened = [self._add(found.with_name(name)) for name in shards]
            self.tree = self._merged(opened)
            if is_index:
                _require_indexed(found, shards, opened)
            ignored = dict.fromkeys(unindexed(found.parent, shards), _STALE)
            self.beside = replace(beside, ignored=ignored)

    @staticmethod
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
