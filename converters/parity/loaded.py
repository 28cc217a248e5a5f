"""A checkpoint's tensors as torch or the safetensors library themselves load them.

What a folder is judged by may not come from the reader that it was converted with: a fault of that
reader would be in both. So where that is safe, the file is loaded once more by its own library, and
a tensor is what lies there at the same place. Safe is what runs no code: safetensors, and what
``torch.load(weights_only=True)`` takes after our own audit has found nothing that runs.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Protocol

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.checkpoint.distributed import DISTRIBUTED
from converters.checkpoint.lists import LISTS
from converters.checkpoint.security import inspect_security
from converters.errors import ConversionError, printable
from converters.formats.memory import MemoryShortError, require_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator
    from pathlib import Path

    import numpy as np
    from torch import Tensor

    from converters.checkpoint import Checkpoint

_BITS = {2: "uint16", 1: "uint8"}
"""What takes the place of floats that NumPy lacks, by their size in bytes."""


class Tensors(Protocol):
    """Gives the elements of a checkpoint's tensors."""

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor; see :meth:`converters.checkpoint.reader.Checkpoint.array`."""
        ...


class NotLoadedError(Exception):
    """Why a checkpoint is not loaded by its own library, as a clause about it."""


class ReadingError(Exception):
    """What its own library finds in a checkpoint is another tensor than our reader does."""


class LoadedTensors:
    """The tensors of a checkpoint, looked up where its own library has put them.

    Args:
        checkpoint: As our reader opened it; its tensors are what is asked for.

    Raises:
        NotLoadedError: Its own library cannot load it, or not safely.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        if checkpoint.container in LISTS:
            raise NotLoadedError("it is a list of files, which no library loads as one")
        if checkpoint.container == DISTRIBUTED:
            raise NotLoadedError("it is in pieces, which torch loads into a network alone")
        self._stored = {
            _place(tensor): (path, tensor) for path, tensor in _walk(checkpoint.tree, ())
        }
        self._files = {path: _loader(path) for path in checkpoint.stamps}

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor as its own library loads it; see :class:`Tensors`.

        Raises:
            ReadingError: It finds none there, or one of another type or shape.
        """
        path, stored = self._stored[_place(tensor)]
        name = printable(".".join(map(str, path)))
        found: Any = self._files[tensor.storage.path](path)
        if found is None:
            raise ReadingError(f"its own library finds no tensor {name} in it")
        dtype, shape = str(found.dtype).removeprefix("torch."), tuple(found.shape)
        if (dtype, shape) != (stored.dtype, stored.shape):
            raise ReadingError(
                f"its own library finds {name} to be {dtype} of shape {list(shape)}, and not "
                f"{stored.dtype} of shape {list(stored.shape)}"
            )
        return _array(found.permute(_axes(stored, tensor)))


def _place(tensor: StoredTensor) -> Hashable:
    """What a stored tensor has in common with itself under axes of another order."""
    axes = sorted(zip(tensor.shape, tensor.stride, strict=True))
    return tensor.dtype, tensor.storage, tensor.storage_offset, tuple(axes)


def _axes(stored: StoredTensor, asked: StoredTensor) -> list[int]:
    """Which axis of the tensor as it is stored is each of those asked for."""
    left = list(enumerate(zip(stored.shape, stored.stride, strict=True)))
    found = []
    for wanted in zip(asked.shape, asked.stride, strict=True):
        axis = next(entry for entry in left if entry[1] == wanted)
        left.remove(axis)
        found.append(axis[0])
    return found


def _walk(
    tree: object, path: tuple[Hashable, ...]
) -> Iterator[tuple[tuple[Hashable, ...], StoredTensor]]:
    """Every tensor, and the keys and indices that lead to it."""
    if isinstance(tree, StoredTensor):
        yield path, tree
        return
    if isinstance(tree, dict):
        members: Any = tree.items()
    else:
        members = enumerate(tree) if isinstance(tree, list | tuple) else ()
    for key, value in members:
        yield from _walk(value, (*path, key))


def _loader(path: Path) -> Callable[[tuple[Hashable, ...]], Tensor | None]:
    """Load a file; give what finds a tensor in it."""
    with open_checkpoint(path) as checkpoint:
        container, size = checkpoint.container, checkpoint.size
    if container == "safetensors":
        from safetensors import safe_open

        file: Any = safe_open(path, "pt")
        names = set(file.keys())
        return lambda keys: file.get_tensor(keys[0]) if keys[0] in names else None
    if container in {"keras", "hdf5", "msgpack"}:
        raise NotLoadedError(f"it is {container}, which torch does not load")
    return _found_in(_load(path, size, mapped=container == "zip"))


def _load(path: Path, size: int, *, mapped: bool) -> object:
    import torch

    try:
        if not mapped:
            require_memory(2 * size)
        inspect_security(path).require_harmless()
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except MemoryShortError as error:
        raise NotLoadedError(str(error)) from error
    except ConversionError as error:
        raise NotLoadedError("it holds objects that only code can build") from error
    except Exception as error:
        raise NotLoadedError("torch.load(weights_only=True) refuses it") from error


def _found_in(loaded: object) -> Callable[[tuple[Hashable, ...]], Tensor | None]:
    import torch

    def find(keys: tuple[Hashable, ...]) -> Tensor | None:
        value: Any = loaded
        try:
            for key in keys:
                value = value[key]
        except (LookupError, TypeError):
            return None
        return value.detach() if isinstance(value, torch.Tensor) else None

    return find


def _array(tensor: Tensor) -> np.ndarray:
    """Elements in C order; floats that NumPy lacks as the integers of their bits."""
    import torch

    dense = tensor.contiguous()
    lacking = dense.dtype is torch.bfloat16 or "float8" in str(dense.dtype)
    return (dense.view(getattr(torch, _BITS[dense.itemsize])) if lacking else dense).numpy().copy()
