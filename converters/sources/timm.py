"""timm: hub folders, flat files, training checkpoints.

Source: timm ``models/regnet.py``, ``models/_helpers.py`` (which weights a file's loader takes),
``models/_hub.py`` (the folder), ``data/config.py`` and ``data/transforms_factory.py`` (the
transform), ``utils/checkpoint_saver.py`` (training).
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint import Opaque
from converters.checkpoint.values import printable
from converters.errors import InputError
from converters.keymaps.timm import TIMM
from converters.labels import IMAGENET_CLASSES, imagenet_labels
from converters.sources.family import Family, family_source
from converters.sources.source import BICUBIC, FILTERS, LICENCE, Decision, EvalTransform
from regnet.config import RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.options import SourceOptions
    from converters.sources.source import Source
    from converters.wrapping import StateDict
    from regnet.config import Activation

FAMILY = Family(
    keymap=TIMM,
    transform=EvalTransform(256, 224, BICUBIC),
    transform_reason="timm's default; the file does not say",
    prefers_ema=True,
)

_ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
}

_INVISIBLE: dict[str, tuple[tuple[object, ...], str]] = {
    "act_layer": (tuple(_ACTIVATIONS), "relu, silu or gelu"),
    "norm_layer": (("batchnorm", "batchnorm2d"), "batch norms"),
    "bn_eps": ((1e-5,), "an epsilon of 1e-05"),
    "output_stride": ((32,), "stride 32"),
    "downsample": (("conv1x1",), "1x1 projections"),
    "linear_out": ((False,), "an activation behind each block"),
    "preact": ((False,), "activations behind the batch norms"),
    "bottle_ratio": ((1.0,), "a bottleneck ratio of 1"),
}
"""Arguments that change the network and need not show in names or shapes: what may stay, in words.

``None`` means timm's default, which is among the first.
"""

_TRANSFORM_KEYS = (
    "img_size",
    "input_size",
    "crop_pct",
    "crop_mode",
    "interpolation",
    "mean",
    "std",
)


def read_timm(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a timm checkpoint; see :class:`converters.sources.registry.Reader`."""
    where = checkpoint.path.name
    arguments = _arguments(checkpoint)
    _require_expressible(arguments, where)
    _require_regnet_names([*states[0].tensors, *states[0].beside], where)
    source = family_source(_family(checkpoint, arguments, where), states, options, where)
    source = _with_activation(source, arguments, where)
    return _with_licence(_with_labels(source, checkpoint.config), checkpoint.config)


def _training_arguments(checkpoint: AnyCheckpoint) -> dict[Any, Any]:
    """The ``args`` of a training checkpoint, an `argparse.Namespace`; empty where it has none."""
    stored = checkpoint.tree.get("args") if isinstance(checkpoint.tree, dict) else None
    fields = stored.fields if isinstance(stored, Opaque) else stored
    return fields if isinstance(fields, dict) else {}


def _arguments(checkpoint: AnyCheckpoint) -> dict[Any, Any]:
    """What the model was made with, of a folder's ``model_args`` or of a training's ``args``."""
    trained = _training_arguments(checkpoint)
    parts = (trained, trained.get("model_kwargs"), checkpoint.config.get("model_args"))
    given = [part for part in parts if isinstance(part, dict)]
    return {key: value for part in given for key, value in part.items() if value is not None}


def _family(checkpoint: AnyCheckpoint, arguments: Mapping[Any, Any], where: str) -> Family:
    """timm's, with the transform that the checkpoint states."""
    stated = checkpoint.config.get("pretrained_cfg")
    if isinstance(stated, dict):
        tag = f", tag {stated['tag']}" if stated.get("tag") else ""
        reason = f"the folder's pretrained_cfg{tag}"
    elif _training_arguments(checkpoint):
        stated = {key: arguments[key] for key in _TRANSFORM_KEYS if key in arguments}
        reason = "the training run's args; what they leave out is timm's default"
    else:
        return FAMILY
    return replace(FAMILY, transform=_transform(stated, where), transform_reason=reason)


def _require_expressible(arguments: Mapping[Any, Any], where: str) -> None:
    for key, (allowed, words) in _INVISIBLE.items():
        value = arguments.get(key, allowed[0])
        if (value.lower() if isinstance(value, str) else value) not in allowed:
            raise InputError(
                f"{where}: it was made with {key} {value!r}; the reference RegNet can only be "
                f"built with {words}."
            )


def _require_regnet_names(names: Collection[str], where: str) -> None:
    """Refuse what names tell: timm's RegNetZ, its group norm, its average-pooled shortcuts."""
    feature = None
    if any(name.startswith("final_conv.") for name in names):
        feature = "a convolution before its classifier (final_conv), as a RegNetZ"
    elif "stem.bn.weight" in names and "stem.bn.running_mean" not in names:
        feature = "norms without running statistics, such as group norm, as regnety_040_sgn"
    elif any(".downsample.1." in name for name in names):
        feature = "shortcuts that pool before they project (downsample avg)"
    if feature:
        raise InputError(
            f"{where} is a network of timm with {feature}; the reference RegNet has none of these."
        )


def _transform(stated: Mapping[str, Any], where: str) -> EvalTransform:
    """The transform that timm evaluates with: short side to ``floor(size / crop_pct)``."""
    channels, height, width = _input_size(stated, where)
    crop_pct = stated.get("crop_pct") or FAMILY.transform.crop / FAMILY.transform.resize
    interpolation = stated.get("interpolation") or "bicubic"
    mode = stated.get("crop_mode") or "center"
    squash = mode == "squash" and crop_pct == 1
    kept = interpolation in FILTERS and isinstance(crop_pct, float | int) and 0 < crop_pct <= 1
    if not kept or height != width or not (squash or mode == "center"):
        raise InputError(
            f"{where}: it is evaluated at {height} x {width} pixels with crop_pct {crop_pct}, "
            f"crop_mode {mode} and {interpolation}, which no preprocessor_config.json can say; "
            "save it with a square input, a centre crop and a filter of Pillow's."
        )
    return EvalTransform(
        math.floor(height / crop_pct),
        height,
        FILTERS[interpolation],
        _per_channel(stated.get("mean"), channels) or FAMILY.transform.mean,
        _per_channel(stated.get("std"), channels) or FAMILY.transform.std,
        squash,
    )


def _input_size(stated: Mapping[str, Any], where: str) -> tuple[int, int, int]:
    """Channels, height and width, each a positive integer."""
    side = stated.get("img_size") or FAMILY.transform.crop
    size = stated.get("input_size") or (3, side, side)
    if len(size) != 3 or not all(isinstance(n, int) and n > 0 for n in size):  # noqa: PLR2004
        raise InputError(f"{where}: its input_size {size!r} is not channels, height and width.")
    channels, height, width = size
    return channels, height, width


def _per_channel(values: Sequence[float] | None, channels: int) -> tuple[float, ...]:
    """As timm's ``resolve_data_config`` has it: a single number counts for every channel."""
    values = tuple(values or ())
    return values * channels if len(values) == 1 else values


def _with_activation(source: Source, arguments: Mapping[Any, Any], where: str) -> Source:
    """The source with the activation that only the arguments tell; none but ReLU beside SE."""
    name = str(arguments.get("act_layer", "relu")).lower()
    if _ACTIVATIONS[name] == "relu":
        return source
    if source.config.layer_type == "y":
        raise InputError(
            f"{where}: it was made with act_layer {name!r} and squeeze-and-excitation, which the "
            "reference RegNet has with relu only."
        )
    fields = source.config.to_dict() | {"hidden_act": _ACTIVATIONS[name]}
    return replace(source, config=RegNetConfig.from_dict(fields))


def _with_labels(source: Source, config: Mapping[str, Any]) -> Source:
    """The source with a folder's ``label_names``, or ImageNet's where its tag ends in ``in1k``.

    Left out unless they name every class: timm allows gaps, a configuration does not.
    """
    stated = config.get("pretrained_cfg") or {}
    names = config.get("label_names") or stated.get("label_names")
    classes = source.config.num_labels if source.has_classifier else 0
    reason = "the folder's label_names"
    if not names and str(stated.get("tag")).endswith("in1k") and classes == IMAGENET_CLASSES:
        names, reason = list(imagenet_labels()), f"the folder's tag is {stated['tag']}"
    if not isinstance(names, list) or len(names) != classes or not classes:
        return source
    decision = Decision("labels", f"{classes} names", reason)
    return replace(source, labels=tuple(map(str, names)), decisions=(*source.decisions, decision))


def _with_licence(source: Source, config: Mapping[str, Any]) -> Source:
    """The source with the licence of its weights, which is the author's word and not ours."""
    licence = (config.get("pretrained_cfg") or {}).get("license")
    if not isinstance(licence, str):
        return source
    decision = Decision(LICENCE, printable(licence), "the folder's pretrained_cfg")
    return replace(source, decisions=(*source.decisions, decision))
