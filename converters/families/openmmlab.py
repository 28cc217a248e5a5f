"""OpenMMLab (mmpretrain, mmcls, mmdetection): RegNetX on BGR images.

Source: mmpretrain ``configs/regnet/*.py``: short side 256, centre crop 224, bilinear; mean and
deviation are ImageNet's times 255, in BGR. What a training's own configuration says goes before
that (:mod:`converters.families.openmmlab_config`). mmengine ``hooks/ema_hook.py``: where weights
were averaged, ``state_dict`` holds the averaged ones and ``ema_state_dict`` the raw ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.families.family import Family, family_source
from converters.families.openmmlab_config import DEFAULT, OpenMMLabConfig
from converters.families.openmmlab_keymap import OPENMMLAB
from converters.families.source import Decision
from regnet.config import RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.families.options import SourceOptions
    from converters.families.source import Source
    from converters.families.wrapping import StateDict

FAMILY = Family(
    keymap=OPENMMLAB,
    transform=DEFAULT,
    transform_reason="mmpretrain's configs/regnet",
    channel_order="bgr",
)

_SWAPPED = replace(FAMILY, ema_keys=frozenset({"state_dict"}), prefers_ema=True)
_RAW_BESIDE_AVERAGED = "ema_state_dict"
_MMDETECTION_HEAD = {"fc.weight": "head.fc.weight", "fc.bias": "head.fc.bias"}
"""mmdetection's ``regnet2mmdet.py`` to mmpretrain."""


def read_openmmlab(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read an OpenMMLab checkpoint; see :class:`converters.families.registry.Reader`."""
    averaged = any(_RAW_BESIDE_AVERAGED in state.path for state in states)
    renamed = [
        replace(state, tensors=_heads(state.tensors), beside=_heads(state.beside))
        for state in states
    ]
    family = _SWAPPED if averaged else FAMILY
    config = OpenMMLabConfig.of(checkpoint.tree, checkpoint.path.name)
    config.require_expressible()
    if config.says:
        family = replace(
            family,
            transform=config.transform,
            transform_reason=config.transform_reason,
            channel_order=config.channel_order,
            channel_order_reason=f"the file's {config.place}",
        )
    source = family_source(family, renamed, options, checkpoint.path.name)
    source = _as_configured(source, config)
    return _with_labels(source, checkpoint.tree)


def _as_configured(source: Source, config: OpenMMLabConfig) -> Source:
    """The source with what else its configuration says, and what of it was not understood."""
    decisions = list(config.not_understood(source.config.num_labels * source.has_classifier))
    if not config.downsample_in_first_stage:
        fields = source.config.to_dict() | {"downsample_in_first_stage": False}
        source = replace(source, config=RegNetConfig.from_dict(fields))
        decisions.append(Decision("first stage", "stride 1", f"the file's {config.place}"))
    return replace(source, decisions=(*source.decisions, *decisions))


def _with_labels(source: Source, tree: object) -> Source:
    """The source with the class names that mmengine, or mmcv before it, put into ``meta``."""
    meta = tree.get("meta") if isinstance(tree, dict) else None
    meta = meta if isinstance(meta, dict) else {}
    names = (meta.get("dataset_meta") or {}).get("classes") or meta.get("CLASSES")
    classes = source.config.num_labels if source.has_classifier else 0
    if not isinstance(names, list | tuple) or len(names) != classes or not classes:
        return source
    decision = Decision("labels", f"{classes} names", "the file's meta")
    return replace(source, labels=tuple(map(str, names)), decisions=(*source.decisions, decision))


def _heads(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same with a classifier that mmdetection named."""
    return {_MMDETECTION_HEAD.get(name, name): tensor for name, tensor in tensors.items()}
