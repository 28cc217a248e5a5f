"""OpenMMLab (mmpretrain, mmcls, mmdetection): RegNetX on BGR images.

Source: mmpretrain ``configs/regnet/*.py``: short side 256, centre crop 224, bilinear; mean and
deviation are ImageNet's times 255, in BGR. mmengine ``hooks/ema_hook.py``: where weights were
averaged, ``state_dict`` holds the averaged ones and ``ema_state_dict`` the raw ones.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.keymaps.openmmlab import OPENMMLAB
from converters.sources.family import Family, family_source
from converters.sources.source import BILINEAR, Decision, EvalTransform

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.sources.options import SourceOptions
    from converters.sources.source import Source
    from converters.wrapping import StateDict

FAMILY = Family(
    keymap=OPENMMLAB,
    transform=EvalTransform(256, 224, BILINEAR),
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
    """Read an OpenMMLab checkpoint; see :class:`converters.sources.registry.Reader`."""
    averaged = any(_RAW_BESIDE_AVERAGED in state.path for state in states)
    renamed = [
        replace(state, tensors=_heads(state.tensors), beside=_heads(state.beside))
        for state in states
    ]
    family = _SWAPPED if averaged else FAMILY
    source = family_source(family, renamed, options, checkpoint.path.name)
    return _with_labels(source, checkpoint.tree)


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
