"""Which RegNet the operations of an exported graph are, and what each of its tensors is for.

Tensors are placed by where they stand in the graph (`converters.families.graph_walk`); no name is
looked at. What comes out is proven: laid out once more from the configuration that was found, every
operation of the graph is one of the network's, in its place and with its numbers, and none is left
over.

A convolution with a bias and no batch norm behind it has taken its batch norm in, which cannot be
undone. It gets one that does nothing but add the bias: weight 1, mean 0, and a variance with which
epsilon makes 1.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.checkpoint.aten import DOMAIN, ON_SIZES
from converters.errors import InputError
from converters.families import graph_aten, graph_onnx
from converters.families.graph_norms import EVONORM, GROUP_NORM
from converters.families.graph_values import GraphReader, OtherNodeError
from converters.families.graph_walk import BATCH_NORM, NORMS, Walk
from converters.families.keymap import REFERENCE
from converters.families.recognise import architecture_of
from regnet.architecture import (
    PIXELS,
    Act,
    Add,
    Architecture,
    AveragePool,
    Conv,
    EvoNorm,
    GroupNorm,
    Norm,
    Pool,
    Scale,
)
from regnet.config import RegNetConfig
from regnet.wider import NORM_EPS, WIDER_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.checkpoint import StoredTensor
    from converters.checkpoint.graph import Graph
    from converters.families.graph_values import Operators, Step
    from regnet.architecture import Operation

OPERATORS: Mapping[str, Operators] = {
    "": graph_onnx.OPERATORS,
    DOMAIN: graph_aten.OPERATORS,
    ON_SIZES: graph_aten.ON_SIZES,
}
"""By the domain of a node."""

_WIDER = {*WIDER_DEFAULTS, "groups_width"}

_KINDS: Mapping[type[Operation], str] = {
    Conv: "conv",
    Norm: BATCH_NORM,
    GroupNorm: GROUP_NORM,
    EvoNorm: EVONORM,
    Act: "act",
    AveragePool: "average",
    Pool: "pool",
    Scale: "scale",
    Add: "add",
}
"""What steps are called that compute an operation of a trunk."""


@dataclass(frozen=True)
class GraphNetwork:
    """A RegNet that was found in a graph.

    Attributes:
        tensors: By the reference's names, as :data:`converters.families.keymap.REFERENCE` has them.
        filled: Tensors that the graph has none of, by the same names: each is this number, over and
            over.
        config: The network.
        has_classifier: Whether it has one, or is a trunk alone.
        folded: The convolutions that have taken their batch norm in, as what precedes
            ``.convolution`` in the name of a kernel, to the name of the bias that they have of it.
        shows_eps: Whether a norm is left that has the network's epsilon.
    """

    tensors: Mapping[str, StoredTensor]
    filled: Mapping[str, float]
    config: RegNetConfig
    has_classifier: bool
    folded: Mapping[str, str]
    shows_eps: bool

    def differs_from(self, config: RegNetConfig) -> bool:
        """Whether a network computes something else; of epsilon, as far as the graph shows it."""
        if not self.shows_eps:
            config = RegNetConfig.from_dict(config.to_dict(), norm_eps=self.config.norm_eps)
        one, other = (Architecture.of(c, classifier=False) for c in (self.config, config))
        return one.operations != other.operations


def neutral(eps: float) -> dict[str, float]:
    """Numbers of a batch norm that only adds its bias."""
    return {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - eps}


def network_of(graph: Graph, where: str) -> GraphNetwork:
    """Find the RegNet that a graph is.

    Args:
        graph: Of an exported file.
        where: What messages call it.

    Raises:
        InputError: If it is none, or not wholly one; a node is named.
    """
    walk = Walk(GraphReader(graph, where, OPERATORS))
    walk.run()
    walk.require_all_taken()
    config = _config(walk)
    _prove(walk, config)
    filled = {
        bias.removesuffix("bias") + leaf: number
        for bias in walk.folded.values()
        for leaf, number in neutral(config.norm_eps).items()
    }
    return GraphNetwork(
        tensors=walk.tensors,
        filled=filled,
        config=config,
        has_classifier=walk.has_classifier,
        folded=walk.folded,
        shows_eps=any(step.kind in NORMS for step in walk.reader.steps),
    )


# The configuration: from shapes, and what only the graph shows.


def _config(walk: Walk) -> RegNetConfig:
    """What the walk found.

    Raises:
        InputError: If no configuration describes it.
    """
    fields: dict[str, Any] = architecture_of(walk.tensors, REFERENCE, walk.where, _WIDER)
    if not fields["num_labels"]:
        del fields["num_labels"]
    grouped = (
        walk.holders[REFERENCE.spell("grouped.conv", {"stage": stage, "block": 0})]
        for stage in range(len(fields["depths"]))
    )
    try:
        return RegNetConfig(
            **fields
            | {
                "hidden_act": _activation(walk),
                "se_act": _common(walk.gates, "function", "relu"),
                "strides": [step.stride for step in grouped],
                "stem_strides": [step.stride for step in _stem(walk)],
                "shortcut": _shortcut(walk),
                "output_act": walk.output_act,
                "preactivation": walk.preactivation,
                "final_act": walk.final_act,
                **_norm(walk),
                "padding": "same" if _pads_as_tensorflow(walk) else "symmetric",
            }
        )
    except ValueError as error:
        raise InputError(f"{walk.where}: {str(error).rstrip('.')}.") from error


def _activation(walk: Walk) -> str:
    """The one of the whole network; EvoNorms, which have none, come with silu."""
    function: str = _common(walk.activations, "function", "silu")
    other = next((s for s in walk.activations if s.function != function), None)
    if other is not None or function == "sigmoid":
        raise walk.unfit(
            other or walk.activations[0],
            f"computes {(other or walk.activations[0]).function}, and a RegNet has one "
            "activation, which is no sigmoid, in all of its blocks",
        )
    return function


def _common(steps: Sequence[Step], attribute: str, usual: Any) -> Any:
    """What most of some steps have; with none, what is usual."""
    found = Counter(getattr(step, attribute) for step in steps)
    return found.most_common(1)[0][0] if found else usual


def _stem(walk: Walk) -> Iterator[Step]:
    """Its convolutions."""
    return (
        step
        for name, step in walk.holders.items()
        if (REFERENCE.parse(name) or ("",))[0] in {"stem.conv", "stems.conv"}
    )


def _shortcut(walk: Walk) -> str:
    """Of blocks that change the shape; one that has none says so for all of them."""
    roles = {(REFERENCE.parse(name) or ("",))[0] for name in walk.holders}
    if walk.shortcut == "none" and "shortcut.conv" in roles:
        return "conv"
    return walk.shortcut


def _norm(walk: Walk) -> dict[str, Any]:
    """Which norm it has, with its numbers."""
    steps = [step for step in walk.reader.steps if step.kind in NORMS]
    kind = _common(steps, "kind", BATCH_NORM)
    eps = _common(steps, "eps", NORM_EPS)
    for step in steps:
        if step.eps != eps:
            what = f"has epsilon {step.eps:g} where {eps:g} belongs"
            raise OtherNodeError(str(walk.unfit(step, what)))
    if kind == BATCH_NORM:
        return {"norm_eps": eps}
    sizes = Counter(s.tensors["weight"].shape[0] // s.groups for s in steps if s.kind == kind)
    name = {GROUP_NORM: "group", EVONORM: "evonorm-s0a"}[kind]
    return {"norm": name, "norm_eps": eps, "norm_group_size": sizes.most_common(1)[0][0]}


def _pads_as_tensorflow(walk: Walk) -> bool:
    return any(step.padding == "same" for step in walk.holders.values())


# The proof: what the configuration says is what the graph has.


def _prove(walk: Walk, config: RegNetConfig) -> None:
    """Check that every operation of the trunk is in the graph, with its numbers and inputs.

    Raises:
        InputError: If one is not.
    """
    values = {PIXELS: walk.reader.image}
    channels = walk.reader.shapes[walk.reader.image][1]
    if isinstance(channels, int) and channels != config.num_channels:
        what = f"reads {config.num_channels} channels where the images have {channels}"
        raise walk.unfit(next(_stem(walk)), what)
    biases = set(walk.folded.values())
    for operation in Architecture.of(config, classifier=False).operations:
        inputs = tuple(values[value] for value in operation.inputs)
        names = [slot.name for slot in operation.slots]
        if biases.intersection(names) and isinstance(operation, Norm):
            values[operation.output] = inputs[0]  # which its convolution has taken in
            continue
        step = walk.holders.get(names[0]) if names else _reading(walk, operation, inputs)
        if step is None:
            if isinstance(operation, Pool) and inputs[0] in walk.reader.outputs:
                return  # what is not pooled is the features alone
            raise InputError(
                f"{walk.where}: lacks the {_word(operation)} that a RegNet of its widths and "
                f"strides has at {operation.name}."
            )
        for what, ours, theirs in _compared(operation, step):
            if ours != theirs:
                raise walk.unfit(
                    step, f"has {what} {theirs} where {operation.name} of a RegNet has {ours}"
                )
        if sorted(step.inputs) != sorted(inputs):
            raise walk.unfit(step, f"does not read what {operation.name} of a RegNet reads")
        values[operation.output] = step.output


def _word(operation: Operation) -> str:
    """What an operation is called that is missing."""
    is_shortcut = ".shortcut" in operation.name or isinstance(operation, Add)
    return "shortcut" if is_shortcut else _KINDS[type(operation)]


def _reading(walk: Walk, operation: Operation, inputs: tuple[str, ...]) -> Step | None:
    """The step without tensors that reads some values, and is of an operation's kind."""
    kind = _KINDS[type(operation)]
    found = [step for step in walk.readers[inputs[0]] if step.kind == kind]
    return found[0] if len(found) == 1 else None


def _compared(operation: Operation, step: Step) -> Iterator[tuple[str, object, object]]:
    """What an operation and a step have to have in common."""
    yield "kind", _KINDS[type(operation)], step.kind
    match operation:
        case Conv(stride=stride, groups=groups, kernel_size=size, padding=padding):
            yield "stride", stride, step.stride
            yield "group", groups, step.groups
            yield "kernel", size, step.tensors["weight"].shape[2]
            yield "padding", padding, step.padding
        case Norm(eps=eps):
            yield "epsilon", eps, step.eps
        case GroupNorm(groups=groups, eps=eps) | EvoNorm(groups=groups, eps=eps):
            yield "epsilon", eps, step.eps
            yield "groups", groups, step.groups
        case Act(function=function):
            yield "activation", function, step.function
        case AveragePool(stride=stride):
            yield "stride", stride, step.stride
