"""timm's four ways to name a RegNet, and what names and shapes leave open of each.

Source: timm ``models/regnet.py`` (RegNetX, Y, V, and the Z of its ``regnetz`` models) and
``models/byobnet.py`` (RegNetZ as ByobNet builds it: ``regnetz_b16`` and its sisters). What nothing
but their code says, such as the activation, is a rule of the kind of network: every model of a kind
that timm has follows it, and a training's own arguments go before it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.families.keymap import TORCH, Keymap, Leaves, keymap
from regnet.architecture import BATCH_NORM_LEAVES

if TYPE_CHECKING:
    from collections.abc import Collection

    from regnet.config import RegNetConfig

_LEAVES = Leaves(norm={**TORCH.norm, "v": "v"})
"""With the slope of EvoNorm."""

TIMM = keymap(
    "timm",
    "s{stage+1}.b{block+1}",
    stem=("stem.conv", "stem.bn"),
    shortcut=("downsample.conv", "downsample.bn"),
    reduce=("conv1.conv", "conv1.bn"),
    grouped=("conv2.conv", "conv2.bn"),
    expand=("conv3.conv", "conv3.bn"),
    head=("final_conv.conv", "final_conv.bn"),
    attention=("se.fc1", "se.fc2"),
    classifier="head.fc",
)
"""RegNetX, RegNetY, and RegNetZ of ``models/regnet.py``."""

PREACTIVATED = keymap(
    "timm",
    "s{stage+1}.b{block+1}",
    stem=("stem", ""),
    preact=("", "norm1"),
    shortcut=("downsample", ""),
    reduce=("conv1", ""),
    grouped=("conv2", "norm2"),
    expand=("conv3", "norm3"),
    head=("final_conv.conv", "final_conv.bn"),
    attention=("se.fc1", "se.fc2"),
    classifier="head.fc",
)
"""RegNetV."""

BYOB = keymap(
    "timm",
    "stages.{stage}.{block}",
    stem=("stem.conv", "stem.bn"),
    stems=("stem.conv{index+1}.conv", "stem.conv{index+1}.bn"),
    reduce=("conv1_1x1.conv", "conv1_1x1.bn"),
    grouped=("conv2_kxk.conv", "conv2_kxk.bn"),
    expand=("conv3_1x1.conv", "conv3_1x1.bn"),
    head=("final_conv.conv", "final_conv.bn"),
    attention=("attn.fc1", "attn.fc2"),
    classifier="head.fc",
    leaves=_LEAVES,
)
"""RegNetZ of ``models/byobnet.py``."""

WIDER = frozenset(
    {"stem_sizes", "stem_strides", "strides", "expansion", "expansion_of", "se_of", "se_divisor"}
    | {"se_ratio", "se_act", "shortcut", "output_act", "preactivation", "norm", "norm_eps"}
    | {"head_size", "final_act"}
)
"""In what they differ."""


BYOB_ACTS = {"hidden_act": "silu", "se_act": "relu", "output_act": False}
"""The activations of ByobNet's RegNetZ."""

DEEP_STEM = {"stem_strides": [2, 1, 2], "strides": [1, 2, 2, 2]}
"""Strides of one whose stem is several convolutions."""


def _averaging(names: Keymap) -> Keymap:
    """With the place behind its pool that a projection has in a shortcut that averages."""
    rows = {
        role: row.replace("downsample", "downsample.1") if role.startswith("shortcut") else row
        for role, row in names.rows.items()
    }
    return replace(names, rows=rows)


def dialect_of(names: Collection[str]) -> tuple[Keymap, dict[str, Any]]:
    """The table for names of tensors, and what of a configuration they show.

    Args:
        names: Of a state dict, prefixes removed.
    """
    table, fields = TIMM, dict[str, Any]()
    if "stages.0.0.conv1_1x1.conv.weight" in names:
        table = BYOB
    elif "s1.b1.norm1.weight" in names:
        table, fields = PREACTIVATED, {"preactivation": True}
    if any(".downsample.1." in name for name in names):
        table, fields = _averaging(table), fields | {"shortcut": "avg"}
    norm = {name.rpartition(".")[2] for name in names if ".conv2.bn." in name or ".norm2." in name}
    norm |= {name.rpartition(".")[2] for name in names if ".conv2_kxk.bn." in name}
    if "v" in norm:
        fields = fields | {"norm": "evonorm-s0a", "norm_eps": 1e-3}
    elif norm and not norm & set(BATCH_NORM_LEAVES[2:]):
        fields = fields | {"norm": "group"}
    return table, fields


def table_of(config: RegNetConfig) -> Keymap:
    """The table for a network that timm has."""
    if config.preactivation:
        table = PREACTIVATED
    elif config.expansion_of == "input":
        table = BYOB
    else:
        table = TIMM
    return _averaging(table) if config.shortcut == "avg" else table


def unseen(config: RegNetConfig, table: Keymap) -> dict[str, Any]:
    """What timm's code alone says of a kind of network.

    Args:
        config: What names and shapes show.
        table: The names.

    Returns:
        Fields of the configuration; none of a RegNetX or RegNetY.
    """
    if table.rows["reduce.conv"] == BYOB.rows["reduce.conv"]:
        return BYOB_ACTS | (DEEP_STEM if config.stem_sizes else {})
    acts = {"hidden_act": "silu", "se_act": "silu"}
    no_head = not config.head_size
    if config.preactivation:
        return acts | {"final_act": no_head}
    if config.shortcut == "none":
        return acts | {"output_act": False, "final_act": no_head}
    return acts if config.norm == "group" else {}
