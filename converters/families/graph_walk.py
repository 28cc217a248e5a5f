"""The way through the operations of a graph in the order of a RegNet: what each tensor is for.

Tensors are placed by where they stand; no name is looked at. Whether what is found is wholly a
RegNet is asked afterwards, by `converters.families.graph_network`.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.graph_norms import EVONORM, GROUP_NORM
from converters.families.graph_values import unfit
from converters.families.keymap import REFERENCE
from regnet.architecture import KERNEL

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from converters.checkpoint import StoredTensor
    from converters.families.graph_values import GraphReader, Step

    Place = Mapping[str, str | int]

BATCH_NORM = "norm"
NORMS = frozenset({BATCH_NORM, GROUP_NORM, EVONORM})
"""Kinds of steps that are one."""

_SPATIAL = 3
"""Height of the kernels of a stem, which tells its convolutions from those of blocks."""


@dataclass
class Walk:
    """Takes each operation once.

    Attributes:
        tensors: By the reference's names.
        holders: What reads a tensor, by the name of the first of its tensors.
        folded: The convolutions that have taken their batch norm in, as what precedes
            ``.convolution`` in the name of a kernel, to the name of the bias that they have of it.
        activations: What blocks, stem and head compute.
        gates: What squeeze-and-excitation computes between its convolutions.
        preactivation, output_act, final_act, shortcut: As `RegNetConfig` has them.
        has_classifier: Whether the network has one, or is a trunk alone.
    """

    reader: GraphReader
    tensors: dict[str, StoredTensor] = field(default_factory=dict)
    holders: dict[str, Step] = field(default_factory=dict)
    folded: dict[str, str] = field(default_factory=dict)
    activations: list[Step] = field(default_factory=list)
    gates: list[Step] = field(default_factory=list)
    output_act: bool = True
    final_act: bool = False
    shortcut: str = "conv"
    has_classifier: bool = False

    def __post_init__(self) -> None:
        self.where = self.reader.where
        self.readers: dict[str, list[Step]] = defaultdict(list)
        self.makers = {step.output: step for step in self.reader.steps}
        for step in self.reader.steps:
            for value in step.inputs:
                self.readers[value].append(step)
        sums = [step for step in self.reader.steps if step.kind == "add"]
        self.preactivation = any(self._is_bare(value) for step in sums for value in step.inputs)
        self.taken: set[int] = set()

    def run(self) -> None:
        """Go from the images to the outputs.

        Raises:
            InputError: If something stands where a RegNet has something else; a node is named.
        """
        value = self.stem()
        stage, block = -1, 0
        while not self.ends_at(value):
            value, starts = self.block(value, stage, block)
            stage, block = (stage + 1, 1) if starts else (stage, block + 1)
        if stage < 0:
            raise InputError(f"{self.where}: has no blocks behind its stem, so it is no RegNet.")
        self.finish(self.head(value))

    # One part after another; each gives the name of the value that it ends with.

    def stem(self) -> str:
        """The 3x3 convolutions in front of all blocks."""
        first = self.sole("conv", self.reader.image, "stem")
        convs = [first]
        while len(behind := self.readers[self.behind_norm_act(convs[-1].output)]) == 1 and (
            behind[0].kind == "conv" and behind[0].tensors["weight"].shape[2] == _SPATIAL
        ):
            convs += behind
        value = self.reader.image
        for index, conv in enumerate(convs):
            self.take(conv)
            part, place = ("stems", {"index": index}) if len(convs) > 1 else ("stem", {})
            value = self.convolution(conv, part, place)
            value = value if self.preactivation else self.norm_act(value, part, place)
        return value

    def block(self, value: str, stage: int, block: int) -> tuple[str, bool]:
        """A block; the value behind it, and whether it begins a stage."""
        beside = self.behind_norm_act(value) if self.preactivation else value
        reduce, shortcut, adds = self.branches(beside)
        starts = stage < 0 or shortcut is not None or not adds
        place = {"stage": stage + starts, "block": 0 if starts else block}
        if self.preactivation:
            self.norm_act(value, "preact", place)
        self.take(reduce)
        if shortcut is not None:
            beside = self.projection(shortcut, place)
        value = self.convolution(reduce, "reduce", place)
        value = self.norm_act(value, "grouped" if self.preactivation else "reduce", place)
        grouped = self.sole("conv", value, "the grouped convolution of a block")
        value = self.convolution(grouped, "grouped", place)
        if not self.preactivation:
            value = self.norm_act(value, "grouped", place)
        value, last = self.squeeze_excite(value, place)
        if self.preactivation:
            value = self.norm_act(value, "expand", place | {"last": last})
        expand = self.sole("conv", value, "the last convolution of a block")
        value = self.layer_end(expand, "expand", place | {"last": last})
        if adds:
            added = self.sole("add", value, "the sum of a block")
            if sorted(added.inputs) != sorted((value, beside)):
                raise self.unfit(added, "does not add a block to its shortcut")
            value = added.output
        else:
            self.shortcut = "none"
        if stage < 0 and not self.preactivation:
            self.output_act = [step.kind for step in self.readers[value]] == ["act"]
        if self.output_act and not self.preactivation:
            value = self.activation(value)
        return value, starts

    def branches(self, value: str) -> tuple[Step, Step | None, bool]:
        """What reads a block's input: its first convolution, its shortcut, and whether a sum is."""
        readers = self.readers[value]
        convs = [step for step in readers if step.kind == "conv"]
        others = [step for step in readers if step.kind != "conv"]
        match len(convs), [step.kind for step in others]:
            case 1, []:
                return convs[0], None, False
            case 1, ["add"]:
                return convs[0], None, True
            case 1, ["average"]:
                return convs[0], others[0], True
            case 2, []:
                ends = [self.behind(conv) for conv in convs]
                if ends == ["act", "add"]:
                    return convs[0], convs[1], True
                if ends == ["add", "act"]:
                    return convs[1], convs[0], True
        strange = [conv for conv in convs if self.behind(conv) not in {"act", "add"}]
        if strange and not others:
            behind = self.readers[strange[0].output]
            while len(behind) == 1 and behind[0].kind in NORMS:
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
        """The kind of what stands behind a convolution and its norm; of an EvoNorm, ``act``."""
        kinds = self.readers[conv.output]
        if len(kinds) == 1 and kinds[0].kind in NORMS:
            if "v" in kinds[0].tensors:
                return "act"
            kinds = self.readers[kinds[0].output]
        return kinds[0].kind if len(kinds) == 1 else ""

    def behind_norm_act(self, value: str) -> str:
        """The value behind a norm and an activation, where these are all that reads another."""
        for kinds in (NORMS, {"act"}):
            readers = self.readers[value]
            if len(readers) == 1 and readers[0].kind in kinds:
                value = readers[0].output
        return value

    def projection(self, first: Step, place: Place) -> str:
        """The convolution of a shortcut, perhaps of means."""
        self.take(first)
        if first.kind == "average":
            self.shortcut = "avg"
            first = self.sole("conv", first.output, "the convolution of a shortcut")
        return self.layer_end(first, "shortcut", place)

    def layer_end(self, conv: Step, part: str, place: Place) -> str:
        """A convolution whose norm, if it is followed by one, is no activation."""
        value = self.convolution(conv, part, place)
        if not self.preactivation:
            return self.norm_act(value, part, place, activates=False)
        if "bias" in conv.tensors:
            raise self.unfit(conv, "has a bias, and no batch norm that it could have of it")
        return value

    def convolution(self, conv: Step, part: str, place: Place) -> str:
        """A convolution that is taken already, of a part of the network."""
        name = REFERENCE.spell(f"{part}.conv", place)
        self.holders[name] = conv
        self.tensors[name] = conv.tensors["weight"]
        return conv.output

    def norm_act(self, value: str, part: str, place: Place, *, activates: bool = True) -> str:
        """A norm and, unless the layer is linear, an activation, which an EvoNorm is itself."""
        conv, readers = self.makers[value], self.readers[value]
        bias = conv.tensors.get("bias") if conv.kind == "conv" else None
        if bias is not None:
            if any(step.kind in NORMS for step in readers):
                raise self.unfit(conv, "has a bias and a batch norm behind it")
            name = REFERENCE.spell(f"{part}.norm", {**place, "norm": "bias"})
            kernel = next(name for name, step in self.holders.items() if step is conv)
            self.folded[kernel.removesuffix(KERNEL)] = name
            self.tensors[name] = bias
            return self.activation(value) if activates else value
        norm = self.sole(NORMS, value, "the batch norm of a convolution without bias")
        for leaf, tensor in norm.tensors.items():
            name = REFERENCE.spell(f"{part}.norm", {**place, "norm": leaf})
            self.holders.setdefault(name, norm)
            self.tensors[name] = tensor
        if norm.kind != EVONORM:
            return self.activation(norm.output) if activates else norm.output
        if ("v" in norm.tensors) != activates:
            raise self.unfit(norm, f"is {'no' if activates else 'an'} activation, as well")
        return norm.output

    def activation(self, value: str) -> str:
        """An activation that nothing stands beside."""
        step = self.sole("act", value, "an activation")
        self.activations.append(step)
        return step.output

    def squeeze_excite(self, value: str, place: Place) -> tuple[str, int]:
        """The value behind it, if there is any; and how the reference counts the next layer."""
        kinds = sorted(step.kind for step in self.readers[value])
        if kinds != ["pool", "scale"]:
            return value, 2
        scale = next(step for step in self.readers[value] if step.kind == "scale")
        pool = next(step for step in self.readers[value] if step.kind == "pool")
        self.take(scale)
        self.take(pool)
        gate = pool.output
        for part in ("squeeze", "excite"):
            conv = self.sole("conv", gate, f"the convolution that is to {part} features")
            for affine in ("weight", "bias"):
                if affine not in conv.tensors:
                    raise self.unfit(conv, "has no bias in squeeze-and-excitation")
                name = REFERENCE.spell(part, {**place, "affine": affine})
                self.tensors[name] = conv.tensors[affine]
            self.holders[REFERENCE.spell(part, {**place, "affine": "weight"})] = conv
            act = self.sole("act", conv.output, "an activation of squeeze-and-excitation")
            if (act.function == "sigmoid") != (part == "excite"):
                raise self.unfit(
                    act,
                    f"computes {act.function} in squeeze-and-excitation, which has a sigmoid last",
                )
            self.gates += [act] if part == "squeeze" else []
            gate = act.output
        if scale.inputs != (value, gate):
            raise self.unfit(scale, "does not multiply a value with its gate")
        return scale.output, 3

    # The end.

    def ends_at(self, value: str) -> bool:
        """Whether no block reads a value: a head does, an activation alone, or global pooling."""
        readers = self.readers[value]
        if len(readers) == 1 and readers[0].kind in {"conv", "act"}:
            return self.is_pooled(self.behind_norm_act(readers[0].output))
        return self.is_pooled(value)

    def is_pooled(self, value: str) -> bool:
        """Whether a value is the trunk's: what reads it is global pooling alone."""
        readers = self.readers[value]
        if [step.kind for step in readers] == ["pool"]:
            return True
        return not readers and value in self.reader.outputs

    def head(self, value: str) -> str:
        """What stands between the last stage and pooling."""
        match self.readers[value]:
            case [step] if step.kind == "conv":
                self.take(step)
                return self.norm_act(self.convolution(step, "head", {}), "head", {})
            case [step] if step.kind == "act":
                self.final_act = True
                return self.activation(value)
        return value

    def finish(self, value: str) -> None:
        """Pooling and classifier, and that the graph gives what they make."""
        known = [value]
        names = self.reader.outputs
        while len(self.readers[value]) == 1:
            (step,) = self.readers[value]
            if step.kind != {1: "pool", 2: "flatten", 3: "linear"}.get(len(known)):
                break
            if step.kind == "linear":
                self.classifier(step)
            self.take(step)
            value = step.output
            known.append(value)
        self.has_classifier = len(known) == 4  # noqa: PLR2004 -- features, pooled, flattened, logits
        strange = next((name for name in names if name not in known), None)
        if strange is None and names and (not self.has_classifier or known[-1] in names):
            return
        if strange in self.makers:
            raise self.unfit(self.makers[strange], "makes an output, but is no end of a RegNet")
        raise InputError(f"{self.where}: does not give what its last layer computes.")

    def classifier(self, step: Step) -> None:
        """The linear layer behind pooling."""
        for affine in ("weight", "bias"):
            if affine not in step.tensors:
                raise self.unfit(step, "is a classifier without a bias, which no RegNet has")
            self.tensors[REFERENCE.spell("classifier", {"affine": affine})] = step.tensors[affine]

    # Taking operations, each once.

    def sole(self, kind: str | Collection[str], value: str, what: str) -> Step:
        """Take the only operation that reads a value, which must be of a kind."""
        kinds = {kind} if isinstance(kind, str) else kind
        readers = self.readers[value]
        if not readers:
            made = self.makers.get(value)
            if made is None:
                raise InputError(f"{self.where}: nothing reads its images, so it is no RegNet.")
            raise self.unfit(made, f"is followed by nothing where {what} belongs")
        wrong = next((step for step in readers if step.kind not in kinds), None)
        if wrong is not None or len(readers) > 1:
            raise self.unfit(wrong or readers[1], f"stands where {what} belongs alone")
        self.take(readers[0])
        return readers[0]

    def take(self, step: Step) -> None:
        """Say that a step has its place."""
        self.taken.add(id(step))

    def require_all_taken(self) -> None:
        """Refuse what is computed beside the network.

        Raises:
            InputError: If anything is.
        """
        for step in self.reader.steps:
            if id(step) not in self.taken:
                raise self.unfit(step, "has no place in a RegNet")

    def unfit(self, step: Step, what: str) -> InputError:
        """See :func:`converters.families.graph_values.unfit`."""
        return unfit(self.where, step.node, what)

    def _is_bare(self, value: str) -> bool:
        """Whether a convolution without a norm, also one that it has taken in, makes a value."""
        made = self.makers.get(value)
        return made is not None and made.kind == "conv" and "bias" not in made.tensors
