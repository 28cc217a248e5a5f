"""Hugging Face transformers: a folder with its configuration, or a bare file of weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.keymaps.reference import REFERENCE
from converters.sources.family import Family, family_source
from converters.sources.source import BICUBIC, Decision, EvalTransform
from regnet.config import RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.sources.source import Source, SourceOptions
    from converters.wrapping import StateDict

FAMILY = Family(
    keymap=REFERENCE,
    transform=EvalTransform(256, 224, BICUBIC),
    transform_reason="what facebook's RegNets on the Hub say",
)

_FROM_SHAPES = (
    "num_channels",
    "embedding_size",
    "hidden_sizes",
    "depths",
    "groups_width",
    "layer_type",
    "num_labels",
)


def read_transformers(
    checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
) -> Source:
    """Read a transformers folder or file; see :class:`converters.sources.registry.Reader`."""
    where = checkpoint.path.name
    source = family_source(FAMILY, states, options, where)
    if not checkpoint.config:
        return source
    try:
        stated = RegNetConfig.from_dict(checkpoint.config)
    except ValueError as error:
        raise InputError(f"{where}: its config.json cannot be used: {error}") from error
    _require_same(source, stated, where)
    decision = Decision("configuration", "as stored", "the folder's config.json")
    return replace(source, config=stated, decisions=(*source.decisions, decision))


def _require_same(source: Source, stated: RegNetConfig, where: str) -> None:
    for field in _FROM_SHAPES:
        found, expected = getattr(source.config, field), getattr(stated, field)
        if found != expected and (field != "num_labels" or source.has_classifier):
            raise InputError(
                f"{where}: its config.json says {field} {expected} where the weights have {found}; "
                "the folder mixes two models."
            )
