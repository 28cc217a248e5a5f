"""The stages of a network in the words that frameworks build networks from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regnet.config import group_count

if TYPE_CHECKING:
    from regnet.config import RegNetConfig


def group_widths(config: RegNetConfig) -> list[int]:
    """Channels per group of each stage."""
    return [width // group_count(width, config.groups_width) for width in config.hidden_sizes]


def strides(config: RegNetConfig) -> list[int]:
    """Stride of the first block of each stage."""
    first = 2 if config.downsample_in_first_stage else 1
    return [first, *[2] * (len(config.depths) - 1)]
