"""From what is found in a checkpoint to its source: what the readers of frameworks share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.entries import prepared, settle
from converters.families.recognise import architecture_of, is_identity_first
from converters.families.source import Decision, Source
from regnet.config import IMAGENET_MEAN, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.families.family import Found
    from converters.families.source import ChannelOrder, StateDict


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
    averaged = [state for state in states if family.ema_keys & set(state.place.split("."))]
    raw = [state for state in states if state not in averaged]
    if len(raw) > 1 or len(averaged) > 1:
        places = ", ".join(state.place for state in states)
        raise InputError(f"{where} holds several models (at {places}); save one of them alone.")
    if asked == "ema" and not averaged:
        raise InputError(f"{where} holds no averaged weights; leave out --weights ema.")
    if asked == "raw" and not raw:
        raise InputError(f"{where} holds averaged weights only; leave out --weights raw.")
    wants_ema = asked == "ema" or (asked == "best" and family.prefers_ema)
    chosen = (averaged or raw)[0] if wants_ema or not raw else raw[0]
    name = "ema" if chosen in averaged else "raw"
    others = [state for state in states if state is not chosen]
    if not others:
        reason = f"the file holds one set of weights, at {chosen.place}"
    elif asked == "best":
        reason = f"what {family.keymap.framework} itself takes"
    else:
        reason = "as asked for with --weights"
    skipped |= {state.place: "the weights that were not chosen" for state in others}
    state = family.layout.of_state(chosen)
    return prepared(found, state), Decision("weights", name, reason), skipped


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
    fields = architecture_of(state.tensors, keymap, found.where)
    has_classifier = bool(fields["num_labels"])
    if not has_classifier:
        del fields["num_labels"]
    config = RegNetConfig(**fields)
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
        ),
        skipped=skipped,
        normalisers=state.normalisers,
    )
    if is_identity_first(state.tensors, keymap):
        reason = "its first block has no projection, which only stride 1 allows"
        return source.strided(reason, downsamples=False)
    return source


def _channel_order(found: Found, config: RegNetConfig) -> tuple[ChannelOrder, Decision]:
    """What the network was trained on: as asked for, else as the framework feeds it."""
    own = found.family.preprocessing
    order, reason = own.channel_order, own.order_reason or f"{found.family.keymap.framework}'s own"
    if found.options.channel_order:
        order, reason = found.options.channel_order, "as asked for with --channel-order"
    if config.num_channels != len(IMAGENET_MEAN):
        return order, Decision("channel order", "kept", f"{config.num_channels} input channels")
    value = "BGR, stem flipped to take RGB" if order == "bgr" else "RGB, stem kept"
    return order, Decision("channel order", value, reason)
