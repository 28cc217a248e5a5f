"""Networks that a library changed, so that their tensors are no weights yet: how that is undone.

Source: peft ``tuners/`` (names of adapters), torch ``nn/utils/prune.py``, ``parametrize.py``,
``weight_norm.py``, ``spectral_norm.py``, and the flat parameters of ``distributed/fsdp``.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Change(NamedTuple):
    """What names tell of, and how it is undone."""

    pattern: str
    what: str
    undo: str


_MERGED = "load its network with peft, call merge_and_unload()"

_CHANGES = (
    _Change(
        r"(.*\.)?(lora_\w+|hada_\w+|lokr_\w+|ia3_l|oft_\w+|boft_\w+|vera_\w+|base_layer)(\..*)?",
        "of an adapter of peft (LoRA and the like)",
        _MERGED,
    ),
    _Change(r".*\.modules_to_save\..*", "one of several modules that peft trained", _MERGED),
    _Change(
        r"(.*\.)?parametrizations\..*",
        "of a parametrization, such as weight norm",
        "call torch.nn.utils.parametrize.remove_parametrizations()",
    ),
    _Change(
        r"(.*\.)?(weight|bias)_mask",
        "a mask of pruning",
        "call torch.nn.utils.prune.remove() on its modules",
    ),
    _Change(
        r"(.*\.)?weight_g",
        "of weight norm",
        "call torch.nn.utils.remove_weight_norm() on its module",
    ),
    _Change(
        r"(.*\.)?weight_u",
        "of spectral norm",
        "call torch.nn.utils.remove_spectral_norm() on its module",
    ),
    _Change(
        r"(.*\.)?_?flat_param(_\d+)?",
        "several parameters in one, as FSDP keeps them",
        "gather them with StateDictType.FULL_STATE_DICT",
    ),
)


def require_unchanged(names: Iterable[str], where: str) -> None:
    """Check that tensors are weights as they are computed with.

    Args:
        names: Theirs.
        where: What the message calls the checkpoint.

    Raises:
        InputError: If one is something that a library makes weights of; it says how they are had.
    """
    listed = list(names)
    for change in _CHANGES:
        found = next((name for name in listed if re.fullmatch(change.pattern, name)), None)
        if found is not None:
            raise InputError(
                f"{where}: {printable(found)} is {change.what}, and no weight by itself; "
                f"{change.undo}, and save its state_dict() again."
            )
