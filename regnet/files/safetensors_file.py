"""The safetensors files of a folder: which they are, mapping them, and writing them.

The index says which files hold the weights, never their names. A file is eight bytes little-endian
header length, a JSON header (name, dtype, shape, offsets), then the raw tensors without gaps.

The safetensors library maps a file for torch as memory to be written to, for which Linux reserves
room: it refuses one that is larger than the machine's memory. Here nothing is reserved; pages come
in as they are used, and only what is written to takes memory. To write a file, the library wants
every tensor in memory, shuffles its metadata and lets only the owner read what it wrote; this
writer streams, needs no torch, and its files are byte-identical from run to run.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from regnet.files.dtypes import ELEMENT_TYPES, OF_SAFETENSORS, item_size
from regnet.files.reading import is_bare, json_object
from regnet.files.system import private_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable, Mapping, Sequence
    from mmap import mmap
    from pathlib import Path

    from torch import Tensor

    Buffer = bytes | bytearray | memoryview

WEIGHTS_NAME = "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
SHARD_PATTERN = "model-*-of-*.safetensors"
LENGTH_SIZE = 8
"""Bytes that say how long the header is, little-endian."""

METADATA_KEY = "__metadata__"
"""What of the header is no tensor."""

TORCH = "pt"
"""What transformers requires a file to say that it was made for."""

_ALIGNMENT = 8

_UNITS = {"": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Name, dtype (torch's name of it) and shape of a tensor to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * item_size(self.dtype)


@dataclass(frozen=True, slots=True)
class Shard:
    """One file of a checkpoint."""

    file_name: str
    specs: tuple[TensorSpec, ...]


def in_file_order(specs: Iterable[TensorSpec]) -> list[TensorSpec]:
    """Order of the data in a file: widest dtype first, so that every tensor is aligned.

    Within a dtype tensors stay in the order given. The safetensors library sorts them by name; the
    order of a state dict, which checkpoints have too, lets a conversion read from front to back.
    """
    ranks = {dtype: rank for rank, dtype in enumerate(ELEMENT_TYPES)}
    return sorted(specs, key=lambda spec: ranks[spec.dtype])


def header_bytes(specs: Sequence[TensorSpec], made_for: str = TORCH) -> bytes:
    """The header of a file that holds ``specs`` in this order, padded to eight bytes."""
    entries: dict[str, object] = {METADATA_KEY: {"format": made_for}}
    offset = 0
    for spec in specs:
        end = offset + spec.nbytes
        entries[spec.name] = {
            "dtype": ELEMENT_TYPES[spec.dtype].safetensors,
            "shape": list(spec.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(LENGTH_SIZE, "little") + text


def write_file(
    path: Path,
    specs: Iterable[TensorSpec],
    data: Callable[[TensorSpec], Iterable[Buffer]],
    made_for: str = TORCH,
) -> None:
    """Write one safetensors file in a single pass.

    Args:
        path: Created or replaced, with the mode that the umask gives.
        specs: The tensors; :func:`in_file_order` says how they are laid out.
        data: Gives a tensor's bytes, row-major and little-endian, in chunks of any size; called
            once per tensor, in the order of the file.
        made_for: Whose the file says that it is.

    Raises:
        ValueError: If a tensor's chunks are more or fewer bytes than its shape says.
        OSError: If the file cannot be written.
    """
    ordered = in_file_order(specs)
    with path.open("wb") as file:
        file.write(header_bytes(ordered, made_for))
        for spec in ordered:
            written = 0
            for chunk in data(spec):
                file.write(chunk)
                written += memoryview(chunk).nbytes
            if written != spec.nbytes:
                raise ValueError(f"{spec.name} gave {written} bytes where {spec.nbytes} belong.")


def parse_size(text: str | int) -> int:
    """Read ``"5GB"``, ``"500 MiB"`` or a number as bytes.

    Raises:
        ValueError: If it is no size.
    """
    match = re.fullmatch(r"(\d+)\s*([A-Za-z]*)", str(text).strip())
    if not match or match[2].upper() not in _UNITS or int(match[1]) == 0:
        raise ValueError(f"{text!r} is not a size; write for example 5GB or 500MB.")
    return int(match[1]) * _UNITS[match[2].upper()]


def plan_shards(specs: Iterable[TensorSpec], max_shard_size: int | None = None) -> list[Shard]:
    """Distribute tensors over files, greedily and in order, under transformers' file names.

    Args:
        specs: In the order of the state dict.
        max_shard_size: In bytes; a larger tensor gets a file of its own, between those of its
            neighbours, which stay together (huggingface_hub's rule). None for one file.
    """
    limit = math.inf if max_shard_size is None else max_shard_size
    groups: list[list[TensorSpec]] = []
    current: list[TensorSpec] = []
    size = 0
    for spec in specs:
        if spec.nbytes > limit:
            groups.append([spec])
            continue
        if size + spec.nbytes > limit:
            groups.append(current)
            current, size = [], 0
        current.append(spec)
        size += spec.nbytes
    if current or not groups:
        groups.append(current)
    if len(groups) == 1:
        return [Shard(WEIGHTS_NAME, tuple(groups[0]))]
    return [
        Shard(f"model-{number:05d}-of-{len(groups):05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, start=1)
    ]


def index_json(shards: Sequence[Shard], buffers: tuple[str, ...]) -> str:
    """Text of ``model.safetensors.index.json``: which tensor lies in which shard.

    As in transformers, ``total_size`` counts every byte, ``total_parameters`` only what is learned.

    Args:
        shards: All files of the network.
        buffers: How the names of what is measured instead of learned end.
    """
    specs = [spec for shard in shards for spec in shard.specs]
    weight_map = {spec.name: shard.file_name for shard in shards for spec in shard.specs}
    metadata = {
        "total_parameters": sum(
            math.prod(spec.shape) for spec in specs if not spec.name.endswith(buffers)
        ),
        "total_size": sum(spec.nbytes for spec in specs),
    }
    index = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    return json.dumps(index, indent=2) + "\n"


def weight_files(folder: Path) -> list[Path]:
    """List the files that `from_pretrained` reads: ``model.safetensors``, else the index's shards.

    Args:
        folder: Of a converted network, or as transformers writes it.

    Raises:
        FileNotFoundError: If there is neither, or a shard is missing.
        ValueError: If the index cannot be used.
    """
    if (folder / WEIGHTS_NAME).is_file():
        return [folder / WEIGHTS_NAME]
    if not (folder / INDEX_NAME).is_file():
        raise FileNotFoundError(
            f"{folder} has neither {WEIGHTS_NAME} nor {INDEX_NAME}; convert the checkpoint with "
            "`regnet convert` first."
        )
    return [folder / name for name in shards_of(folder / INDEX_NAME)]


def shards_of(index: Path) -> dict[str, set[str]]:
    """Read an index.

    Args:
        index: ``model.safetensors.index.json``, or any of its form.

    Returns:
        The names of its files, sorted, each with the names of the tensors in it.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If it is no index, or names a file outside its folder.
    """
    placed = json_object(index).get("weight_map")
    if not isinstance(placed, dict) or not placed:
        raise ValueError(f"{index.name}: has no weight_map; the download is incomplete.")
    shards: dict[str, set[str]] = {}
    for tensor, name in placed.items():
        if not isinstance(name, str):
            raise ValueError(f"{index.name}: names no file for {tensor}; restore the file.")
        shards.setdefault(name, set()).add(tensor)
    outside = [name for name in shards if not is_bare(name)]
    if outside:
        raise ValueError(f"{index.name}: names a file outside its folder ({outside[0]!r}).")
    missing = [name for name in sorted(shards) if not is_file(index.parent / name)]
    if missing:
        raise FileNotFoundError(
            f"{index.name}: {len(missing)} of {len(shards)} shards are missing, first "
            f"{missing[0]!r}; complete the download."
        )
    return dict(sorted(shards.items()))


def require_indexed(
    index: Path, shards: Mapping[str, set[str]], held: Mapping[str, Iterable[str]]
) -> None:
    """Check that shards hold what their index says, all of it and nothing else.

    Programs differ in which of the two they go by.

    Args:
        index: For messages.
        shards: What it says; see :func:`shards_of`.
        held: The names of the tensors in each file.

    Raises:
        ValueError: If it does not.
    """
    for name, stated in shards.items():
        different = sorted(stated ^ set(held[name]))
        if different:
            where = (
                "is not in" if different[0] in stated else "is named elsewhere or nowhere but in"
            )
            raise ValueError(
                f"{index.name}: {different[0]} {where} {name}; index and shards are not of one "
                "download, fetch the folder again."
            )


def unindexed(folder: Path, read: Container[str]) -> list[str]:
    """List files that are named like shards of the weights and are none of those ``read``."""
    return sorted(path.name for path in folder.glob(SHARD_PATTERN) if path.name not in read)


def is_file(path: Path) -> bool:
    """Whether a file is there; of a name that no file can have, that it is not."""
    try:
        return path.is_file()
    except (OSError, ValueError):
        return False


def load_tensors(folder: Path) -> dict[str, Tensor]:
    """Map the tensors of a folder's safetensors file or shards.

    Args:
        folder: With ``model.safetensors``, or ``model.safetensors.index.json`` and its shards.

    Returns:
        Name to CPU tensor, in the shape and dtype that is stored and the order of the files'
        headers; writing to one does not change the file. Where a file puts a tensor at no multiple
        of its item size, it is a copy.

    Raises:
        FileNotFoundError: If a file is missing.
        ValueError: If a file is no safetensors file or is cut off.
    """
    held = {path.name: map_tensors(path) for path in weight_files(folder)}
    if WEIGHTS_NAME not in held:
        require_indexed(folder / INDEX_NAME, shards_of(folder / INDEX_NAME), held)
    return {name: tensor for tensors in held.values() for name, tensor in tensors.items()}


def map_tensors(path: Path) -> dict[str, Tensor]:
    """Map the tensors of one file; see :func:`load_tensors`."""
    from safetensors import safe_open

    try:
        # The library proves the header: well formed, without gaps, as long as the file.
        with safe_open(path, framework="np"), path.open("rb") as file:
            length = int.from_bytes(file.read(LENGTH_SIZE), "little")
            header: dict[str, Any] = json.loads(file.read(length))
            memory = private_memory(file)
        header.pop(METADATA_KEY, None)
        start = LENGTH_SIZE + length
        return {name: _tensor(memory, start, **entry) for name, entry in header.items()}
    except FileNotFoundError:
        raise FileNotFoundError(f"{path} is missing; the folder is incomplete.") from None
    except Exception as error:  # safetensors raises classes of its own
        raise ValueError(f"{path} is not a readable safetensors file ({error}).") from error


def _tensor(
    memory: mmap | bytearray, start: int, *, dtype: str, shape: list[int], data_offsets: list[int]
) -> Tensor:
    import torch

    kind = getattr(torch, OF_SAFETENSORS[dtype])
    count = math.prod(shape)
    if count == 0:  # torch maps no memory of length zero
        return torch.empty(shape, dtype=kind)
    offset = start + data_offsets[0]
    tensor = torch.frombuffer(memory, dtype=kind, count=count, offset=offset).view(shape)
    return tensor.clone() if offset % tensor.itemsize else tensor
