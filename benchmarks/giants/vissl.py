"""VISSL's three kinds of checkpoint, without running VISSL.

Source: VISSL ``utils/checkpoint.py``; fairscale ``fully_sharded_data_parallel.py`` for the pieces
that each process of a training run saves and what is noted about them. Pieces are as in the run of
the 10B network, whose parameters were not joined before they were cut (``flatten_parameters``).
"""

from __future__ import annotations

import hashlib
import math
import re
from collections import OrderedDict
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, cast

from converters.families.vissl import VISSL
from regnet.architecture import BUFFER_LEAVES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from benchmarks.giants.content import Part
    from converters.families.family import Network

    Parts = OrderedDict[str, Part]

_HEAD = VISSL.rows["classifier"].partition(".")[0] + "."
_BLOCK = re.compile(
    r"_feature_blocks\.res\d+\.(?:block\d+-part\d+\.)?block(?P<stage>\d+)-(?P<block>\d+)"
)
_TRAINING_FOLDER = PurePosixPath("/checkpoint/seer")
"""Where the files lay when the list was written; readers look beside the list."""


def write_consolidated(
    path: Path, network: Network, *, parts: Sequence[Sequence[int]], ranks: int
) -> None:
    """Write one file, as VISSL's script makes of shards."""
    del ranks
    trunk, heads = _trunk_and_heads(network, parts)
    network.save(path, _checkpoint("consolidated", {"trunk": trunk, "heads": heads}))


def write_slices(
    path: Path, network: Network, *, parts: Sequence[Sequence[int]], ranks: int
) -> None:
    """Write a file per tensor, and the list of them."""
    del ranks
    folder = path.with_name(f"{path.stem}_layers")
    folder.mkdir(exist_ok=True)
    branches: dict[str, Any] = {}
    for branch, tensors in zip(("trunk", "heads"), _trunk_and_heads(network, parts), strict=True):
        branches[branch] = {}
        for name, part in tensors.items():
            file = f"{hashlib.sha1(name.encode()).hexdigest()}.torch"  # noqa: S324 -- VISSL's choice
            network.save(folder / file, {"type": "slice", "weight": part})
            branches[branch][name] = str(_TRAINING_FOLDER / folder.name / file)
    network.save(path, _checkpoint("slice_list", branches))


def write_shards(
    path: Path, network: Network, *, parts: Sequence[Sequence[int]], ranks: int
) -> None:
    """Write a file per process, and the list of them."""
    trunk, heads = _trunk_and_heads(network, parts)
    heads = OrderedDict((name.removeprefix(_HEAD), part) for name, part in heads.items())
    names = [f"{path.stem}_shard{rank}{path.suffix}" for rank in range(ranks)]
    for rank, name in enumerate(names):
        model = {"trunk": _pieces(trunk, rank, ranks), "heads": [_pieces(heads, rank, ranks)]}
        meta = {"trunk": _notes(trunk, rank, ranks), "heads": [_notes(heads, rank, ranks)]}
        network.save(path.with_name(name), _checkpoint("shard", model, meta))
    network.save(path, {"type": "shard_list", "shards": names})


WRITERS: dict[str, Callable[..., None]] = {
    "consolidated": write_consolidated,
    "shards": write_shards,
    "slices": write_slices,
}
"""Layout to its writer."""


def _checkpoint(kind: str, model: dict[str, Any], meta: Any = None) -> dict[str, Any]:
    base_model = {"model": model, **({"meta": meta} if meta else {})}
    return {"type": kind, "classy_state_dict": {"base_model": base_model}}


def _trunk_and_heads(network: Network, parts: Sequence[Sequence[int]]) -> tuple[Parts, Parts]:
    trunk: Parts = OrderedDict()
    heads: Parts = OrderedDict()
    for name, part in cast("Parts", network.state_dict()).items():
        if name.startswith(_HEAD):
            heads[name] = part
        else:
            trunk[in_part(name, parts)] = part
    return trunk, heads


def in_part(name: str, parts: Sequence[Sequence[int]]) -> str:
    """Give the name of a tensor in the second version of the trunk, whose stages are cut.

    Args:
        name: In the first version.
        parts: Of each stage, the blocks before which it is cut; a last cut at its end is no cut.
            Nothing for the first version.
    """
    match = _BLOCK.match(name)
    if not (parts and match):
        return name
    stage, block = int(match["stage"]), int(match["block"])
    part = sum(end <= block for end in parts[stage - 1])
    return name.replace(f".block{stage}-", f".block{stage}-part{part}.block{stage}-", 1)


def _pieces(tensors: Parts, rank: int, ranks: int) -> Parts:
    """What one process saves: a piece of every parameter, all of every buffer."""
    return OrderedDict(
        (name, part if name.endswith(BUFFER_LEAVES) else _piece(part, rank, ranks))
        for name, part in tensors.items()
    )


def _piece(part: Part, rank: int, ranks: int) -> Part:
    length = math.ceil(part.stored.numel / ranks)
    stored = replace(part.stored, shape=(length,), stride=(1,))
    return replace(part, stored=stored, start=rank * length)


def _notes(tensors: Parts, rank: int, ranks: int) -> dict[str, Any]:
    """What FSDP notes about one process's pieces, wrapper by wrapper."""
    wrappers: dict[str, dict[str, Any]] = {}
    for name, part in tensors.items():
        if not name.endswith(BUFFER_LEAVES):
            path = _wrapper(name, tensors)
            inner = name.removeprefix(f"{path}.")
            wrappers.setdefault(path, {})[inner] = {
                "names": [inner],
                "shapes": [part.stored.shape],
                "numels": [part.stored.numel],
                "padding": _padding(part.stored.numel, rank, ranks),
            }
    metadata = [
        {
            "fsdp_path": path,
            "params": params,
            "no_broadcast_optim_state": False,
            "shared_param_info": [],
        }
        for path, params in wrappers.items()
    ]
    buffers = [name for name in tensors if name.endswith(BUFFER_LEAVES)]
    return {"param_metadata": metadata, "buffer_names": buffers}


def _wrapper(name: str, tensors: Iterable[str]) -> str:
    """The module that FSDP wrapped around a parameter: its batch norm, its block, or all."""
    path = name.rpartition(".")[0]
    if f"{path}.running_mean" in tensors:
        return path
    block = _BLOCK.match(name)
    return block[0] if block else ""


def _padding(numel: int, rank: int, ranks: int) -> int:
    """How many elements of a process's piece lie behind the end of the parameter."""
    length = math.ceil(numel / ranks)
    return min(length, max(0, (rank + 1) * length - numel))
