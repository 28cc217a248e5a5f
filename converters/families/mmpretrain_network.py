"""OpenMMLab: mmpretrain's classifier (``mmpretrain/models/backbones/regnet.py``)."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from converters.families.built import NotRunError, RealNetwork, require_plain, strides
from converters.families.linear_rule import rule_of
from converters.families.torchvision_network import import_torchvision

if TYPE_CHECKING:
    from torch import Tensor

    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source
    from regnet.config import RegNetConfig

_HEAD, _BACKBONE = "head.", "backbone."


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:  # noqa: ARG001 -- of a protocol
    """Build mmpretrain's network; see `converters.families.built.Build`."""
    import_torchvision()
    with warnings.catch_warnings(action="ignore"):  # of operators that need compiling
        import mmpretrain.models

        config = source.config
        require_plain(config, "mmpretrain")
        module = mmpretrain.models.MODELS.build(_settings(source))
    last = getattr(module.backbone, f"layer{len(config.depths)}")
    return RealNetwork(module, last, _forward(module, source), _spell)


def _settings(source: Source) -> dict[str, Any]:
    """What mmpretrain's registry takes."""
    config = source.config
    stages = len(config.depths)
    settings: dict[str, Any] = {
        "type": "ImageClassifier",
        "backbone": {
            "type": "RegNet",
            "arch": _arch(config),
            "in_channels": config.num_channels,
            "stem_channels": config.embedding_size,
            "strides": tuple(strides(config)),
            "dilations": (1,) * stages,
            "out_indices": (stages - 1,),
        },
        "neck": {"type": "GlobalAveragePooling"},
    }
    if source.has_classifier:
        settings["head"] = {
            "type": "LinearClsHead",
            "num_classes": config.num_labels,
            "in_channels": config.hidden_sizes[-1],
        }
    return settings


def _arch(config: RegNetConfig) -> dict[str, Any]:
    rule = rule_of(config)
    if rule is None:
        raise NotRunError("mmpretrain builds stages from the linear rule, which gives no such ones")
    return {
        "depth": rule.depth,
        "w0": rule.w_0,
        "wa": rule.w_a,
        "wm": rule.w_m,
        "group_w": rule.group_width,
        "bot_mul": 1.0,
    }


def _forward(module: Any, source: Source) -> Any:
    def forward(images: Tensor) -> Tensor:
        output = module(images)
        result: Tensor = output if source.has_classifier else output[-1]
        return result

    return forward


def _spell(name: str) -> str:
    return name if name.startswith(_HEAD) else _BACKBONE + name
