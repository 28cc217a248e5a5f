"""timm: hub folders, flat files, training checkpoints.

Source: timm ``models/regnet.py``, ``models/_helpers.py`` (which weights a file's loader takes),
``utils/checkpoint_saver.py`` (training). What its words say is in
:mod:`converters.families.timm_config`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.families.family import Family, family_source
from converters.families.labels import imagenet_labels
from converters.families.source import LICENCE, Decision
from converters.families.timm_config import ACTIVATIONS, DEFAULT, TimmConfig
from converters.families.timm_keymap import TIMM
from regnet.config import RegNetConfig
from regnet.imagenet import IMAGENET_CLASSES

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.families.options import SourceOptions
    from converters.families.source import Source
    from converters.families.wrapping import StateDict

FAMILY = Family(
    keymap=TIMM,
    transform=DEFAULT,
    transform_reason="timm's default; the file does not say",
    prefers_ema=True,
)


def read_timm(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a timm checkpoint; see :class:`converters.families.registry.Reader`."""
    where = checkpoint.path.name
    config = TimmConfig.of(checkpoint)
    # Before shapes are read: pooling that doubles the features is no fault of the classifier.
    config.require_expressible(has_classifier=False)
    _require_regnet_names([*states[0].tensors, *states[0].beside], where)
    family = replace(FAMILY, transform=config.transform, transform_reason=config.transform_reason)
    source = family_source(family, states, options, where)
    config.require_expressible(has_classifier=source.has_classifier)
    source = _with_activation(source, config.activation, where)
    source = replace(source, decisions=(*source.decisions, *config.not_understood))
    return _with_licence(_with_labels(source, config.folder), config.folder)


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


def _with_activation(source: Source, name: str, where: str) -> Source:
    """The source with the activation that only the arguments tell; none but ReLU beside SE."""
    if ACTIVATIONS[name] == "relu":
        return source
    if source.config.layer_type == "y":
        raise InputError(
            f"{where}: it was made with act_layer {name!r} and squeeze-and-excitation, which the "
            "reference RegNet has with relu only."
        )
    fields = source.config.to_dict() | {"hidden_act": ACTIVATIONS[name]}
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
