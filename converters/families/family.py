"""A family: a framework, and all that is known of its checkpoints; what readers of several share.

What a framework has of its own (timm's ``pretrained_cfg``, say) is in its module; the list of them
is :data:`converters.families.known.FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from converters.errors import InputError
from converters.families.entries import prepared, settle
from converters.families.recognise import architecture_of
from converters.families.source import Decision, EvalTransform, Source
from regnet.config import IMAGENET_MEAN, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import AnyCheckpoint
    from converters.families.keymap import Keymap
    from converters.families.options import SourceOptions
    from converters.families.real_network import Build
    from converters.families.source import ChannelOrder
    from converters.families.wrapping import StateDict
    from converters.families.writing import Target

EMA_KEYS = frozenset({"ema_state", "state_dict_ema", "model_ema", "ema_model", "ema_state_dict"})
"""Where trainers keep averaged weights: pycls, timm, torchvision and timm, VISSL, OpenMMLab."""


class Reader(Protocol):
    """What reads a framework's checkpoint."""

    def __call__(
        self, checkpoint: AnyCheckpoint, states: Sequence[StateDict], options: SourceOptions
    ) -> Source:
        """Find out all that the checkpoint says, without reading a weight.

        Args:
            checkpoint: An open file or folder.
            states: The state dicts of this framework found in it; at least one.
            options: What the user decided.

        Raises:
            InputError: If it is a RegNet that the reference cannot be.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Family:
    """A framework, and what is the same for all of its checkpoints.

    Attributes:
        keymap: Its names.
        title: What people call it.
        package: What is installed by pip, and imported, to run its own networks.
        read: Reads its checkpoints.
        transform: How it evaluated, unless the checkpoint says otherwise.
        transform_reason: Whose rule that is.
        channel_order: What its networks were trained on.
        channel_order_reason: Whose rule that is; empty if the framework's own.
        prefers_ema: Whether it takes averaged weights itself where there are some.
        ema_keys: Which keys or prefixes mean averaged weights.
        states_evaluation: Whether its files may say how the network was evaluated; VISSL's say
            nothing, however deep they nest tensors.
        build: Builds its own network of a checkpoint; None if nobody can.
        target: How a converted folder is written back for it; None if it is not.
    """

    keymap: Keymap
    title: str
    package: str
    read: Reader
    transform: EvalTransform
    transform_reason: str
    channel_order: ChannelOrder = "rgb"
    channel_order_reason: str = ""
    prefers_ema: bool = False
    ema_keys: frozenset[str] = EMA_KEYS
    states_evaluation: bool = True
    build: Build | None = None
    target: Target | None = None


Choice = tuple["StateDict", Decision, dict[str, str]]
"""A state dict, why it was chosen, and what is left out with the reason."""


def choose_state(
    family: Family, states: Sequence[StateDict], options: SourceOptions, where: str
) -> Choice:
    """Choose between raw and averaged weights.

    Args:
        family: Whose rule decides where the user does not.
        states: What was found, of one framework; at least one.
        options: What the user decided.
        where: What error messages call the checkpoint.

    Returns:
        The chosen state dict, prepared, the decision, and what is left out with the reason.

    Raises:
        InputError: If the choice asked for is not there, the file holds several models, or an
            entry of the chosen one cannot be read.
    """
    states, skipped = _different(states)
    averaged = [state for state in states if family.ema_keys & set(state.place.split("."))]
    raw = [state for state in states if state not in averaged]
    if len(raw) > 1 or len(averaged) > 1:
        places = ", ".join(state.place for state in states)
        raise InputError(f"{where} holds several models (at {places}); save one of them alone.")
    if options.weights == "ema" and not averaged:
        raise InputError(f"{where} holds no averaged weights; leave out --weights ema.")
    if options.weights == "raw" and not raw:
        raise InputError(f"{where} holds averaged weights only; leave out --weights raw.")
    wants_ema = options.weights == "ema" or (options.weights == "best" and family.prefers_ema)
    chosen = (averaged or raw)[0] if wants_ema or not raw else raw[0]
    name = "ema" if chosen in averaged else "raw"
    others = [state for state in states if state is not chosen]
    if not others:
        reason = f"the file holds one set of weights, at {chosen.place}"
    elif options.weights == "best":
        reason = f"what {family.keymap.framework} itself takes"
    else:
        reason = "as asked for with --weights"
    skipped |= {state.place: "the weights that were not chosen" for state in others}
    state = prepared(chosen, family.keymap, where)
    return state, Decision("weights", name, reason), skipped


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


def family_source(
    family: Family, states: Sequence[StateDict], options: SourceOptions, where: str
) -> Source:
    """Make the source of a family's checkpoint.

    Args:
        family: The framework's.
        states: The state dicts found in the checkpoint, of this framework.
        options: What the user decided.
        where: What error messages call the checkpoint.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    state, weights, not_chosen = choose_state(family, states, options, where)
    settled = settle(state, family.keymap, options, where)
    state = replace(state, tensors=settled.tensors, beside={})
    choice = (state, weights, {**not_chosen, **settled.skipped})
    source = source_of(family, choice, options, where)
    heads = (settled.head,) if settled.head else ()
    return replace(source, decisions=source.decisions + heads)


def source_of(family: Family, choice: Choice, options: SourceOptions, where: str) -> Source:
    """Make the source of a state dict that is already chosen, with its head.

    Args:
        family: The framework's.
        choice: What :func:`choose_state` returned, with all that belongs to the network, and
            nothing else, among its tensors.
        options: What the user decided.
        where: What error messages call the checkpoint.

    Raises:
        InputError: If the network is none that the reference can be.
    """
    state, weights, skipped = choice
    fields = architecture_of(state.tensors, family.keymap, where)
    has_classifier = bool(fields["num_labels"])
    if not has_classifier:
        del fields["num_labels"]
    config = RegNetConfig(**fields)
    order, order_decision = channel_order(family, options, config)
    return Source(
        family=family,
        tensors=state.tensors,
        config=config,
        has_classifier=has_classifier,
        channel_order=order,
        transform=family.transform.for_channels(config.num_channels),
        decisions=(weights, order_decision, transform_decision(family)),
        skipped=skipped,
        normalisers=state.normalisers,
    )


def channel_order(
    family: Family, options: SourceOptions, config: RegNetConfig
) -> tuple[ChannelOrder, Decision]:
    """What the network was trained on: as asked for, else as the framework feeds it."""
    order = options.channel_order or family.channel_order
    asked = "as asked for with --channel-order"
    own = family.channel_order_reason or f"{family.keymap.framework}'s own"
    reason = asked if options.channel_order else own
    if config.num_channels != len(IMAGENET_MEAN):
        return order, Decision("channel order", "kept", f"{config.num_channels} input channels")
    value = "BGR, stem flipped to take RGB" if order == "bgr" else "RGB, stem kept"
    return order, Decision("channel order", value, reason)


def transform_decision(family: Family) -> Decision:
    """The transform in words."""
    return Decision("evaluation transform", family.transform.in_words, family.transform_reason)
