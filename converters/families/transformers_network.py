"""Hugging Face transformers: its model classes (``models/regnet/modeling_regnet.py``)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.built import RealNetwork
from regnet.architecture import BASE_PREFIX, CLASSIFIER

if TYPE_CHECKING:
    from torch import Tensor

    from converters.checkpoint import AnyCheckpoint
    from converters.families.source import Source


def build(source: Source, checkpoint: AnyCheckpoint) -> RealNetwork:  # noqa: ARG001 -- of a protocol
    """Build transformers' model; see `converters.families.built.Build`."""
    from transformers import RegNetConfig, RegNetForImageClassification, RegNetModel

    fields = source.config.to_dict()
    del fields["model_type"]
    kind = RegNetForImageClassification if source.has_classifier else RegNetModel
    module = kind(RegNetConfig(**fields))
    trunk = module.regnet if source.has_classifier else module

    def forward(images: Tensor) -> Tensor:
        output = module(images)
        result: Tensor = output.logits if source.has_classifier else output.pooler_output
        return result

    def spell(name: str) -> str:
        in_trunk = source.has_classifier and not name.startswith(CLASSIFIER)
        return BASE_PREFIX + name if in_trunk else name

    return RealNetwork(module, trunk.encoder.stages[-1], forward, spell)
