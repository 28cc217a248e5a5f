"""The levels that wrappers put into names, in front of a network and around its parts.

Source: torch ``_dynamo/eval_frame.py`` (``OptimizedModule``), ``distributed/algorithms/
_checkpoint/checkpoint_wrapper.py``, ``distributed/fsdp``; Lightning Fabric's ``wrappers.py``; peft
``utils/other.py`` (``ModulesToSaveWrapper``), which keeps a module as it was beside the one that is
trained in its place.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

_LEVELS = frozenset(
    {
        "module",  # DataParallel, DistributedDataParallel, AveragedModel
        "_orig_mod",  # torch.compile
        "_checkpoint_wrapped_module",  # activation checkpointing
        "_fsdp_wrapped_module",
        "_fpw_module",  # FSDP's name for that until torch 1.12
        "_forward_module",  # Lightning Fabric
        "_original_module",  # ONNX Runtime's training
    }
)

REPLACED = "original_module"
"""peft's level of a module that another one replaces, which is below ``modules_to_save``."""

_REPLACING = "modules_to_save"
_OF_PEFT = {REPLACED, _REPLACING}

_MOST = 64
"""Levels of a name that are looked at; no network nests so deep."""


def without_levels(names: Collection[str]) -> dict[str, str]:
    """The names of one mapping without the levels of wrappers.

    Of a module that peft replaced by one other, that one takes its name, and the one that it
    replaced keeps its level. Where there are several, all names stay.

    Returns:
        Name to that; in order.
    """
    adapters: dict[str, set[str]] = defaultdict(set)
    for name in names:
        module, found, rest = name.partition(f".{_REPLACING}.")
        if found and "." in rest:
            adapters[module].add(rest.split(".")[0])
    return {name: _bare(name, adapters) for name in names}


def _bare(name: str, adapters: Mapping[str, set[str]]) -> str:
    *levels, leaf = name.split(".")
    if len(levels) > _MOST:
        return name
    kept: list[str] = []
    is_adapter = False
    for depth, level in enumerate(levels):
        known = adapters.get(".".join(levels[:depth]), ()) if level in _OF_PEFT else ()
        if level == _REPLACING and len(known) == 1:
            is_adapter = True
        elif level not in _LEVELS and not is_adapter and not (level == REPLACED and not known):
            kept.append(level)
        else:
            is_adapter = False
    return ".".join([*kept, leaf])


def stored_prefix(name: str, end: str) -> str:
    """What stands in a stored name before the levels that it ends in, those of wrappers left out.

    Args:
        name: As it is stored, such as ``module.s1._orig_mod.b1.f.a.weight``.
        end: How it ends without the levels of wrappers: ``s1.b1.f.a.weight``.

    Returns:
        With the dot behind it: ``module.``; empty if there is nothing.
    """
    levels = name.split(".")
    for level in reversed(end.split(".")):
        while levels.pop() != level:
            pass
    return "".join(f"{level}." for level in levels)
