"""timm: hub folders, flat files, training checkpoints.

Source: timm ``models/regnet.py`` and ``models/_helpers.py`` (which weights a file's loader takes).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError
from converters.keymaps.timm import TIMM
from converters.sources.family import Family, family_source
from converters.sources.source import BICUBIC, BILINEAR, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.source import Source, SourceOptions
    from converters.wrapping import StateDict

FAMILY = Family(
    keymap=TIMM,
    transform=EvalTransform(256, 224, BICUBIC),
    transform_reason="timm's default; the file does not say",
    prefers_ema=True,
)

_FILTERS = {"bicubic": BICUBIC, "bilinear": BILINEAR}

_INVISIBLE = {
    "act_layer": ("relu", "ReLU"),
    "output_stride": (32, "stride 32"),
    "downsample": ("conv1x1", "1x1 projections"),
    "linear_out": (False, "an activation behind each block"),
    "preact": (False, "activations behind the batch norms"),
    "bottle_ratio": (1.0, "a bottleneck ratio of 1"),
}
"""``model_args`` that change the network and need not show in names or shapes."""


def read_timm(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a timm checkpoint; see :class:`converters.sources.registry.Reader`."""
    where = checkpoint.path.name
    _require_expressible(checkpoint.config.get("model_args"), where)
    stated = checkpoint.config.get("pretrained_cfg")
    family = FAMILY
    if isinstance(stated, dict):
        transform = _transform(stated, where)
        family = replace(
            FAMILY, transform=transform, transform_reason="the folder's pretrained_cfg"
        )
    return family_source(family, states, options, where)


def _require_expressible(arguments: object, where: str) -> None:
    if not isinstance(arguments, dict):
        return
    for key, (expected, words) in _INVISIBLE.items():
        if arguments.get(key, expected) != expected:
            raise InputError(
                f"{where}: its model_args set {key} to {arguments[key]!r}; the reference RegNet "
                f"can only be built with {words}."
            )


def _transform(stated: Mapping[str, Any], where: str) -> EvalTransform:
    """The transform that timm evaluates with: short side to ``floor(size / crop_pct)``."""
    size = stated.get("input_size", (3, 224, 224))[-1]
    crop_pct = stated.get("crop_pct", 0.875)
    name = stated.get("interpolation", "bicubic")
    if name not in _FILTERS or not isinstance(size, int) or not 0 < crop_pct <= 1:
        raise InputError(
            f"{where}: its pretrained_cfg evaluates {size} pixels with crop_pct {crop_pct} and "
            f"{name}; only bicubic and bilinear with crop_pct in (0, 1] can be kept."
        )
    return EvalTransform(
        int(size / crop_pct),
        size,
        _FILTERS[name],
        tuple(stated.get("mean", FAMILY.transform.mean)),
        tuple(stated.get("std", FAMILY.transform.std)),
    )
