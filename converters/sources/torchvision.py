"""torchvision: flat files from its server, and what its reference trainer saves.

Source: torchvision ``models/regnet.py``. Its weights come in two recipes that no tensor tells
apart: IMAGENET1K_V1 was evaluated at 256 -> 224, V2, the default since 2022, at 232 -> 224.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.keymaps.torchvision import TORCHVISION
from converters.sources.family import Family, family_source
from converters.sources.source import BILINEAR, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.source import Source, SourceOptions
    from converters.wrapping import StateDict

FAMILY = Family(
    keymap=TORCHVISION,
    transform=EvalTransform(232, 224, BILINEAR),
    transform_reason="torchvision's IMAGENET1K_V2; its V1 files were evaluated at 256",
    prefers_ema=True,
)


def read_torchvision(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a torchvision checkpoint; see :class:`converters.sources.registry.Reader`."""
    return family_source(FAMILY, states, options, checkpoint.path.name)
