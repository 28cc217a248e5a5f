"""Several files that are one checkpoint: shards, or a folder with its configuration."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from converters.checkpoint.reader import CHUNK_SIZE, open_checkpoint
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from types import TracebackType

    import numpy as np

    from converters.checkpoint.reader import Checkpoint
    from converters.checkpoint.values import StoredTensor, Tree

_MAX_JSON = 20_000_000
_SINGLE = ("model.safetensors", "pytorch_model.bin", "open_clip_model.safetensors")
_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


class CheckpointFolder:
    """An open folder as Hugging Face's libraries write it; reads like a `Checkpoint`.

    Attributes:
        path: The folder.
        container: ``folder``.
        size: Of the weights files together, in bytes.
        tree: The tensors of all weights files, by name.
        config: The content of ``config.json``; empty if there is none.
        preprocessor: The content of ``preprocessor_config.json``; empty if there is none.
        files: The files that hold the weights.
    """

    container = "folder"

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = _read_json(path / "config.json")
        self.preprocessor = _read_json(path / "preprocessor_config.json")
        self.tree: Tree = {}
        self.size = 0
        self.files: tuple[Path, ...] = ()
        self._stack = ExitStack()
        self._files: dict[Path, Checkpoint] = {}
        try:
            for file in _weight_files(path):
                self._add(file)
        except BaseException:
            self._stack.close()
            raise

    def _add(self, path: Path) -> None:
        checkpoint = self._stack.enter_context(open_checkpoint(path))
        if not isinstance(checkpoint.tree, dict) or not isinstance(self.tree, dict):
            raise InputError(f"{path.name}: holds no tensors by name; give a state dict.")
        repeated = self.tree.keys() & checkpoint.tree.keys()
        if repeated:
            raise InputError(f"{path.name}: repeats {min(map(str, repeated))} of another shard.")
        self.tree.update(checkpoint.tree)
        self.size += checkpoint.size
        self._files[checkpoint.path] = checkpoint
        self.files = (*self.files, path)

    def chunks(self, tensor: StoredTensor, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield a tensor's bytes; see :meth:`Checkpoint.chunks`."""
        return self._files[tensor.storage.path].chunks(tensor, chunk_size)

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor as an array; see :meth:`Checkpoint.array`."""
        return self._files[tensor.storage.path].array(tensor)

    def close(self) -> None:
        """Close every file."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


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
    missing = [name for name in names if not (index.parent / name).is_file()]
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
    except (OSError, ValueError) as error:
        raise InputError(f"{path.name}: cannot be read as JSON; restore the file.") from error
    if not isinstance(value, dict):
        raise InputError(f"{path.name}: is no JSON object; restore the file.")
    return value
