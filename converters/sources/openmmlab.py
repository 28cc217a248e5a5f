"""OpenMMLab (mmpretrain, mmcls, mmdetection): RegNetX on BGR images.

Source: mmpretrain ``configs/regnet/*.py``: short side 256, centre crop 224, bilinear; mean and
deviation are ImageNet's times 255, in BGR.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.keymaps.openmmlab import OPENMMLAB
from converters.sources.family import Family, family_source
from converters.sources.source import BILINEAR, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.source import Source, SourceOptions
    from converters.wrapping import StateDict

FAMILY = Family(
    keymap=OPENMMLAB,
    transform=EvalTransform(256, 224, BILINEAR),
    transform_reason="mmpretrain's configs/regnet",
    channel_order="bgr",
)


def read_openmmlab(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read an OpenMMLab checkpoint; see :class:`converters.sources.registry.Reader`."""
    return family_source(FAMILY, states, options, checkpoint.path.name)
