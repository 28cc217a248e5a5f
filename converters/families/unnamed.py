"""Averaged weights without names: a list of what a network's ``parameters()`` gives, in its order.

That is the order of the state dict without its buffers. Source: torch_ema ``ema.py`` and diffusers
``training_utils.py`` (``state_dict`` of both), torch ``nn/modules/module.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.values import StoredTensor
from regnet.architecture import BATCH_NORM_LEAVES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.families.source import StateDict

LISTS = frozenset({"shadow_params", "collected_params"})
"""What the lists are called: of the averages, and of what a network had before it took them."""

_AVERAGES = "shadow_params"
_BUFFERS = frozenset(BATCH_NORM_LEAVES) - {"weight", "bias"}
_MAX_DEPTH = 8


def averages_in(
    tree: object, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], list[StoredTensor]]]:
    """Every list of averaged weights in a checkpoint, with the keys that lead to it."""
    if not isinstance(tree, dict) or len(path) > _MAX_DEPTH:
        return
    for key, value in tree.items():
        if key == _AVERAGES and isinstance(value, list | tuple) and value:
            tensors = [one for one in value if isinstance(one, StoredTensor)]
            if len(tensors) == len(value):
                yield (*path, key), tensors
        elif isinstance(key, str):
            yield from averages_in(value, (*path, key))


def placed(state: StateDict, path: tuple[str, ...], averages: Sequence[StoredTensor]) -> StateDict:
    """The state dict whose parameters are those of a list, and whose buffers are those of another.

    Args:
        state: The network that was averaged; its names and its buffers are taken.
        path: The keys that lead to the list.
        averages: What is in it.

    Returns:
        The same state dict if the list has not as many tensors, of the same shapes in the same
        order, as the network alone, or all that stands in its mapping, has parameters.
    """
    stored = {**state.tensors, **state.beside}
    parameters = [n for n in state.order if n in stored and n.rpartition(".")[2] not in _BUFFERS]
    for names in (parameters, [name for name in parameters if name in state.tensors]):
        if [stored[name].shape for name in names] == [one.shape for one in averages]:
            found = dict(zip(names, averages, strict=True))
            tensors = {name: found.get(name, one) for name, one in state.tensors.items()}
            beside = {name: found.get(name, one) for name, one in state.beside.items()}
            return replace(state, path=path, tensors=tensors, beside=beside)
    return state
