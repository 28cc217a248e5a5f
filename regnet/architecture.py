"""The network, from its configuration, without torch: a list of operations and of tensor slots.

One list, in one place, for everybody who needs the network's structure: the planner knows every
tensor and shape before a byte is read, exporters spell each operation in their format, the locator
compares what each computes, and :mod:`regnet.design_space` counts with it. Whoever walks the list
needs to know nothing of stems, blocks or stages. The model in :mod:`regnet.model` is written out by
hand, for people to read, and computes what the list says.

Names and rules are those of transformers' ``models/regnet/modeling_regnet.py``, which computes the
network of the paper (Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678). What
transformers does not have (RegNetV and RegNetZ, AnyNets, Keras' padding) is named likewise.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal, NamedTuple

from regnet.config import CLASSIFIER_OUTPUTS, TRUNK_OUTPUTS, Activation, RegNetConfig
from regnet.wider import NORM_EPS, Bottleneck, Padding

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

PIXELS = "pixel_values"
"""Name of the image, as of the reference model's argument."""

NORMALISED = "normalise"
"""Name of the image behind a :class:`Normalise`, and of that operation."""

PROBABILITIES = "probabilities"
"""Name of what a :class:`Softmax` gives."""

CLASSIFIER = "classifier.1"
BASE_PREFIX = "regnet."
"""What precedes every name but the classifier's in `RegNetForImageClassification`."""

KERNEL = ".convolution.weight"
"""How the name of every convolution's kernel ends, the attention's apart."""

COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen, the only tensor that is no float; training alone asks."""

BUFFER_LEAVES = ("running_mean", "running_var", COUNTER)
"""What a batch norm measures instead of learning: in the state dict, but no parameter."""

BATCH_NORM_LEAVES: tuple[str, ...] = ("weight", "bias", *BUFFER_LEAVES)

_PREACT = "preact"
PREACTIVATION = f"{_PREACT}.norm"
"""Role of the tensors of the norm that a preactivated block begins with."""


Function = Activation | Literal["sigmoid"]
"""What an activation computes, element by element."""


@dataclass(frozen=True, slots=True)
class Slot:
    """A tensor that an operation holds.

    Attributes:
        name: In the state dict.
        shape: It is float32, but for the counter, an int64 scalar.
        role: What it is for, as rows of keymaps have it, such as ``stem.conv``.
        fields: Which one of its role it is: ``stage`` and ``block``, counted from 0, of those in
            blocks; ``norm`` of a batch norm's; ``affine`` where a role has a weight and a bias;
            ``last``, the place of its layer in the block, where that differs between networks.
    """

    name: str
    shape: tuple[int, ...]
    role: str
    fields: Mapping[str, str | int]

    @property
    def leaf(self) -> str:
        """The last part of its name, such as ``weight``."""
        return self.name.rpartition(".")[2]

    @property
    def is_counter(self) -> bool:
        """Whether it only counts batches, and computes nothing."""
        return self.leaf == COUNTER

    @property
    def is_learned(self) -> bool:
        """Whether it is a parameter, and no buffer."""
        return self.leaf not in BUFFER_LEAVES


@dataclass(frozen=True, slots=True)
class Operation:
    """One step of the network; its class says which.

    Attributes:
        name: The module of the reference model that computes it. What is computed without a module
            of its own is called like the module around it with ``add``, ``mul`` or ``activation``.
        inputs: Names of the values that it reads; ``pixel_values`` is the image.
        output: Name of the value that it makes: its own, but for what the network returns.
        slots: The tensors that it holds, in the order of the state dict.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    slots: tuple[Slot, ...] = ()

    @property
    def around(self) -> str:
        """The name of the module around it."""
        return self.name.rpartition(".")[0]


@dataclass(frozen=True, slots=True)
class Conv(Operation):
    """A convolution with square kernels and ``kernel_size // 2`` zeros on every side.

    Attributes:
        stride: In both directions.
        groups: Of channels, each of which sees its own alone.
        padding: ``"same"`` if it puts as many zeros around images of ``n`` pixels as give
            ``ceil(n / stride)``, in each direction, the odd one below and to the right.
        norm: The batch norm that it has taken in, in a list that is :func:`folded`.
    """

    stride: int = 1
    groups: int = 1
    padding: Padding = "symmetric"
    norm: Norm | None = None

    @property
    def kernel_size(self) -> int:
        """Height and width of the kernel, in pixels."""
        return self.slots[0].shape[-1]


@dataclass(frozen=True, slots=True)
class Norm(Operation):
    """A batch norm by its running statistics.

    Attributes:
        eps: What is added to the variance.
    """

    eps: float = NORM_EPS


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupNorm(Operation):
    """A norm by the mean and the variance of each group of channels of each image.

    The variance is the biased one. Source: Wu and He, "Group Normalization", arXiv 1803.08494.

    Attributes:
        groups: How many.
        eps: What is added to the variance.
    """

    groups: int
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EvoNorm(Operation):
    """EvoNorm S0a: norm and activation in one, ``f(x) / sqrt(var(x) + eps) * weight + bias``.

    The variance is that of a group norm, of ``x``. With a tensor ``v``, ``f(x)`` is
    ``x * sigmoid(v * x)``; without one, where a layer has no activation, it is ``x``. Source: Liu
    et al., "Evolving Normalization-Activation Layers", arXiv 2004.02967; timm
    ``layers/evo_norm.py``.

    Attributes:
        groups: Of channels.
        eps: What is added to the variance.
    """

    groups: int
    eps: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(Operation):
    """An activation function."""

    function: Function


class Pool(Operation):
    """The mean of each channel: (N, C, H, W) to (N, C, 1, 1)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AveragePool(Operation):
    """The mean of each 2x2 pixels, or of what of them is in the image at its last row and column.

    Attributes:
        stride: In both directions.
    """

    stride: int


class Scale(Operation):
    """A value, (N, C, H, W), times its gate, (N, C, 1, 1)."""


class Add(Operation):
    """The sum of two values of one shape."""


class Flatten(Operation):
    """(N, C, 1, 1) to (N, C)."""


class Linear(Operation):
    """A product with a matrix, and a bias."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise(Operation):
    """The pixels of each channel, less their mean, divided by their deviation.

    No network has one; :func:`deployed` puts it in front.

    Attributes:
        mean: Of each channel, in the pixels' own scale.
        std: Likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


class Softmax(Operation):
    """Probabilities (N, classes) of logits (N, classes); :func:`deployed` puts it at the end."""


Operations = tuple[Operation, ...]


@dataclass(frozen=True)
class Architecture:
    """A whole network.

    Attributes:
        operations: In an order in which they can be computed, which is also that of the state dict.
    """

    operations: Operations

    @classmethod
    def of(cls, config: RegNetConfig, *, classifier: bool = True) -> Architecture:
        """Lay out the network that a configuration describes.

        Args:
            config: Which.
            classifier: Whether of `RegNetForImageClassification`, where the trunk's names begin
                with ``regnet.``, or of `RegNetModel`.
        """
        layout = _Layout(config, BASE_PREFIX if classifier else "")
        features = layout.trunk()
        pooled = layout.add(Pool, f"{layout.prefix}pooler", features)
        if not classifier:
            return layout.finished((features, pooled), TRUNK_OUTPUTS)
        sequential, _, _ = CLASSIFIER.rpartition(".")
        logits = layout.add(Flatten, f"{sequential}.0", pooled)
        if config.num_labels:
            logits = layout.linear(logits)
        return layout.finished((logits,), CLASSIFIER_OUTPUTS)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """Every tensor, in the order of the state dict."""
        return tuple(slot for operation in self.operations for slot in operation.slots)

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Name to shape of every tensor, in the order of the state dict."""
        return {slot.name: slot.shape for slot in self.slots}


def folded(operations: Sequence[Operation]) -> Operations:
    """Let convolutions take in the batch norms behind them, as every deployment runtime does.

    A value keeps its name; what read the batch norm's reads the convolution's, unless the network
    returns the batch norm's. A batch norm that reads something else, as the first of a preactivated
    block does, stays.
    """
    convolved = {op.output for op in operations if isinstance(op, Conv)}
    norms = {
        op.inputs[0]: op for op in operations if isinstance(op, Norm) and op.inputs[0] in convolved
    }
    kept = (
        replace(op, norm=norms.get(op.output)) if isinstance(op, Conv) else op
        for op in operations
        if not (isinstance(op, Norm) and op.inputs[0] in norms)
    )
    own = {norm.output: value for value, norm in norms.items() if norm.output == norm.name}
    returned = {value: norm.output for value, norm in norms.items() if norm.output != norm.name}
    return _renamed(kept, own | returned)


def scale_and_shift(statistics: Iterable[Any], eps: float) -> tuple[Any, Any]:
    """What a batch norm in evaluation multiplies each channel by, and what it then adds.

    It is ``gamma * (x - mean) / sqrt(variance + eps) + beta``. A convolution takes it in with its
    kernel times the one, and the other as its bias.

    Args:
        statistics: Its weight (gamma), bias (beta), running mean and variance, (C,) each, float64:
            arrays of NumPy or tensors of torch.
        eps: What is added to the variance.
    """
    gamma, beta, mean, variance = statistics
    scale = gamma / (variance + eps) ** 0.5
    return scale, beta - mean * scale


def deployed(
    operations: Sequence[Operation],
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None,
    *,
    softmax: bool,
) -> Operations:
    """Let a network normalise its images itself, and give probabilities.

    The normalisation is not folded into the first convolution: what that pads with is zero behind
    it, and another number before it.

    Args:
        operations: The network, (N, C, H, W) normalised to logits (N, classes).
        statistics: Mean and deviation of each channel, in the scale of the pixels that it is to
            take; None leaves the normalisation to whoever runs it.
        softmax: Whether to give :data:`PROBABILITIES` instead of what it gives.
    """
    if statistics is not None:
        mean, std = statistics
        front = Normalise(NORMALISED, (PIXELS,), NORMALISED, mean=mean, std=std)
        operations = (front, *_renamed(operations, {PIXELS: NORMALISED}))
    if softmax:
        operations = (*operations, Softmax("softmax", (operations[-1].output,), PROBABILITIES))
    return tuple(operations)


def extents(operations: Iterable[Operation], pixels: int) -> dict[str, int]:
    """Follow an image's height, or its width, through the network.

    Returns:
        Name of a value to its extent in pixels; 1 behind a global mean.
    """
    found = {PIXELS: pixels}
    for operation in operations:
        extent = found[operation.inputs[0]]
        if isinstance(operation, Conv | AveragePool):
            extent = (extent - 1) // operation.stride + 1
        found[operation.output] = 1 if isinstance(operation, Pool) else extent
    return found


def _renamed(operations: Iterable[Operation], names: Mapping[str, str]) -> Operations:
    """With other names of some values."""
    return tuple(
        operation
        if names.keys().isdisjoint((operation.output, *operation.inputs))
        else replace(
            operation,
            inputs=tuple(names.get(value, value) for value in operation.inputs),
            output=names.get(operation.output, operation.output),
        )
        for operation in operations
    )


class _Place(NamedTuple):
    """A layer of the reference model.

    Attributes:
        name: Its module.
        part: What it is for, the first half of its tensors' roles.
        fields: Which one of these it is.
    """

    name: str
    part: str
    fields: Mapping[str, str | int]


@dataclass
class _Layout:
    """Lays out operations one after another; methods return the name of the value they end with.

    Attributes:
        prefix: What precedes the names of everything in the trunk.
    """

    config: RegNetConfig
    prefix: str
    operations: list[Operation] = field(default_factory=list)

    def add(self, kind: type[Operation], name: str, *inputs: str, **attributes: Any) -> str:
        self.operations.append(kind(name=name, inputs=inputs, output=name, **attributes))
        return name

    def finished(self, values: Sequence[str], names: Sequence[str]) -> Architecture:
        """The network that returns some values under some names."""
        return Architecture(_renamed(self.operations, dict(zip(values, names, strict=True))))

    def trunk(self) -> str:
        config = self.config
        value, width = self.stem(), config.embedding_size
        stages = zip(config.hidden_sizes, config.depths, config.stage_strides, strict=True)
        for stage, (out, depth, stride) in enumerate(stages):
            for block in range(depth):
                value = self.block(stage, block, value, width, stride if block == 0 else 1)
                width = out
        return self.head(value)

    def stem(self) -> str:
        config = self.config
        value, width = PIXELS, config.num_channels
        for index, (out, stride) in enumerate(config.stem_convolutions):
            at = _Place(f"{self.prefix}embedder.embedder", "stem", {})
            if config.stem_sizes:
                at = _Place(f"{at.name}.{index}", "stems", {"index": index})
            value = self.convolution(at, value, (out, width, 3, 3), stride=stride)
            value = value if config.preactivation else self.norm_act(at, value, out)
            width = out
        return value

    def block(self, stage: int, block: int, value: str, width: int, stride: int) -> str:
        """A residual bottleneck block; its shortcut comes first."""
        config = self.config
        out, inner = config.hidden_sizes[stage], config.bottleneck_of(stage, width)
        name = f"{self.prefix}encoder.stages.{stage}.layers.{block}"
        fields: dict[str, str | int] = {"stage": stage, "block": block}
        last = 3 if inner.squeezed else 2
        reduce = _Place(f"{name}.layer.0", "reduce", fields)
        grouped = _Place(f"{name}.layer.1", "grouped", fields)
        expand = _Place(f"{name}.layer.{last}", "expand", fields | {"last": last})

        if config.preactivation:
            value = self.norm_act(_Place(name, _PREACT, fields), value, width)
        at = _Place(f"{name}.shortcut", "shortcut", fields)
        shortcut = self.shortcut(at, value, width, out, stride)
        value = self.convolution(reduce, value, (inner.width, width, 1, 1))
        value = self.norm_act(grouped if config.preactivation else reduce, value, inner.width)
        shape = (inner.width, inner.width // inner.groups, 3, 3)
        value = self.convolution(grouped, value, shape, stride=stride, groups=inner.groups)
        if not config.preactivation:
            value = self.norm_act(grouped, value, inner.width)
        if inner.squeezed:
            value = self.squeeze_excite(f"{name}.layer.2", fields, value, inner)
        if config.preactivation:
            value = self.norm_act(expand, value, inner.width)
        value = self.convolution(expand, value, (out, inner.width, 1, 1))
        if not config.preactivation:
            value = self.norm_act(expand, value, out, activates=False)
        if shortcut:
            value = self.add(Add, f"{name}.add", value, shortcut)
        if config.output_act and not config.preactivation:
            value = self.activation(name, value)
        return value

    def shortcut(self, at: _Place, value: str, width: int, out: int, stride: int) -> str:
        """What is added to a block's layers; empty if nothing is."""
        if width == out and stride == 1:
            return value
        if self.config.shortcut == "none":
            return ""
        if self.config.shortcut == "avg" and stride > 1:
            value = self.add(AveragePool, f"{at.name}.pooler", value, stride=stride)
            stride = 1
        value = self.convolution(at, value, (out, width, 1, 1), stride=stride)
        if self.config.preactivation:
            return value
        return self.norm_act(at, value, out, activates=False)

    def head(self, value: str) -> str:
        """What stands between the last stage and pooling."""
        config, at = self.config, _Place(f"{self.prefix}head", "head", {})
        if config.head_size:
            value = self.convolution(at, value, (config.head_size, config.hidden_sizes[-1], 1, 1))
            return self.norm_act(at, value, config.head_size)
        return self.activation(at.name, value) if config.final_act else value

    def convolution(
        self, at: _Place, value: str, shape: tuple[int, int, int, int], **geometry: int
    ) -> str:
        """A convolution without bias."""
        kernel = Slot(at.name + KERNEL, shape, f"{at.part}.conv", at.fields)
        padded = shape[-1] > 1 and geometry.get("stride", 1) > 1
        padding = self.config.padding if padded else "symmetric"
        name = f"{at.name}.convolution"
        return self.add(Conv, name, value, slots=(kernel,), padding=padding, **geometry)

    def norm_act(self, at: _Place, value: str, channels: int, *, activates: bool = True) -> str:
        """The norm of a layer and, unless the layer is linear, the activation."""
        config, name = self.config, f"{at.name}.normalization"
        kind: type[Operation] = Norm
        leaves = BATCH_NORM_LEAVES
        attributes: dict[str, float] = {"eps": config.norm_eps}
        if config.norm != "batch":
            attributes["groups"] = channels // config.norm_group_size
            kind, leaves = GroupNorm, ("weight", "bias")
        if config.norm == "evonorm-s0a":
            kind, leaves = EvoNorm, ("weight", "bias", *(("v",) if activates else ()))
        slots = tuple(
            Slot(
                f"{name}.{leaf}",
                () if leaf == COUNTER else (channels,),
                f"{at.part}.norm",
                {**at.fields, "norm": leaf},
            )
            for leaf in leaves
        )
        value = self.add(kind, name, value, slots=slots, **attributes)
        return value if kind is EvoNorm or not activates else self.activation(at.name, value)

    def activation(self, name: str, value: str) -> str:
        return self.add(Act, f"{name}.activation", value, function=self.config.hidden_act)

    def squeeze_excite(
        self, name: str, fields: Mapping[str, str | int], value: str, block: Bottleneck
    ) -> str:
        """The value times its gate."""
        gates, channels, squeezed = f"{name}.attention", block.width, block.squeezed
        gate = self.add(Pool, f"{name}.pooler", value)
        slots = _weight_and_bias(f"{gates}.0", (squeezed, channels, 1, 1), "squeeze", fields)
        gate = self.add(Conv, f"{gates}.0", gate, slots=slots)
        gate = self.add(Act, f"{gates}.1", gate, function=self.config.se_act)
        slots = _weight_and_bias(f"{gates}.2", (channels, squeezed, 1, 1), "excite", fields)
        gate = self.add(Conv, f"{gates}.2", gate, slots=slots)
        gate = self.add(Act, f"{gates}.3", gate, function="sigmoid")
        return self.add(Scale, f"{name}.mul", value, gate)

    def linear(self, value: str) -> str:
        shape = (self.config.num_labels, self.config.feature_size)
        slots = _weight_and_bias(CLASSIFIER, shape, "classifier", {})
        return self.add(Linear, CLASSIFIER, value, slots=slots)


def _weight_and_bias(
    name: str, shape: tuple[int, ...], role: str, place: Mapping[str, str | int]
) -> tuple[Slot, ...]:
    return (
        Slot(f"{name}.weight", shape, role, {**place, "affine": "weight"}),
        Slot(f"{name}.bias", shape[:1], role, {**place, "affine": "bias"}),
    )
