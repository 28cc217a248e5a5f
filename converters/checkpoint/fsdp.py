"""Putting together what fairscale's FSDP cut apart, from headers alone.

Source: fairscale 0.4.13 ``fully_sharded_data_parallel.py``, `local_metadata_dict` and
`consolidate_shard_weights`. Each process saves a flat piece of every parameter, padded at the end
so that all are equally long; several parameters may share a flat one. Buffers are whole in each.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from converters.checkpoint.values import StoredTensor, cut, join
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint.values import Tree


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
