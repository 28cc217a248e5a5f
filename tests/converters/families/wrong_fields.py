"""Each field of a configuration wrong on purpose: the logits show it, if no shape does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from regnet.config import RegNetConfig
from regnet.model import RegNetForImageClassification
from regnet.wider import WIDER_DEFAULTS
from tests.converters.families.conversion import difference

if TYPE_CHECKING:
    from torch import Tensor

FIELDS = ("groups_width", "layer_type", "hidden_act", *WIDER_DEFAULTS)

SEEN = 1e-4
"""Smallest difference of the logits, in units of the largest: ten times what is let pass."""


def _others(config: RegNetConfig) -> dict[str, Any]:
    """Another value of every field than a network's own."""

    def other(field: str, first: Any, second: Any) -> Any:
        return first if getattr(config, field) != first else second

    stems = config.stem_convolutions
    *strides, last = config.stage_strides
    return {
        "groups_width": other("groups_width", 2, 4),
        "layer_type": other("layer_type", "x", "y"),
        "hidden_act": other("hidden_act", "selu", "gelu"),
        "stem_sizes": [width + 16 for width, _ in stems],
        "stem_strides": [1 + stride % 2 for _, stride in stems],
        "strides": [*strides, 1 + last % 2],
        "expansion": 2 * config.expansion,
        "expansion_of": other("expansion_of", "input", "output"),
        "se_ratio": 2 * config.se_ratio,
        "se_of": other("se_of", "input", "bottleneck"),
        "se_divisor": other("se_divisor", 7, 5),
        "se_act": other("se_act", "selu", "gelu"),
        "shortcut": other("shortcut", "avg", "conv"),
        "output_act": not config.output_act,
        "preactivation": not config.preactivation,
        "norm": other("norm", "group", "batch"),
        "norm_group_size": config.norm_group_size // 2,
        "norm_eps": 1e-2,
        "head_size": 0 if config.head_size else 16,
        "final_act": not config.final_act,
        "padding": other("padding", "same", "symmetric"),
    }


def idle(config: RegNetConfig) -> set[str]:
    """The fields that say nothing of a network, whose other fields leave them without effect."""
    found = set()
    if config.norm == "batch":
        found.add("norm_group_size")
    if config.norm == "evonorm-s0a":  # which is its own activation
        found.add("hidden_act")
    if config.shortcut != "none" and set(config.stage_strides) == {1}:  # nothing is averaged
        found.add("shortcut")
    if config.layer_type == "x":
        found |= {"se_ratio", "se_of", "se_divisor", "se_act"}
    if config.preactivation:
        found.add("output_act")
    if config.head_size or (config.output_act and config.hidden_act == "relu"):
        found.add("final_act")
    return found


@torch.inference_mode()
def unseen(network: RegNetForImageClassification, pixels: Tensor, theirs: Tensor) -> list[str]:
    """The fields that may be wrong without anything telling it.

    Args:
        network: Ours, in evaluation mode.
        pixels: Images (N, C, H, W), one side of which is even in every stage, for paddings differ
            there alone.
        theirs: Logits of the real network, (N, classes).
    """
    right, state = network.config.to_dict(), network.state_dict()
    others = _others(network.config)
    assert others.keys() == set(FIELDS)
    missed = []
    for field in others.keys() - idle(network.config):
        try:
            config = RegNetConfig.from_dict(right | {field: others[field]})
            wrong = RegNetForImageClassification(config).eval()
            wrong.load_state_dict(state)
        except (ValueError, RuntimeError):  # no network, or one of other names and shapes
            continue
        if difference(wrong(pixels).logits, theirs) < SEEN:
            missed.append(field)
    return missed
