"""Several files that are one checkpoint; a folder of Hugging Face's libraries is such."""

from __future__ import annotations

import json
from collections import OrderedDict
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from converters.checkpoint.joined import JoinedTensor
from converters.checkpoint.reader import CHUNK_SIZE, open_checkpoint
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Sequence
    from pathlib import Path

    import numpy as np

    from converters.checkpoint.reader import Checkpoint
    from converters.checkpoint.source_file import SourceFile, Stamp
    from converters.checkpoint.values import StoredTensor, Tree

_MAX_OPEN = 128
"""Files held open at once; a system may allow no more than 256."""

_MAX_JSON = 5_000_000
"""In bytes, of which Python makes 200 MB; the names of 21,000 classes take one."""

_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class SeveralFiles:
    """Open files that are one checkpoint; what it holds is up to the subclass.

    Attributes:
        path: What the user named.
        container: How the files are laid out.
        size: Of the files together, in bytes.
        tree: What they hold together.
        config: Empty, unless there is a ``config.json``.
        preprocessor: Likewise of ``preprocessor_config.json``.
        stamps: By file, in the order they were opened; see :class:`SourceFile`.
    """

    container = ""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config: dict[str, Any] = {}
        self.preprocessor: dict[str, Any] = {}
        self.tree: Tree = {}
        self.size = 0
        self.stamps: dict[Path, Stamp] = {}
        self._open: OrderedDict[Path, Checkpoint] = OrderedDict()

    @property
    def files(self) -> tuple[Path, ...]:
        """The files, in the order they were opened."""
        return tuple(self.stamps)

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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _add(self, path: Path) -> Checkpoint:
        """Open one file more."""
        checkpoint = open_checkpoint(path)
        self._keep(checkpoint)
        return checkpoint

    def _keep(self, checkpoint: Checkpoint) -> None:
        """Take over an open file."""
        path = checkpoint.path
        self._hold(checkpoint)
        if path not in self.stamps:
            self.stamps |= checkpoint.stamps
            self.size += checkpoint.size

    def _hold(self, checkpoint: Checkpoint) -> None:
        """Hold a file open; of too many, the one unused for longest is closed."""
        previous = self._open.pop(checkpoint.path, None)
        if previous is not None:
            previous.close()
        self._open[checkpoint.path] = checkpoint
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()

    def _file(self, path: Path) -> Checkpoint:
        """One of the files, opened again if there were too many."""
        if path not in self._open:
            self._hold(open_checkpoint(path))
            self._open[path].source_file(path).require_stamp(self.stamps[path])
        self._open.move_to_end(path)
        return self._open[path]

    @contextmanager
    def _closing_on_error(self) -> Iterator[None]:
        """Close what was opened if a constructor fails."""
        try:
            yield
        except BaseException:
            self.close()
            raise


class CheckpointFolder(SeveralFiles):
    """An open folder as Hugging Face's libraries write it; reads like a `Checkpoint`.

    Attributes:
        path: The folder.
        container: ``folder``.
        tree: The tensors of all weights files, by name.
        config: The content of ``config.json``; empty if there is none.
        preprocessor: The content of ``preprocessor_config.json``; empty if there is none.
    """

    container = "folder"

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.config = _read_json(path / "config.json")
        self.preprocessor = _read_json(path / "preprocessor_config.json")
        with self._closing_on_error():
            self.tree = self._merged([self._add(file) for file in _weight_files(path)])

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


def is_file(path: Path) -> bool:
    """Return whether a file is there; of a name that no file can have, that it is not."""
    try:
        return path.is_file()
    except OSError:
        return False


def _weight_files(folder: Path) -> Sequence[Path]:
    for name in _SINGLE:
        if (folder / name).is_file():
            return [folder / name]
    for name in _INDEXES:
        if (folder / name).is_file():
            return _shards(folder / name)
    raise InputError(
        f"{folder}: holds none of {', '.join((*_SINGLE[:2], *_INDEXES))}; give the checkpoint's "
        "file, or a folder that transformers or timm wrote."
    )


def _shards(index: Path) -> Sequence[Path]:
    weight_map = _read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise InputError(f"{index.name}: has no weight_map; the download is incomplete.")
    names = sorted({str(name) for name in weight_map.values()})
    outside = [name for name in names if "/" in name or "\\" in name or name in {".", ".."}]
    if outside:
        raise InputError(f"{index.name}: names a file outside its folder ({outside[0]!r}).")
    missing = [name for name in names if not is_file(index.parent / name)]
    if missing:
        raise InputError(
            f"{index.name}: {len(missing)} of {len(names)} shards are missing, first {missing[0]}; "
            "complete the download."
        )
    return [index.parent / name for name in names]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        text = path.read_text(encoding="utf-8") if path.stat().st_size <= _MAX_JSON else ""
        value = json.loads(text)
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path.name}: cannot be read as JSON; restore the file.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name}: is no JSON object; restore the file.")
    return value
