"""A family: a framework, and all that is known of its checkpoints; what readers of several share.

What a framework has of its own (timm's ``pretrained_cfg``, say) is in its module; the list of them
is :data:`converters.families.known.FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from converters.errors import InputError
from converters.families.entries import prepared, settle
from converters.families.linear_rule import rule_of
from converters.families.recognise import architecture_of
from converters.families.source import Decision, Source
from regnet.config import IMAGENET_MEAN, RegNetConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from pathlib import Path

    from converters.checkpoint import AnyCheckpoint
    from converters.families.keymap import Keymap
    from converters.families.options import SourceOptions
    from converters.families.real_network import Build
    from converters.families.source import ChannelOrder, Preprocessing
    from converters.families.words import Says
    from converters.families.wrapping import StateDict
    from converters.families.writing import Network

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

    What stands behind ``write`` says what its own code can build and its file can say: a file that
    it could not load strictly is not written.

    Attributes:
        keymap: Its names.
        title: What people call it.
        package: What is installed by pip, and imported, to run its own networks.
        read: Reads its checkpoints.
        preprocessing: How it evaluates and what its networks were trained on, unless the checkpoint
            says otherwise.
        prefers_ema: Whether it takes averaged weights itself where there are some.
        ema_keys: Which keys or prefixes mean averaged weights.
        states_evaluation: Whether its files may say how the network was evaluated; VISSL's say
            nothing, however deep they nest tensors.
        build: Builds its own network of a checkpoint; None if nobody can.
        write: Makes its file or folder of a converted folder, at a path that does not exist yet;
            None if it is not written back for.
        says: Its words for what shapes cannot say; what it has no word for is as in the reference
            by default.
        says_of_images: The fields of the evaluation transform that its file says; whoever loads it
            must know the others.
        loads_folder: Whether it loads a folder, or a single file.
        shortcut_last: Whether a block's shortcut follows its layers in the state dict.
        has_attention: Whether it has RegNetY.
        any_channels: Whether its stem takes other images than those of three channels.
        headless: Whether it has RegNets without a classifier.
        stage_counts: How many stages it builds, if it builds them from the linear rule alone.
        knows: Gives its name of a network that it has although no rule is found for it.
    """

    keymap: Keymap
    title: str
    package: str
    read: Reader
    preprocessing: Preprocessing
    prefers_ema: bool = False
    ema_keys: frozenset[str] = EMA_KEYS
    states_evaluation: bool = True
    build: Build | None = None
    write: Callable[[Path, Network], None] | None = None
    says: Says = field(default_factory=dict)
    says_of_images: frozenset[str] = frozenset()
    loads_folder: bool = False
    shortcut_last: bool = False
    has_attention: bool = True
    any_channels: bool = False
    headless: bool = False
    stage_counts: range | None = None
    knows: Callable[[RegNetConfig], str | None] = lambda _: None

    def require_expressible(
        self, config: RegNetConfig, where: str, *, has_classifier: bool
    ) -> None:
        """Check that the framework's own code can be this network.

        Args:
            config: Its architecture.
            where: What the message calls it.
            has_classifier: Whether it has one, or is a trunk alone.

        Raises:
            InputError: Naming the first feature that stands in the way.
        """
        obstacle = next(self._obstacles(config, has_classifier=has_classifier), None)
        if obstacle:
            raise InputError(
                f"{where} cannot be written for {self.keymap.framework}: {obstacle}; choose "
                "another framework with --to."
            )

    def _obstacles(self, config: RegNetConfig, *, has_classifier: bool) -> Iterator[str]:
        name = self.keymap.framework
        if config.layer_type == "y" and not self.has_attention:
            yield f"it is a RegNetY, and {name} has RegNetX only"
        if config.num_channels != len(IMAGENET_MEAN) and not self.any_channels:
            yield f"it takes {config.num_channels} channels, and the stem of {name} takes three"
        if not (has_classifier and config.num_labels) and not self.headless:
            yield f"it has no classifier, and every RegNet of {name} has one"
        yield from self._invisible_obstacles(config)
        if self.stage_counts:
            yield from self._rule_obstacles(config, self.stage_counts)

    def _invisible_obstacles(self, config: RegNetConfig) -> Iterator[str]:
        """Obstacles in what the tensors do not show."""
        name = self.keymap.framework
        has_attention = config.layer_type == "y"  # in which frameworks put the same activation
        activations = {"relu"} if has_attention else self._sayable("hidden_act", "relu")
        if config.hidden_act not in activations:
            yield f"its activation is {config.hidden_act}, which no {name} file can say of it"
        if config.downsample_in_first_stage not in self._sayable("downsample_in_first_stage", True):
            yield f"its first stage does not downsample, which no {name} file can say"

    def _sayable(self, name: str, default: object) -> set[object]:
        """The values of a field of the configuration that its file can say."""
        return set(self.says[name].ours.values()) if name in self.says else {default}

    def _rule_obstacles(self, config: RegNetConfig, stage_counts: range) -> Iterator[str]:
        name, stages = self.keymap.framework, len(config.depths)
        if stages not in stage_counts:
            yield f"it has {stages} stages, and {name} builds {_in_words(stage_counts)}"
        elif not (rule_of(config) or self.knows(config)):
            yield (
                f"{name} builds stages from the quantised linear rule, which gives no widths "
                f"{_join(config.hidden_sizes)} at depths {_join(config.depths)}"
            )


def write_flat(path: Path, network: Network) -> None:
    """Write a file of nothing but tensors; for :attr:`Family.write`."""
    network.save(path, network.state_dict())


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
    transform, reason = family.preprocessing.transform, family.preprocessing.reason
    return Source(
        family=family,
        tensors=state.tensors,
        config=config,
        has_classifier=has_classifier,
        channel_order=order,
        transform=transform.for_channels(config.num_channels),
        decisions=(
            weights,
            order_decision,
            Decision("evaluation transform", transform.in_words, reason),
        ),
        skipped=skipped,
        normalisers=state.normalisers,
    )


def channel_order(
    family: Family, options: SourceOptions, config: RegNetConfig
) -> tuple[ChannelOrder, Decision]:
    """What the network was trained on: as asked for, else as the framework feeds it."""
    own = family.preprocessing
    order, reason = own.channel_order, own.order_reason or f"{family.keymap.framework}'s own"
    if options.channel_order:
        order, reason = options.channel_order, "as asked for with --channel-order"
    if config.num_channels != len(IMAGENET_MEAN):
        return order, Decision("channel order", "kept", f"{config.num_channels} input channels")
    value = "BGR, stem flipped to take RGB" if order == "bgr" else "RGB, stem kept"
    return order, Decision("channel order", value, reason)


def _join(numbers: Iterable[int]) -> str:
    return "/".join(map(str, numbers))


def _in_words(counts: range) -> str:
    return f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else str(counts[0])
