"""The network, from its configuration, without torch: a list of operations and of tensor slots.

One list, in one place, for everybody who needs the network's structure: the planner knows every
tensor and shape before a byte is read, exporters spell each operation in their format, the locator
compares what each computes, and :mod:`regnet.design_space` counts with it. Whoever walks the list
needs to know nothing of stems, blocks or stages. The model in :mod:`regnet.model` is written out by
hand, for people to read, and computes what the list says.

Names and rules are those of transformers' ``models/regnet/modeling_regnet.py``, which computes the
network of the paper (Radosavovic et al., "Designing Network Design Spaces", arXiv 2003.13678).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Literal

from regnet.config import (
    CLASSIFIER_OUTPUTS,
    TRUNK_OUTPUTS,
    Activation,
    RegNetConfig,
    group_count,
    squeeze_width,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

NORM_EPS = 1e-5
"""Epsilon of every batch norm; transformers' config cannot express another."""

PIXELS = "pixel_values"
"""Name of the image, as of the reference model's argument."""

CLASSIFIER = "classifier.1"
BASE_PREFIX = "regnet."
"""What precedes every name but the classifier's in `RegNetForImageClassification`."""

KERNEL = ".convolution.weight"
"""How the name of every convolution's kernel ends, the attention's apart."""

COUNTER = "num_batches_tracked"
"""How many batches a batch norm has seen, the only tensor that is no float; training alone asks."""

BUFFER_LEAVES = ("running_mean", "running_var", COUNTER)
"""What a batch norm measures instead of learning: in the state dict, but no parameter."""

BATCH_NORM_LEAVES = ("weight", "bias", *BUFFER_LEAVES)


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
        norm: The batch norm that it has taken in, in a list that is :func:`folded`.
    """

    stride: int = 1
    groups: int = 1
    norm: Norm | None = None

    @property
    def kernel_size(self) -> int:
        """Height and width of the kernel, in pixels."""
        return self.slots[0].shape[-1]


class Norm(Operation):
    """A batch norm by its running statistics; see :data:`NORM_EPS`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Act(Operation):
    """An activation function."""

    function: Function


class Pool(Operation):
    """The mean of each channel: (N, C, H, W) to (N, C, 1, 1)."""


class Scale(Operation):
    """A value, (N, C, H, W), times its gate, (N, C, 1, 1)."""


class Add(Operation):
    """The sum of two values of one shape."""


class Flatten(Operation):
    """(N, C, 1, 1) to (N, C)."""


class Linear(Operation):
    """A product with a matrix, and a bias."""


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

    A value keeps its name; what read the batch norm's reads the convolution's.
    """
    norms = {op.inputs[0]: op for op in operations if isinstance(op, Norm)}
    kept = (
        replace(op, norm=norms.get(op.output)) if isinstance(op, Conv) else op
        for op in operations
        if not isinstance(op, Norm)
    )
    return _renamed(kept, {norm.output: value for value, norm in norms.items()})


def extents(operations: Iterable[Operation], pixels: int) -> dict[str, int]:
    """Follow an image's height, or its width, through the network.

    Returns:
        Name of a value to its extent in pixels; 1 behind a global mean.
    """
    found = {PIXELS: pixels}
    for operation in operations:
        extent = found[operation.inputs[0]]
        if isinstance(operation, Conv):
            extent = (extent - 1) // operation.stride + 1
        found[operation.output] = 1 if isinstance(operation, Pool) else extent
    return found


def _renamed(operations: Iterable[Operation], names: Mapping[str, str]) -> Operations:
    """With other names of some values."""
    return tuple(
        replace(
            operation,
            inputs=tuple(names.get(value, value) for value in operation.inputs),
            output=names.get(operation.output, operation.output),
        )
        for operation in operations
    )


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
        width = config.embedding_size
        name = f"{self.prefix}embedder.embedder"
        value = self.conv_norm(
            name, "stem", {}, PIXELS, (width, config.num_channels, 3, 3), stride=2
        )
        value = self.activation(name, value)
        for stage, (out, depth) in enumerate(zip(config.hidden_sizes, config.depths, strict=True)):
            stride = 2 if stage > 0 or config.downsample_in_first_stage else 1
            for block in range(depth):
                value = self.block(stage, block, value, width, out, stride if block == 0 else 1)
                width = out
        return value

    def block(  # noqa: PLR0913, PLR0917 -- which block, what it reads, and its three sizes
        self, stage: int, block: int, value: str, width: int, out: int, stride: int
    ) -> str:
        """A residual bottleneck block of width ratio 1; its shortcut comes first."""
        name = f"{self.prefix}encoder.stages.{stage}.layers.{block}"
        place: dict[str, str | int] = {"stage": stage, "block": block}
        shortcut, last = value, 2
        if width != out or stride != 1:
            shape = (out, width, 1, 1)
            shortcut = self.conv_norm(
                f"{name}.shortcut", "shortcut", place, value, shape, stride=stride
            )
        value = self.conv_norm(f"{name}.layer.0", "reduce", place, value, (out, width, 1, 1))
        value = self.activation(f"{name}.layer.0", value)
        groups = group_count(out, self.config.groups_width)
        shape = (out, out // groups, 3, 3)
        value = self.conv_norm(
            f"{name}.layer.1", "grouped", place, value, shape, stride=stride, groups=groups
        )
        value = self.activation(f"{name}.layer.1", value)
        if self.config.layer_type == "y":
            last = 3
            value = self.squeeze_excite(f"{name}.layer.2", place, value, out, squeeze_width(width))
        value = self.conv_norm(
            f"{name}.layer.{last}", "expand", place | {"last": last}, value, (out, out, 1, 1)
        )
        return self.activation(name, self.add(Add, f"{name}.add", value, shortcut))

    def activation(self, name: str, value: str) -> str:
        return self.add(Act, f"{name}.activation", value, function=self.config.hidden_act)

    def conv_norm(
        self,
        name: str,
        part: str,
        place: Mapping[str, str | int],
        value: str,
        shape: tuple[int, int, int, int],
        **geometry: int,
    ) -> str:
        """A convolution without bias, and its batch norm."""
        kernel = Slot(name + KERNEL, shape, f"{part}.conv", place)
        value = self.add(Conv, f"{name}.convolution", value, slots=(kernel,), **geometry)
        name = f"{name}.normalization"
        slots = tuple(
            Slot(
                f"{name}.{leaf}",
                () if leaf == COUNTER else shape[:1],
                f"{part}.norm",
                {**place, "norm": leaf},
            )
            for leaf in BATCH_NORM_LEAVES
        )
        return self.add(Norm, name, value, slots=slots)

    def squeeze_excite(
        self, name: str, place: Mapping[str, str | int], value: str, channels: int, squeezed: int
    ) -> str:
        """The value times its gate; its ReLU is one whatever the network's activation is."""
        gates = f"{name}.attention"
        gate = self.add(Pool, f"{name}.pooler", value)
        slots = _weight_and_bias(f"{gates}.0", (squeezed, channels, 1, 1), "squeeze", place)
        gate = self.add(Conv, f"{gates}.0", gate, slots=slots)
        gate = self.add(Act, f"{gates}.1", gate, function="relu")
        slots = _weight_and_bias(f"{gates}.2", (channels, squeezed, 1, 1), "excite", place)
        gate = self.add(Conv, f"{gates}.2", gate, slots=slots)
        gate = self.add(Act, f"{gates}.3", gate, function="sigmoid")
        return self.add(Scale, f"{name}.mul", value, gate)

    def linear(self, value: str) -> str:
        shape = (self.config.num_labels, self.config.hidden_sizes[-1])
        slots = _weight_and_bias(CLASSIFIER, shape, "classifier", {})
        return self.add(Linear, CLASSIFIER, value, slots=slots)


def _weight_and_bias(
    name: str, shape: tuple[int, ...], role: str, place: Mapping[str, str | int]
) -> tuple[Slot, ...]:
    return (
        Slot(f"{name}.weight", shape, role, {**place, "affine": "weight"}),
        Slot(f"{name}.bias", shape[:1], role, {**place, "affine": "bias"}),
    )
