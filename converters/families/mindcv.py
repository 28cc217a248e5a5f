"""MindCV: checkpoints of MindSpore, of a network alone or of all that its trainer holds.

Source: mindcv 0.3.0 ``models/regnet.py`` (names, networks), ``data/transforms_factory.py``
(evaluation), ``utils/train_step.py`` and ``utils/callbacks.py`` (what training saves);
mindspore 2.10 ``nn/layer/container.py``.

A list of cells that is filled after it was made parts of the network names its members by what it
finds in those before them. So the blocks of the first stage are called ``0.blocks.B``, and those of
others ``0.blocks.S.blocks.B``; in a network that is a member of another cell, all are
``stages.S.blocks.B``.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.families.family import Family
from converters.families.harmless import OPTIMISER
from converters.families.keymap import KERAS, Leaves, keymap
from converters.families.reading import family_source
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.family import Found
    from converters.families.source import Source, StateDict

MINDCV = keymap(
    "mindcv",
    "stages.{stage}.blocks.{block}",
    stem=("stem.conv", "stem.bn"),
    shortcut=("proj", "bn"),
    reduce=("f.a", "f.a_bn"),
    grouped=("f.b", "f.b_bn"),
    expand=("f.c", "f.c_bn"),
    attention=("f.se.conv_reduce", "f.se.conv_expand"),
    classifier="head.fc",
    leaves=Leaves(norm=KERAS.norm),
)

_STAGE = re.compile(r"0\.blocks\.(?P<stage>[1-9][0-9]*\.blocks\.)?(?=[0-9]+\.)")
"""What stands before the number of a block: in the first stage that of no stage."""

_COPY = re.compile(r"[a-z]\w*\.(?P<name>.*)")
"""How optimisers call what they keep for a parameter: ``moments.``, ``moment1.``, ``accum.``."""

_NUMBERS = {"learning_rate", "weight_decay"}
"""Numbers of an optimiser, of which there may be one a step or one a group of parameters."""


def is_regnet(prefix: str, mapped: Mapping[str, object]) -> bool:
    """Whether a network with such a stem has a RegNet's first block, by either name."""
    block = "0.blocks.0.f.c.weight"
    return f"{prefix}{block}" in mapped or f"{prefix}stages.{block}" in mapped


def _read(found: Found) -> Source:
    skipped: dict[str, str] = {}
    states = [_network(state, skipped) for state in found.states]
    source = family_source(replace(found, states=states))
    return replace(source, skipped={**skipped, **source.skipped})


def _network(state: StateDict, skipped: dict[str, str]) -> StateDict:
    """A state dict without what only training needs, its stages named as in the keymap.

    Args:
        state: What a checkpoint holds beside a network has no place of its own there.
        skipped: Gets the reason for what is left out.
    """
    tensors: dict[str, StoredTensor] = {}
    for stored, tensor in state.tensors.items():
        name = _whole(stored)
        if _is_of_training(name, tensor):
            skipped.setdefault(stored.partition(".")[0], OPTIMISER)
        else:
            tensors[name] = tensor
    return replace(state, tensors=tensors, order=tuple(map(_whole, state.order)))


def _whole(name: str) -> str:
    """A name as the keymap has it."""
    match = _STAGE.match(name)
    return f"stages.{match['stage'] or '0.blocks.'}{name[match.end() :]}" if match else name


def _is_of_training(name: str, tensor: StoredTensor) -> bool:
    if MINDCV.parse(name):
        return False
    if "." not in name:
        return tensor.numel == 1 or name in _NUMBERS
    copy = _COPY.fullmatch(name)
    return copy is not None and MINDCV.parse(_whole(copy["name"])) is not None


FAMILY = Family(
    keymap=MINDCV,
    title="MindCV",
    package="mindcv",
    read=_read,
    ema_keys=frozenset({"ema"}),
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR), "MindCV's evaluation on ImageNet unless told otherwise"
    ),
    headless=True,
)
