"""From what is found in a checkpoint to its source: what the readers of frameworks share."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families import reparametrised
from converters.families.entries import prepared, settle
from converters.families.recognise import architecture_of, is_identity_first
from converters.families.source import Decision, Source
from converters.families.unnamed import averages_in
from regnet.architecture import COUNTER
from regnet.config import IMAGENET_MEAN, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.checkpoint import StoredTensor
    from converters.families.family import Family, Found
    from converters.families.source import ChannelOrder, StateDict


_AVERAGED = re.compile(r"(.*_)?(ema|swa|averaged?|avg|shadow|polyak)(_.*)?")
"""What trainers call averaged weights, or the module that keeps them."""

_AVERAGES = "n_averaged"
"""How many weights a torch `AveragedModel` (``optim/swa_utils.py``) is the average of."""

_RAW_OF_LIGHTNING = "current_model_state"
"""Where Lightning's ``WeightAveraging`` keeps raw weights; the averaged are in ``state_dict``."""


def family_source(found: Found) -> Source:
    """Make the source of a checkpoint that says nothing of the network but names and shapes.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    state, weights, not_chosen = choose_state(found)
    tensors, head, skipped = settle(found, state)
    state = replace(state, tensors=tensors)
    return source_of(found, state, weights, {**not_chosen, **skipped}).decided(*head)


def choose_state(found: Found) -> tuple[StateDict, Decision, dict[str, str]]:
    """Choose between raw and averaged weights, by the family's rule where the user does not.

    Returns:
        The chosen state dict, in torch's layout and prepared, why it was chosen, and what is left
        out with the reason.

    Raises:
        InputError: If the choice asked for is not there, the file holds several models, or an
            entry of the chosen one cannot be read.
    """
    family, asked, where = found.family, found.options.weights, found.where
    states, skipped = _different(found.states)
    averaged = _averaged(family, states)
    raw = [state for state in states if state not in averaged]
    if len(raw) > 1 or len(averaged) > 1:
        places = ", ".join(state.place for state in states)
        raise InputError(f"{where} holds several models (at {places}); save one of them alone.")
    if asked == "ema" and not averaged:
        what = "no averaged weights"
        if any(averages_in(found.tree)):
            what = "averaged weights without names, which are not the network's one by one"
        raise InputError(f"{where} holds {what}; leave out --weights ema.")
    if asked == "raw" and not raw:
        raise InputError(f"{where} holds averaged weights only; leave out --weights raw.")
    first_is_ema, best = _best(family, averaged, raw)
    wants_ema = asked == "ema" or (asked == "best" and first_is_ema)
    chosen = (averaged or raw)[0] if wants_ema or not raw else raw[0]
    name = "ema" if chosen in averaged else "raw"
    others = [state for state in states if state is not chosen]
    if not others:
        level = ".".join(chosen.path) or "the top"
        names = f", with names that begin with {chosen.prefix}" if chosen.prefix else ""
        reason = f"the file holds one set of weights, at {level}{names}"
    elif asked == "best":
        reason = best
    else:
        reason = "as asked for with --weights"
    skipped |= {state.place: "the weights that were not chosen" for state in others}
    state = family.layout.of_state(chosen)
    return prepared(found, state), Decision("weights", name, reason), skipped


def _averaged(family: Family, states: Sequence[StateDict]) -> list[StateDict]:
    """Those that were averaged over the training, by the names that trainers give them."""
    own = [state for state in states if _is_its_own(family, state)]
    if own:
        return own
    if any(_RAW_OF_LIGHTNING in state.path for state in states):
        return [state for state in states if _RAW_OF_LIGHTNING not in state.path]
    levels = [set(state.place.lower().split(".")) for state in states]
    shared = set.intersection(*levels) if len(states) > 1 else set()
    return [
        state
        for state, own_levels in zip(states, levels, strict=True)
        if any(map(_AVERAGED.fullmatch, own_levels - shared)) or _is_averaged(state)
    ]


def _best(
    family: Family, averaged: Sequence[StateDict], raw: Sequence[StateDict]
) -> tuple[bool, str]:
    """Whether averaged weights come first where nobody chooses, and why."""
    framework, prefers = family.keymap.framework, family.prefers_ema
    if any(_RAW_OF_LIGHTNING in state.path for state in raw):
        return True, "what Lightning loads itself, averaged by its WeightAveraging"
    if any(_is_its_own(family, state) for state in averaged):
        return prefers, f"what {framework} itself takes"
    return prefers, f"{framework} takes {'averaged' if prefers else 'raw'} weights first"


def _is_its_own(family: Family, state: StateDict) -> bool:
    """Whether averaged weights have a name that the framework itself knows."""
    return bool(family.ema_keys & set(state.place.split(".")))


def _is_averaged(state: StateDict) -> bool:
    """Whether it is that of an `AveragedModel`, which counts what it averaged."""
    return _AVERAGES in state.beside and state.prefix.split(".")[-2:-1] == ["module"]


def _different(states: Sequence[StateDict]) -> tuple[list[StateDict], dict[str, str]]:
    """The state dicts without those that another module in the file holds once more.

    Adversarial training saves ``model.`` and ``attacker.model.``, which are the same bytes.
    """
    kept: list[StateDict] = []
    skipped: dict[str, str] = {}
    for state in sorted(states, key=lambda state: len(state.prefix)):
        twin = next((other for other in kept if _is_twin(state, other)), None)
        if twin is None:
            kept.append(state)
        else:
            skipped[state.place] = f"the very tensors of {twin.place}"
    return kept, skipped


def _is_twin(state: StateDict, other: StateDict) -> bool:
    nested = state.path == other.path and state.prefix.endswith(f".{other.prefix}")
    return nested and bool(other.prefix) and state.tensors == other.tensors


def source_of(
    found: Found, state: StateDict, weights: Decision, skipped: Mapping[str, str]
) -> Source:
    """Make the source of a state dict that is already chosen, with its head.

    Args:
        found: The checkpoint.
        state: All that belongs to the network, and nothing else, is among its tensors.
        weights: Why it was chosen.
        skipped: What else is in the file and is left out: name to reason.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    keymap, own = found.family.keymap, found.family.preprocessing
    state = replace(state, tensors=_with_plain_counters(state.tensors))
    fields = architecture_of(state.tensors, keymap, found.where, found.family.wider)
    has_classifier = bool(fields["num_labels"])
    if not has_classifier:
        del fields["num_labels"]
    config = RegNetConfig(**fields, padding=found.family.padding)
    order, order_decision = _channel_order(found, config)
    transform = own.transform
    source = Source(
        family=state.framework,
        keymap=keymap,
        tensors=state.tensors,
        config=config,
        has_classifier=has_classifier,
        channel_order=order,
        transform=transform.for_channels(config.num_channels),
        decisions=(
            weights,
            order_decision,
            Decision("evaluation transform", transform.in_words, own.reason),
            *reparametrised.decisions(state.tensors.values()),
        ),
        skipped=skipped,
        normalisers=state.normalisers,
    )
    if config.shortcut != "none" and is_identity_first(state.tensors, keymap):
        reason = "its first block has no projection, which only stride 1 allows"
        return source.strided(reason, downsamples=False)
    return source


def as_regnetz(source: Source, reason: str) -> Source:
    """The source with the activations of RegNetZ where a block without a projection is its alone.

    Args:
        source: Of a checkpoint that says nothing of activations.
        reason: Why nothing better is known.
    """
    if source.config.shortcut != "none":
        return source
    own = {"se_act": "silu"} if source.config.layer_type == "y" else {}
    source = source.configured(hidden_act="silu", output_act=False, **own)
    value = "silu, none behind blocks"
    return source.decided(Decision("activations", value, f"as RegNetZ has them; {reason}"))


def _with_plain_counters(tensors: Mapping[str, StoredTensor]) -> dict[str, StoredTensor]:
    """The same with counters of shape (), which some keep as (1,)."""
    return {
        name: replace(tensor, shape=(), stride=())
        if name.endswith(COUNTER) and tensor.numel == 1
        else tensor
        for name, tensor in tensors.items()
    }


def _channel_order(found: Found, config: RegNetConfig) -> tuple[ChannelOrder, Decision]:
    """What the network was trained on: as asked for, else as the framework feeds it."""
    own = found.family.preprocessing
    framework = found.family.keymap.framework
    whose = f"{framework}'" if framework.endswith("s") else f"{framework}'s"
    order, reason = own.channel_order, own.order_reason or f"{whose} own"
    if found.options.channel_order:
        order, reason = found.options.channel_order, "as asked for with --channel-order"
    if config.num_channels != len(IMAGENET_MEAN):
        return order, Decision("channel order", "kept", f"{config.num_channels} input channels")
    value = "BGR, stem flipped to take RGB" if order == "bgr" else "RGB, stem kept"
    return order, Decision("channel order", value, reason)
