"""VISSL's lists: a small file that names the files in which the network's pieces lie.

Source: VISSL ``utils/checkpoint.py``. A ``shard_list`` names one file per process of the training
run, each with a piece of every parameter; a ``slice_list`` names one file per parameter, by the
absolute path it had when it was written. Both kinds are looked for beside the list.

It is fairscale's FSDP that cuts parameters into shards. Source: fairscale 0.4.13
``fully_sharded_data_parallel.py``, `local_metadata_dict` and `consolidate_shard_weights`. Each
process saves a flat piece of every parameter, padded at the end so that all are equally long;
several parameters may share a flat one. Buffers are whole in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import PureWindowsPath
from typing import TYPE_CHECKING, Any

from converters.checkpoint.values import StoredTensor, cut, join
from converters.errors import InputError, printable
from regnet.files.reading import is_inside
from regnet.files.safetensors_file import is_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint.reader import Checkpoint
    from converters.checkpoint.values import Tree

LISTS = frozenset({"shard_list", "slice_list"})
"""Kinds, as a list says it of itself."""

_MAX_DEPTH = 8


def complete(checkpoint: Checkpoint) -> bool:
    """Open the files of a list as well, so that it holds the whole network; False if it is none.

    Its tree is then as a consolidated checkpoint has it; of shards, only the model.

    Raises:
        ConversionError: It is one of the files that such a list names; or a file is missing, cannot
            be opened, or does not fit the others.
    """
    content: Any = checkpoint.tree
    kind = content.get("type") if isinstance(content, dict) else None
    name = checkpoint.path.name
    if isinstance(kind, str) and kind in {"shard", "slice"}:
        raise InputError(
            f"{name}: is one {kind} of a network; give the {kind}_list file that VISSL wrote "
            f"beside its {kind}s."
        )
    if not isinstance(kind, str) or kind not in LISTS:
        return False
    checkpoint.container = kind
    if kind == "slice_list":
        checkpoint.tree = _filled(checkpoint, content, 0)
        return True
    names = content.get("shards")
    if not isinstance(names, list) or not names:
        raise InputError(f"{name}: is a shard_list that names no shards; restore it.")
    shards = [_base_model(_open_beside(checkpoint, shard)) for shard in names]
    models = [_at(shard, "model") for shard in shards]
    notes = [_at(shard, "meta") for shard in shards]
    model = {
        part: _joined([_at(m, part) for m in models], [_at(n, part) for n in notes], name)
        for part in models[0]
    }
    checkpoint.tree = {"classy_state_dict": {"base_model": {"model": model}}}
    return True


def _base_model(shard: Checkpoint) -> Any:
    base_model = _at(_at(shard.tree, "classy_state_dict"), "base_model")
    if not isinstance(_at(base_model, "model"), dict):
        raise InputError(
            f"{shard.path.name}: holds no classy_state_dict.base_model.model, as a shard of "
            "VISSL does; complete the download."
        )
    return base_model


def _joined(pieces: Sequence[Any], notes: Sequence[Any], where: str) -> Any:
    """The trunk, or the heads, which may be a list of modules that FSDP wrapped one by one."""
    if not isinstance(pieces[0], list):
        return _whole(pieces, notes, where)
    return [
        _whole([_at(piece, index) for piece in pieces], [_at(n, index) for n in notes], where)
        for index in range(len(pieces[0]))
    ]


def _whole(pieces: Sequence[Any], notes: Sequence[Any], where: str) -> Any:
    """A module; what FSDP did not wrap has no metadata, and every shard holds all of it."""
    return consolidate(pieces, notes, where) if notes[0] else pieces[0]


def _filled(checkpoint: Checkpoint, tree: Tree, depth: int) -> Tree:
    """The same tree with the tensor in the place of each file name."""
    if isinstance(tree, dict) and depth < _MAX_DEPTH:
        return {
            key: value if key == "type" else _filled(checkpoint, value, depth + 1)
            for key, value in tree.items()
        }
    if isinstance(tree, list) and depth < _MAX_DEPTH:
        return [_filled(checkpoint, value, depth + 1) for value in tree]
    return _slice(_open_beside(checkpoint, tree)) if isinstance(tree, str) else tree


def _slice(part: Checkpoint) -> StoredTensor:
    weight = part.tree.get("weight") if isinstance(part.tree, dict) else None
    if not isinstance(weight, StoredTensor):
        raise InputError(
            f"{part.path.name}: holds no weight, as a slice of VISSL does; complete the download."
        )
    return weight


def _open_beside(checkpoint: Checkpoint, named: object) -> Checkpoint:
    """Open a file that a list names, wherever it lay when the list was written."""
    place = PureWindowsPath(str(named))  # takes either slash
    parts = place.parts[1 if place.anchor else 0 :][-2:]
    folder, name = checkpoint.path.parent, checkpoint.path.name
    if is_inside("/".join(parts)):
        for path in (folder / parts[-1], folder.joinpath(*parts)):
            if path in checkpoint.stamps:
                raise InputError(f"{name}: names {printable(parts[-1])!r} twice; restore the list.")
            if is_file(path):
                return checkpoint.add(path)
    raise InputError(
        f"{name}: {printable(parts[-1] if parts else '')!r}, which it names, is not beside it; "
        "complete the download."
    )


def _at(tree: Any, key: Any) -> Any:
    """What a branch holds, or None where a shard lacks it."""
    if isinstance(tree, dict):
        return tree.get(key)
    return tree[key] if isinstance(tree, list) and len(tree) > key else None


def consolidate(
    shards: Sequence[Mapping[Any, Tree]], metadata: Sequence[Mapping[Any, Any]], where: str
) -> dict[str, StoredTensor]:
    """Find each whole parameter and buffer of a module in its shards.

    Args:
        shards: Each process's state dict, in the order of ranks; at least one.
        metadata: What FSDP noted about each.
        where: What error messages call the checkpoint.

    Returns:
        Name to tensor, parameters before buffers, which come from the first shard.

    Raises:
        InputError: If metadata and shards do not fit each other.
    """
    try:
        return _Consolidation(shards, metadata, where).tensors()
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise InputError(
            f"{where}: the metadata of its shards is not FSDP's ({type(error).__name__}: "
            f"{printable(str(error))}); save the checkpoint again with VISSL."
        ) from error


@dataclass(frozen=True)
class _Consolidation:
    """One run of :func:`consolidate`; what is not as FSDP writes it ends in a lookup error."""

    shards: Sequence[Mapping[Any, Any]]
    metadata: Sequence[Mapping[Any, Any]]
    where: str

    def tensors(self) -> dict[str, StoredTensor]:
        found: dict[str, StoredTensor] = {}
        aliases: dict[str, str] = {}
        read: set[str] = set(self.metadata[0]["buffer_names"])
        for index, wrapped in enumerate(self.metadata[0]["param_metadata"]):
            path = f"{wrapped['fsdp_path']}." if wrapped["fsdp_path"] else ""
            for flat_name in wrapped["params"]:
                read.add(path + flat_name)
                found |= self._parameters(index, path, flat_name)
            aliases |= {new: old for old, new in wrapped["shared_param_info"]}
        found |= {new: found[old] for new, old in aliases.items()}
        unread = [name for name in self.shards[0] if name not in read]
        if unread:
            raise InputError(
                f"{self.where}: its shards hold {printable(str(unread[0]))}, which their metadata "
                "does not name; save the checkpoint again with VISSL."
            )
        buffers = self.metadata[0]["buffer_names"]
        return found | {name: _tensor(self.shards[0][name]) for name in buffers}

    def _parameters(self, index: int, path: str, flat_name: str) -> dict[str, StoredTensor]:
        """The parameters that lie one behind another in a flat one of the index-th wrapper."""
        wrapped = self.metadata[0]["param_metadata"][index]
        # A wrapper whose group is a single process keeps its parameters whole, in every shard.
        ranks = 1 if wrapped["no_broadcast_optim_state"] else len(self.shards)
        pieces = [self._piece(rank, index, path, flat_name) for rank in range(ranks)]
        stated = wrapped["params"][flat_name]
        shapes = [tuple(map(int, shape)) for shape in stated["shapes"]]
        total = sum(piece.numel for piece in pieces)
        if sum(map(prod, shapes)) != total or len({piece.dtype for piece in pieces}) != 1:
            raise InputError(
                f"{self.where}: the shards' pieces of {printable(path + flat_name)} have {total} "
                "elements together, which is not what their metadata says; complete the download."
            )
        found, start = {}, 0
        for name, shape in zip(stated["names"], shapes, strict=True):
            found[path + name] = join(cut(pieces, start, prod(shape)), shape)
            start += prod(shape)
        return found

    def _piece(self, rank: int, index: int, path: str, flat_name: str) -> StoredTensor:
        """One process's piece, without its padding."""
        piece = _tensor(self.shards[rank][path + flat_name])
        params = self.metadata[rank]["param_metadata"][index]["params"]
        (length,) = piece.shape
        if not piece.is_contiguous:
            raise ValueError(f"{path + flat_name} has gaps")
        return cut([piece], 0, length - int(params[flat_name]["padding"]))[0]


def _tensor(value: object) -> StoredTensor:
    if not isinstance(value, StoredTensor):
        raise TypeError(f"{type(value).__name__} where a tensor is expected")
    return value
