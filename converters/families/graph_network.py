"""Which RegNet the operations of an exported graph are, and what each of its tensors is for.

Tensors are placed by where they stand in the graph; no name is looked at. What comes out is proven:
every operation of the graph is one of the network's, in its place and with its numbers, and none is
left over.

A convolution with a bias and no batch norm behind it has taken its batch norm in, which cannot be
undone. It gets one that does nothing but add the bias: weight 1, mean 0, and a variance with which
epsilon makes 1.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from converters.checkpoint.aten import DOMAIN
from converters.errors import InputError
from converters.families import graph_aten, graph_onnx
from converters.families.graph_values import GraphReader, unfit
from converters.families.keymap import REFERENCE
from converters.families.recognise import architecture_of
from regnet.architecture import KERNEL, Architecture, Conv
from regnet.config import Activation, RegNetConfig
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.checkpoint.graph import Graph
    from converters.families.graph_values import Operators, Step

OPERATORS: Mapping[str, Operators] = {"": graph_onnx.OPERATORS, DOMAIN: graph_aten.OPERATORS}
"""By the domain of a node."""

NEUTRAL = {"weight": 1.0, "running_mean": 0.0, "running_var": 1.0 - NORM_EPS}
"""Numbers of a batch norm that only adds its bias."""


@dataclass(frozen=True)
class GraphNetwork:
    """A RegNet that was found in a graph.

    Attributes:
        tensors: By the reference's names, as :data:`converters.families.keymap.REFERENCE` has them.
        filled: Tensors that the graph has none of, by the same names: each is this number, over and
            over.
        config: The network.
        has_classifier: Whether it has one, or is a trunk alone.
        folded: The convolutions that have taken their batch norm in, as ``stem`` or by the place of
            a module: what precedes ``.convolution`` in the name of a kernel.
    """

    tensors: Mapping[str, StoredTensor]
    filled: Mapping[str, float]
    config: RegNetConfig
    has_classifier: bool
    folded: tuple[str, ...]


def network_of(graph: Graph, where: str) -> GraphNetwork:
    """Find the RegNet that a graph is.

    Args:
        graph: Of an exported file.
        where: What messages call it.

    Raises:
        InputError: If it is none, or not wholly one; a node is named.
    """
    return _Walk(GraphReader(graph, where, OPERATORS)).network()


@dataclass
class _Walk:
    """Goes through the operations in the order of a RegNet, and takes each once.

    Attributes:
        activations: What each block computes, with the step.
        convolutions: Name of the kernel to the step.
    """

    reader: GraphReader
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    filled: dict[str, float] = field(default_factory=dict)
    folded: list[str] = field(default_factory=list)
    activations: list[Step] = field(default_factory=list)
    convolutions: dict[str, Step] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.where = self.reader.where
        self.readers: dict[str, list[Step]] = defaultdict(list)
        for step in self.reader.steps:
            for value in step.inputs:
                self.readers[value].append(step)
        self.taken: set[int] = set()
        self.last: dict[str, int] = {"last": 2}

    def network(self) -> GraphNetwork:
        value = self.activation(
            self.conv_norm(self.sole("conv", self.reader.image, "stem"), "stem")
        )
        stage, block = -1, 0
        while not self.is_pooled(value):
            value, starts = self.block(value, stage, block)
            stage, block = (stage + 1, 1) if starts else (stage, block + 1)
        if stage < 0:
            raise InputError(f"{self.where}: has no blocks behind its stem, so it is no RegNet.")
        has_classifier = self.finish(value)
        self.require_all_taken()
        config = self.config()
        self.require_geometry(config)
        return GraphNetwork(self.tensors, self.filled, config, has_classifier, tuple(self.folded))

    # One layer after another; each gives the name of the value that it ends with.

    def block(self, value: str, stage: int, block: int) -> tuple[str, bool]:
        """A block; the value behind it, and whether it begins a stage."""
        reduce, shortcut = self.branches(value)
        self.take(reduce)
        if shortcut is not None:
            self.take(shortcut)
        starts = shortcut is not None or stage < 0
        place = {"stage": stage + starts, "block": 0 if starts else block}
        beside = value if shortcut is None else self.conv_norm(shortcut, "shortcut", place)
        value = self.activation(self.conv_norm(reduce, "reduce", place))
        grouped = self.sole("conv", value, "the grouped convolution of a block")
        value = self.activation(self.conv_norm(grouped, "grouped", place))
        value, last = self.squeeze_excite(value, place)
        expand = self.sole("conv", value, "the last convolution of a block")
        value = self.conv_norm(expand, "expand", place | {"last": last})
        added = self.sole("add", value, "the sum of a block")
        if sorted(added.inputs) != sorted((value, beside)):
            raise self.unfit(added, "does not add a block to its shortcut")
        return self.activation(added.output), starts

    def branches(self, value: str) -> tuple[Step, Step | None]:
        """What reads a block's input: its first convolution, and the one of its shortcut."""
        readers = self.readers[value]
        convs = [step for step in readers if step.kind == "conv"]
        others = [step for step in readers if step.kind != "conv"]
        if len(convs) == 1 and [step.kind for step in others] == ["add"]:
            return convs[0], None
        if len(convs) == 2 and not others:  # noqa: PLR2004 -- of the block, and of its shortcut
            ends = [self.behind(conv) for conv in convs]
            if ends == ["act", "add"]:
                return convs[0], convs[1]
            if ends == ["add", "act"]:
                return convs[1], convs[0]
        strange = [conv for conv in convs if self.behind(conv) not in {"act", "add"}]
        if strange and not others:
            behind = self.readers[strange[0].output]
            while len(behind) == 1 and behind[0].kind == "norm":
                behind = self.readers[behind[0].output]
            raise self.unfit(
                next((step for step in behind if step.kind not in {"act", "add"}), strange[0]),
                "stands where an activation or the sum of a block belongs alone",
            )
        if not readers:
            raise InputError(f"{self.where}: ends in a block, where a RegNet has global pooling.")
        first = next(iter(others or convs))
        raise self.unfit(first, "stands where a block of a RegNet begins, and is of none")

    def behind(self, conv: Step) -> str:
        """The kind of what stands behind a convolution and its batch norm."""
        kinds = self.readers[conv.output]
        if len(kinds) == 1 and kinds[0].kind == "norm":
            kinds = self.readers[kinds[0].output]
        return kinds[0].kind if len(kinds) == 1 else ""

    def conv_norm(self, conv: Step, part: str, place: Mapping[str, int] | None = None) -> str:
        """A convolution and its batch norm, which may be in it."""
        fields: Mapping[str, str | int] = place or {}
        name = REFERENCE.spell(f"{part}.conv", fields)
        self.convolutions[name] = conv
        self.tensors[name] = conv.tensors["weight"]
        spelled = {
            leaf: REFERENCE.spell(f"{part}.norm", {**fields, "norm": leaf})
            for leaf in ("weight", "bias", "running_mean", "running_var")
        }
        readers = self.readers[conv.output]
        if "bias" in conv.tensors:
            if any(step.kind == "norm" for step in readers):
                raise self.unfit(conv, "has a bias and a batch norm behind it")
            self.folded.append(name.removesuffix(KERNEL))
            self.tensors[spelled["bias"]] = conv.tensors["bias"]
            self.filled |= {spelled[leaf]: number for leaf, number in NEUTRAL.items()}
            return conv.output
        norm = self.sole("norm", conv.output, "the batch norm of a convolution without bias")
        self.tensors |= {spelled[leaf]: tensor for leaf, tensor in norm.tensors.items()}
        return norm.output

    def activation(self, value: str) -> str:
        step = self.sole("act", value, "an activation")
        self.activations.append(step)
        return step.output

    def squeeze_excite(self, value: str, place: Mapping[str, int]) -> tuple[str, int]:
        """The value behind it, if there is any; and how the reference counts the next layer."""
        kinds = sorted(step.kind for step in self.readers[value])
        if kinds != ["pool", "scale"]:
            return value, 2
        scale = next(step for step in self.readers[value] if step.kind == "scale")
        pool = next(step for step in self.readers[value] if step.kind == "pool")
        self.take(scale)
        self.take(pool)
        gate = pool.output
        for part, function in (("squeeze", "relu"), ("excite", "sigmoid")):
            conv = self.sole("conv", gate, f"the convolution that is to {part} features")
            for affine in ("weight", "bias"):
                if affine not in conv.tensors:
                    raise self.unfit(conv, "has no bias in squeeze-and-excitation")
                name = REFERENCE.spell(part, {**place, "affine": affine})
                self.tensors[name] = conv.tensors[affine]
            self.convolutions[REFERENCE.spell(part, {**place, "affine": "weight"})] = conv
            act = self.sole("act", conv.output, f"the {function} of squeeze-and-excitation")
            if act.function != function:
                raise self.unfit(
                    act, f"computes {act.function} in squeeze-and-excitation, which has {function}"
                )
            gate = act.output
        if scale.inputs != (value, gate):
            raise self.unfit(scale, "does not multiply a value with its gate")
        return scale.output, 3

    def is_pooled(self, value: str) -> bool:
        """Whether a block's output is that of the trunk: what reads it is global pooling alone."""
        readers = self.readers[value]
        if [step.kind for step in readers] == ["pool"]:
            return True
        return not readers and value in self.reader.outputs

    def finish(self, value: str) -> bool:
        """Pooling and classifier, and that the graph gives what they make; whether it has one."""
        known = [value]
        names = self.reader.outputs
        while len(self.readers[value]) == 1:
            (step,) = self.readers[value]
            if step.kind != {1: "pool", 2: "flatten", 3: "linear"}.get(len(known)):
                break
            if step.kind == "flatten" and step.features not in {0, self.width}:
                raise self.unfit(step, f"leaves {step.features} features of {self.width}")
            if step.kind == "linear":
                self.classifier(step)
            self.take(step)
            value = step.output
            known.append(value)
        has_classifier = len(known) == 4  # noqa: PLR2004 -- features, pooled, flattened, logits
        strange = next((name for name in names if name not in known), None)
        if strange is None and names and (not has_classifier or known[-1] in names):
            return has_classifier
        made = [step for step in self.reader.steps if step.output == strange]
        if made:
            raise self.unfit(made[0], "makes an output, but is no end of a RegNet")
        raise InputError(f"{self.where}: does not give what its last layer computes.")

    @property
    def width(self) -> int:
        """Channels of the last block."""
        return next(reversed(self.convolutions.values())).tensors["weight"].shape[0]

    def classifier(self, step: Step) -> None:
        for affine in ("weight", "bias"):
            if affine not in step.tensors:
                raise self.unfit(step, "is a classifier without a bias, which no RegNet has")
            self.tensors[REFERENCE.spell("classifier", {"affine": affine})] = step.tensors[affine]

    # Taking operations, each once.

    def sole(self, kind: str, value: str, what: str) -> Step:
        """Take the only operation that reads a value, which must be of a kind."""
        readers = self.readers[value]
        if not readers:
            made = next((step for step in self.reader.steps if step.output == value), None)
            if made is None:
                raise InputError(f"{self.where}: nothing reads its images, so it is no RegNet.")
            raise self.unfit(made, f"is followed by nothing where {what} belongs")
        wrong = next((step for step in readers if step.kind != kind), None)
        if wrong is not None or len(readers) > 1:
            raise self.unfit(wrong or readers[1], f"stands where {what} belongs alone")
        self.take(readers[0])
        return readers[0]

    def take(self, step: Step) -> None:
        self.taken.add(id(step))

    def require_all_taken(self) -> None:
        """Refuse what is computed beside the network."""
        for step in self.reader.steps:
            if id(step) not in self.taken:
                raise self.unfit(step, "has no place in a RegNet")

    def unfit(self, step: Step, what: str) -> InputError:
        return unfit(self.where, step.node, what)

    # What the whole is.

    def config(self) -> RegNetConfig:
        """From shapes, and what only the graph shows: activation and the first stride.

        Raises:
            InputError: If no configuration describes it.
        """
        fields: dict[str, Any] = architecture_of(self.tensors, REFERENCE, self.where)
        if not fields["num_labels"]:
            del fields["num_labels"]
        other = next(
            (s for s in self.activations if s.function != self.activations[0].function), None
        )
        function = self.activations[0].function
        if other is not None or function == "sigmoid":
            raise self.unfit(
                other or self.activations[0],
                f"computes {(other or self.activations[0]).function}, and a RegNet has one "
                "activation, which is no sigmoid, in all of its blocks",
            )
        grouped = self.convolutions[REFERENCE.spell("grouped.conv", {"stage": 0, "block": 0})]
        try:
            return RegNetConfig(
                **fields,
                hidden_act=cast("Activation", function),
                downsample_in_first_stage=grouped.stride != 1,
            )
        except ValueError as error:
            raise InputError(f"{self.where}: {str(error).rstrip('.')}.") from error

    def require_geometry(self, config: RegNetConfig) -> None:
        """Check every convolution's stride, groups and kernel, which tensors do not show.

        And that the images have the channels that the stem reads, where the graph states them.
        """
        if self.reader.channels not in {None, config.num_channels}:
            stem = next(iter(self.convolutions.values()))
            raise self.unfit(
                stem,
                f"reads {config.num_channels} channels where the images have "
                f"{self.reader.channels}",
            )
        for operation in Architecture.of(config, classifier=False).operations:
            if not isinstance(operation, Conv):
                continue
            step = self.convolutions.get(operation.slots[0].name)
            if step is None:
                raise InputError(
                    f"{self.where}: lacks the shortcut that a RegNet of its widths and strides has "
                    f"at {operation.name}."
                )
            found = step.stride, step.groups, step.tensors["weight"].shape[2]
            wanted = operation.stride, operation.groups, operation.kernel_size
            for what, ours, theirs in zip(
                ("stride", "group", "kernel"), wanted, found, strict=True
            ):
                if ours != theirs:
                    raise self.unfit(
                        step, f"has {what} {theirs} where {operation.name} of a RegNet has {ours}"
                    )
