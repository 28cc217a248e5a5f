"""The LiteRT graph of a RegNet, written from its configuration instead of traced.

A value is called like the module of the reference model that computes it, and lies in memory as
(N, H, W, C). Convolutions have taken in the batch norms behind them, and operators the ReLU behind
them, unless something else reads what comes before it. Groups need no field: a kernel, (out,
height, width, in / groups), shows them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.formats.litert import schema
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from regnet.architecture import (
    PIXELS,
    Act,
    Add,
    Architecture,
    AveragePool,
    Conv,
    EvoNorm,
    Flatten,
    GroupNorm,
    Linear,
    Norm,
    Normalise,
    Pool,
    Scale,
    Softmax,
    extents,
    folded,
)
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.formats.litert.flatbuffer import Field
    from converters.formats.litert.schema import Operator
    from regnet.architecture import Function, Operation
    from regnet.config import RegNetConfig

_ROWS_AND_COLUMNS = (1, 2)
_IN_GROUP = 3
"""Axes that means are taken over."""

_MOST_OPEN, _BATCH_OPEN = 3, 1
"""How many axes of a feature map are open, and of what was pooled."""

_WIDENED = ".float32"
"""What follows the name of a weight in float16 in that of the same in float32."""

_SELU_ALPHA, _SELU_SCALE = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
"""Source: Klambauer et al., "Self-Normalizing Neural Networks", arXiv 1706.02515."""


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor that is computed.

    Attributes:
        shape: Its sizes for one image, of the size that memory is first planned for.
        open_axes: How many of the first axes may have other sizes.
        steps: What one of it in int8 is worth; None if it is in float32.
    """

    shape: tuple[int, ...]
    open_axes: int = _BATCH_OPEN
    steps: schema.Steps | None = None

    @property
    def element(self) -> str:
        """Its type, by NumPy's name."""
        return "int8" if self.steps else COMPUTED

    @property
    def signature(self) -> tuple[int, ...]:
        """The sizes, -1 for those that are open."""
        return (*(-1,) * self.open_axes, *self.shape[self.open_axes :])

    @property
    def channels(self) -> int:
        """Its last axis."""
        return self.shape[-1]


@dataclass(frozen=True, slots=True)
class Node:
    """An operator and what it reads.

    Attributes:
        kind: Which.
        inputs: Names of values, constants and weights.
        output: Name of the value that it makes.
        options: The fields of its table of options, in order.
    """

    kind: Operator
    inputs: tuple[str, ...]
    output: str
    options: tuple[Field, ...] = ()


@dataclass(slots=True)
class Graph:
    """The network; what nodes read and is neither a value nor a constant is a weight.

    Attributes:
        nodes: In an order in which they can be computed.
        values: What is computed, and ``pixel_values``, by name, in that order.
        constants: Small tensors that are no weights, by name.
    """

    nodes: list[Node] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, NDArray[Any]] = field(default_factory=dict)


def build_graph(
    config: RegNetConfig, *, classifier: bool, image_size: int, network: Architecture | None = None
) -> Graph:
    """Lay out operators, values and constants; the weights are left to the caller.

    The input is ``pixel_values`` (batch, height, width, num_channels). With a classifier the output
    is ``logits`` (batch, num_labels), or the pooled features (batch, C) if ``num_labels`` is 0.
    Without one it is ``last_hidden_state`` (batch, feature_height, feature_width, C) and
    ``pooler_output`` (batch, 1, 1, C).

    Args:
        config: The network.
        classifier: Whether of `RegNetForImageClassification` or of `RegNetModel`.
        image_size: Height and width that memory is first planned for, in pixels.
        network: What is computed, where that is more than the configuration says
            (:func:`regnet.architecture.deployed`).
    """
    operations = folded((network or Architecture.of(config, classifier=classifier)).operations)
    pixels = Value((1, image_size, image_size, config.num_channels), _MOST_OPEN)
    writer = _Writer(operations, pixels)
    for operation in operations:
        _SPELLINGS[type(operation)](writer, operation)
    return writer.graph


def widened(graph: Graph, shapes: Mapping[str, tuple[int, ...]]) -> Graph:
    """The graph with weights in float16: before one is read, an operator makes float32 of it.

    Runtimes do that once, when they load the file.

    Args:
        graph: With weights in float32.
        shapes: Of the weights, by name.
    """
    nodes: list[Node] = []
    for node in graph.nodes:
        weights = [name for name in node.inputs if name in shapes]
        nodes += (Node(schema.DEQUANTIZE_FLOAT16, (name,), name + _WIDENED) for name in weights)
        inputs = tuple(name + _WIDENED * (name in shapes) for name in node.inputs)
        nodes.append(replace(node, inputs=inputs))
    values = {name + _WIDENED: Value(shape, 0) for name, shape in shapes.items()}
    return replace(graph, nodes=nodes, values=graph.values | values)


class _Writer:
    """Appends nodes in execution order; most methods return the name of the value they made."""

    def __init__(self, operations: Sequence[Operation], pixels: Value) -> None:
        self.graph = Graph(values={PIXELS: pixels})
        self.extents = extents(operations, pixels.shape[1])
        self.readers = Counter(value for each in operations for value in each.inputs)

    def add(
        self, kind: Operator, name: str, value: Value, *inputs: str, options: Sequence[Field] = ()
    ) -> str:
        self.graph.nodes.append(Node(kind, inputs, name, tuple(options)))
        self.graph.values[name] = value
        return name

    def shaped(self, name: str) -> Value:
        """What is known of a value."""
        return self.graph.values[name]

    def constant(self, name: str, numbers: Any, kind: type[np.generic] = np.float32) -> str:
        """One for each name, however many read it."""
        self.graph.constants[name] = np.array(numbers, kind)
        return name

    def product(self, name: str, one: str, other: str) -> str:
        """Element by element, as large as the first."""
        return self.add(schema.MUL, name, self.shaped(one), one, other, options=_NO_ACTIVATION)

    def sum(self, name: str, one: str, other: str) -> str:
        """Element by element, as large as the first."""
        return self.add(schema.ADD, name, self.shaped(one), one, other, options=_NO_ACTIVATION)

    def mean(self, name: str, value: str, *axes: int) -> str:
        """Over axes that stay, with size 1."""
        sizes = self.shaped(value).shape
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(sizes))
        over = self.constant("axes_" + "_".join(map(str, axes)), axes, np.int32)
        return self.add(schema.MEAN, name, Value(shape), value, over, options=(np.bool_(True),))

    def reshape(self, name: str, value: str, *sizes: int) -> str:
        """A value of each image with other sizes."""
        shape = self.constant("shape_" + "_".join(map(str, sizes)), (-1, *sizes), np.int32)
        options = (self.graph.constants[shape],)
        return self.add(schema.RESHAPE, name, Value((1, *sizes)), value, shape, options=options)


_NO_ACTIVATION = (schema.NONE,)


def folded_names(name: str) -> tuple[str, str]:
    """Of what a batch norm multiplies by and adds: of a convolution's module, or of its own."""
    return name + FOLDED_WEIGHT, name + FOLDED_BIAS


def _conv(writer: _Writer, operation: Conv) -> None:
    (value,), extent = operation.inputs, writer.extents[operation.output]
    channels = operation.slots[0].shape[0]
    weights = folded_names(operation.around) if operation.norm else _names(operation)
    if len(weights) == 1:  # LiteRT's own kernels want a bias
        weights = (*weights, writer.constant(f"zeros_{channels}", np.zeros(channels)))
    padding, stride = schema.SAME, np.int32(operation.stride)
    if operation.stride > 1 and operation.padding != "same":
        padding = schema.VALID
        if around := operation.kernel_size // 2:
            value = _padded(writer, operation, around)
    writer.add(
        schema.GROUPED_CONV_2D if operation.groups > 1 else schema.CONV_2D,
        operation.output,
        replace(writer.shaped(value), shape=(1, extent, extent, channels)),
        value,
        *weights,
        options=(padding, stride, stride, schema.NONE, np.int32(1), np.int32(1)),
    )


def _padded(writer: _Writer, operation: Conv, around: int) -> str:
    """A feature map between zeros: SAME puts them below and to the right first."""
    (value,) = operation.inputs
    _, height, width, channels = writer.shaped(value).shape
    zeros = [(0, 0), (around, around), (around, around), (0, 0)]
    padding = writer.constant(f"pad_{around}", zeros, np.int32)
    shape = (1, height + 2 * around, width + 2 * around, channels)
    padded = replace(writer.shaped(value), shape=shape)
    return writer.add(schema.PAD, f"{operation.name}.padded", padded, value, padding)


def _norm(writer: _Writer, operation: Norm) -> None:
    (value,), (weight, bias) = operation.inputs, folded_names(operation.name)
    scaled = writer.product(f"{operation.name}.scaled", value, weight)
    writer.sum(operation.output, scaled, bias)


def _group_norm(writer: _Writer, operation: GroupNorm) -> None:
    centred, deviation = _deviation(writer, operation)
    _affine(writer, operation, centred, deviation)


def _evonorm(writer: _Writer, operation: EvoNorm) -> None:
    name, (value,) = operation.name, operation.inputs
    _, deviation = _deviation(writer, operation)
    _, _, *slope = _names(operation)
    if slope:  # which makes it an activation too
        sloped = writer.product(f"{name}.sloped", value, *slope)
        gate = writer.add(schema.LOGISTIC, f"{name}.sigmoid", writer.shaped(value), sloped)
        value = writer.product(f"{name}.gated", value, gate)
    _affine(writer, operation, value, deviation)


def _deviation(writer: _Writer, operation: GroupNorm | EvoNorm) -> tuple[str, str]:
    """The value less the means of its groups, and their deviations, (N, 1, 1, C)."""
    name, (value,) = operation.name, operation.inputs
    mean = _repeated(writer, operation, "mean", _group_mean(writer, operation, "mean", value))
    centred = writer.add(
        schema.SUB, f"{name}.centred", writer.shaped(value), value, mean, options=_NO_ACTIVATION
    )
    square = writer.product(f"{name}.square", centred, centred)
    variance = _group_mean(writer, operation, "variance", square)
    shifted = writer.sum(f"{name}.shifted", variance, writer.constant("epsilon", operation.eps))
    root = writer.add(schema.SQRT, f"{name}.root", writer.shaped(variance), shifted)
    return centred, _repeated(writer, operation, "deviation", root)


def _group_mean(writer: _Writer, operation: GroupNorm | EvoNorm, what: str, value: str) -> str:
    """Of the means of channels, which have as many pixels each: (N, 1, groups, 1)."""
    name, groups = f"{operation.name}.{what}", operation.groups
    of_channels = writer.mean(f"{name}_of_channels", value, *_ROWS_AND_COLUMNS)
    size = writer.shaped(value).channels // groups
    grouped = writer.reshape(f"{name}_grouped", of_channels, 1, groups, size)
    return writer.mean(f"{name}_of_groups", grouped, _IN_GROUP)


def _repeated(writer: _Writer, operation: GroupNorm | EvoNorm, what: str, of_groups: str) -> str:
    """What each group has, for each of its channels: (N, 1, groups, 1) to (N, 1, 1, C)."""
    name, groups = f"{operation.name}.{what}", operation.groups
    channels = operation.slots[0].shape[0]
    size = channels // groups
    times = writer.constant(f"times_{size}", (1, 1, 1, size), np.int32)
    shape = Value((1, 1, groups, size))
    repeated = writer.add(schema.TILE, f"{name}_repeated", shape, of_groups, times)
    return writer.reshape(name, repeated, 1, 1, channels)


def _affine(writer: _Writer, operation: GroupNorm | EvoNorm, value: str, deviation: str) -> None:
    """Divided by the deviation, times the weight and plus the bias of each channel."""
    name, (weight, bias, *_) = operation.name, _names(operation)
    of_channels = writer.shaped(deviation)
    scale = writer.add(
        schema.DIV, f"{name}.scale", of_channels, weight, deviation, options=_NO_ACTIVATION
    )
    writer.sum(operation.output, writer.product(f"{name}.scaled", value, scale), bias)


def _pool(writer: _Writer, operation: Pool) -> None:
    (value,) = operation.inputs
    writer.mean(operation.output, value, *_ROWS_AND_COLUMNS)


def _average_pool(writer: _Writer, operation: AveragePool) -> None:
    """SAME counts no zeros, and puts what it lacks below and to the right."""
    (value,), extent = operation.inputs, writer.extents[operation.output]
    before, stride, size = writer.shaped(value), np.int32(operation.stride), np.int32(2)
    writer.add(
        schema.AVERAGE_POOL_2D,
        operation.output,
        replace(before, shape=(1, extent, extent, before.channels)),
        value,
        options=(schema.SAME, stride, stride, size, size, schema.NONE),
    )


def _scale(writer: _Writer, operation: Scale) -> None:
    writer.product(operation.output, *operation.inputs)


def _add(writer: _Writer, operation: Add) -> None:
    writer.sum(operation.output, *operation.inputs)


def _flatten(writer: _Writer, operation: Flatten) -> None:
    (value,) = operation.inputs
    writer.reshape(operation.output, value, writer.shaped(value).channels)


def _linear(writer: _Writer, operation: Linear) -> None:
    weight, _ = operation.slots
    inputs = (*operation.inputs, *_names(operation))
    shape = Value((1, weight.shape[0]))
    options = (schema.NONE, schema.PLAIN_WEIGHTS, np.bool_(False))
    writer.add(schema.FULLY_CONNECTED, operation.output, shape, *inputs, options=options)


def _normalise(writer: _Writer, operation: Normalise) -> None:
    (value,), name = operation.inputs, operation.name
    shape = writer.shaped(value)
    for kind, leaf in ((schema.SUB, "mean"), (schema.DIV, "std")):
        made = operation.output if leaf == "std" else f"{name}.centred"
        numbers = writer.constant(f"{name}_{leaf}", getattr(operation, leaf))
        value = writer.add(kind, made, shape, value, numbers, options=_NO_ACTIVATION)


def _softmax(writer: _Writer, operation: Softmax) -> None:
    (value,) = operation.inputs
    shape = writer.shaped(value)
    writer.add(schema.SOFTMAX, operation.output, shape, value, options=(np.float32(1),))


def _act(writer: _Writer, operation: Act) -> None:
    _ACTIVATIONS[operation.function](writer, operation)


_SPELLINGS: dict[type[Operation], Callable[[_Writer, Any], None]] = {
    Conv: _conv,
    Norm: _norm,
    GroupNorm: _group_norm,
    EvoNorm: _evonorm,
    Act: _act,
    Pool: _pool,
    AveragePool: _average_pool,
    Scale: _scale,
    Add: _add,
    Flatten: _flatten,
    Linear: _linear,
    Normalise: _normalise,
    Softmax: _softmax,
}


def _names(operation: Operation) -> tuple[str, ...]:
    """Of the tensors that an operation reads."""
    return tuple(slot.name for slot in operation.slots)


def _of_one(kind: Operator, *options: Field) -> Callable[[_Writer, Act], None]:
    """A function that LiteRT has an operator for."""

    def spell(writer: _Writer, operation: Act) -> None:
        (value,) = operation.inputs
        writer.add(kind, operation.output, writer.shaped(value), value, options=options)

    return spell


def _relu(writer: _Writer, operation: Act) -> None:
    """Part of the operator that makes its value, if nothing else reads that."""
    (value,), graph = operation.inputs, writer.graph
    last = graph.nodes[-1]
    if last.output != value or last.kind.activation is None or writer.readers[value] > 1:
        _of_one(schema.RELU)(writer, operation)
        return
    options = list(last.options)
    options[last.kind.activation] = schema.RELU_FUSED
    graph.nodes[-1] = replace(last, output=operation.output, options=tuple(options))
    graph.values[operation.output] = graph.values.pop(value)


def _silu(writer: _Writer, operation: Act) -> None:
    (value,) = operation.inputs
    shape = writer.shaped(value)
    gate = writer.add(schema.LOGISTIC, f"{operation.name}.sigmoid", shape, value)
    writer.product(operation.output, value, gate)


def _selu(writer: _Writer, operation: Act) -> None:
    """``scale * (max(x, 0) + alpha * (exp(min(x, 0)) - 1))``."""
    (value,), name = operation.inputs, operation.name
    shape = writer.shaped(value)
    zero = writer.constant("zero", 0.0)
    above = writer.add(schema.RELU, f"{name}.above", shape, value)
    least = writer.add(schema.MINIMUM, f"{name}.below", shape, value, zero)
    below = writer.add(schema.ELU, f"{name}.elu", shape, least)
    slope = writer.constant("selu_slope", _SELU_SCALE * _SELU_ALPHA)
    below = writer.product(f"{name}.scaled_below", below, slope)
    above = writer.product(f"{name}.scaled_above", above, writer.constant("selu", _SELU_SCALE))
    writer.sum(operation.output, above, below)


_ACTIVATIONS: dict[Function, Callable[[_Writer, Act], None]] = {
    "relu": _relu,
    "gelu": _of_one(schema.GELU, np.bool_(False)),
    "gelu_new": _of_one(schema.GELU, np.bool_(True)),
    "selu": _selu,
    "sigmoid": _of_one(schema.LOGISTIC),
    "silu": _silu,
}
