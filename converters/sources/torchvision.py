"""torchvision: flat files from its server, and what its reference trainer saves.

Source: torchvision ``models/regnet.py`` and ``references/classification/train.py``. Its weights
come in two recipes that no tensor tells apart: IMAGENET1K_V1 was evaluated at 256 -> 224, V2, the
default since 2022, at 232 -> 224. The trainer's ``args`` tell.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint import Opaque
from converters.errors import InputError
from converters.keymaps.torchvision import TORCHVISION
from converters.sources.family import Family, family_source
from converters.sources.source import BILINEAR, FILTERS, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.options import SourceOptions
    from converters.sources.source import Source
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
    where = checkpoint.path.name
    stored = checkpoint.tree.get("args") if isinstance(checkpoint.tree, dict) else None
    family = FAMILY
    if isinstance(stored, Opaque) and "val_crop_size" in stored.fields:
        transform = _transform(stored.fields, where)
        family = replace(FAMILY, transform=transform, transform_reason="the training run's args")
    return family_source(family, states, options, where)


def _transform(arguments: Mapping[Any, Any], where: str) -> EvalTransform:
    """The evaluation of torchvision's trainer, by its command line."""
    resize, crop = arguments.get("val_resize_size", 256), arguments["val_crop_size"]
    interpolation = arguments.get("interpolation", "bilinear")
    whole = isinstance(resize, int) and isinstance(crop, int)
    if whole and 0 < crop <= resize and interpolation in FILTERS:
        return EvalTransform(resize, crop, FILTERS[interpolation])
    raise InputError(
        f"{where}: its args evaluate with val_resize_size {resize}, val_crop_size {crop} and "
        f"{interpolation}; the crop must be positive and no larger than the image."
    )
