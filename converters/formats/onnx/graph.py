"""The ONNX graph of a RegNet, written from its configuration instead of traced.

A node and the value it computes are called like the module of the reference model that does the
work, so a difference found in one is looked up in the other. An operation without a module of its
own has its operator appended: ``...layers.1.add`` is the residual sum.

Operators say the same in every opset from 17 on. Gelu, which came with 20, is spelled out in each,
in the form which ONNX Runtime recognises and fuses.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, helper, numpy_helper

from converters.formats.blocks import reblocked
from converters.formats.onnx.file import ONNX_TYPES
from converters.formats.onnx.form import DEFAULT_FORM, FOLDED_BIAS, FOLDED_WEIGHT, PER_CHANNEL
from regnet.architecture import (
    NORMALISED,
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
    from collections.abc import Callable, Collection, Iterable

    from converters.formats.onnx.form import Element, GraphForm
    from regnet.architecture import Function, Operation, Operations
    from regnet.config import RegNetConfig

LOGITS = "logits"
FEATURES = "last_hidden_state"
POOLED = "pooler_output"


def build_graph(  # noqa: PLR0913 -- one for each thing that graphs differ in
    config: RegNetConfig,
    *,
    classifier: bool,
    fold_norms: bool,
    casts: Collection[str] = (),
    form: GraphForm = DEFAULT_FORM,
    network: Architecture | None = None,
) -> GraphProto:
    """Lay out nodes, input and outputs; the initialisers are left to the caller.

    The input is ``pixel_values`` (batch, num_channels, height, width). With a classifier the output
    is ``logits`` (batch, num_labels), or the pooled features (batch, C) if ``num_labels`` is 0.
    Without one it is ``last_hidden_state`` (batch, C, feature_height, feature_width) and
    ``pooler_output`` (batch, C, 1, 1). Their type is the form's ``io_precision``; inside everything
    has its ``precision``, and initialisers must.

    Args:
        config: The network.
        classifier: Whether of `RegNetForImageClassification` or of `RegNetModel`.
        fold_norms: Whether convolutions have taken their batch norm in. Then they read
            ``<module>.folded_weight`` and ``.folded_bias``. Else every initialiser has its name in
            the state dict, and all of that is read but ``num_batches_tracked``.
        casts: Names of initialisers of another type. Before such a one is used a Cast node makes
            ``<name>.float32`` of it, once; runtimes fold it away when they load the file.
        form: Sizes and precision.
        network: What is computed, where that is more than the configuration says
            (:func:`regnet.architecture.deployed`).
    """
    operations = (network or Architecture.of(config, classifier=classifier)).operations
    if fold_norms:
        operations = folded(operations)
    operations = reblocked(operations, form.stages)
    if isinstance(operations[0], Normalise):  # in float32, whatever follows
        casts = (*casts, NORMALISED) if form.precision != COMPUTED else casts
    elif form.io_precision != form.precision:
        casts = (*casts, PIXELS)
    nodes = spelled(operations, form, casts)
    batch, channels = form.dim("batch"), config.feature_size
    if classifier:
        output = operations[-1].output
        shapes: dict[str, list[int | str]] = {output: [batch, config.num_labels or channels]}
    else:
        sizes = [_feature_size(operations, form, axis) for axis in ("height", "width")]
        shapes = {FEATURES: [batch, channels, *sizes], POOLED: [batch, channels, 1, 1]}
    shapes[PIXELS] = [batch, config.num_channels, form.dim("height"), form.dim("width")]
    kind = ONNX_TYPES[form.io_precision]
    *outputs, pixels = (
        helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()
    )
    return helper.make_graph(nodes, config.model_type, [pixels], outputs)


def spelled(
    operations: Iterable[Operation], form: GraphForm, casts: Collection[str] = ()
) -> list[NodeProto]:
    """The nodes of some operations, in their order; ``casts`` as :func:`build_graph` takes them."""
    writer = _NodeWriter(casts, form)
    for operation in operations:
        writer.write(operation)
    return writer.nodes


def _feature_size(operations: Operations, form: GraphForm, axis: str) -> int | str:
    """Of the last feature map."""
    size = form.sizes[axis]
    return f"feature_{axis}" if size is None else extents(operations, size)[FEATURES]


def named_node(operator: str, name: str, *inputs: str, **attributes: Any) -> NodeProto:
    """A node, called like the value that it makes."""
    return helper.make_node(operator, inputs, [name], name=name, **attributes)


@dataclass
class _NodeWriter:
    """Appends nodes in execution order; most methods return the name of the value they made."""

    casts: Collection[str]
    form: GraphForm
    nodes: list[NodeProto] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)
    before_cast: dict[str, str] = field(default_factory=dict)

    def write(self, operation: Operation) -> None:
        """Spell an operation; the last node of those that it takes makes its value."""
        _SPELLINGS[type(operation)](self, operation)
        if self.nodes[-1].output[0] != operation.output:
            self.finish(operation.output)

    def add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        inputs = tuple(map(self.as_computed, inputs))
        self.nodes.append(named_node(operator, name, *inputs, **attributes))
        return name

    def as_computed(self, name: str) -> str:
        """What a node reads for an input: itself, its cast, or what it was before its cast."""
        name = self.before_cast.get(name, name)
        if name not in self.casts:
            return name
        precision: Element = self.form.precision
        value = f"{name}.{precision}"
        self.nodes.append(named_node("Cast", value, name, to=ONNX_TYPES[precision]))
        return value

    def outside(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        """A node before or behind the network, which computes in what the graph takes and gives."""
        self.nodes.append(named_node(operator, name, *inputs, **attributes))
        return name

    def constant(self, name: str, value: float) -> str:
        """One node for each scalar, however many read it."""
        if name not in self.constants:
            self.constants.add(name)
            if self.form.precision == "float32":
                self.add("Constant", name, value_float=value)
            else:
                scalar = np.array(value, self.form.precision)
                self.add("Constant", name, value=numpy_helper.from_array(scalar))
        return name

    def reshape(self, name: str, value: str, sizes: list[int]) -> str:
        """A value with other sizes: 0 is the value's own, -1 what is left."""
        shape = "shape_" + "_".join(map(str, sizes)).replace("-1", "rest")
        if shape not in self.constants:
            self.constants.add(shape)
            self.add("Constant", shape, value_ints=sizes)
        return self.add("Reshape", name, value, shape)

    def finish(self, name: str) -> None:
        """Make an output of the value that was made last, and that nothing has read yet."""
        form = self.form
        if form.io_precision == form.precision:
            self.nodes[-1].output[0] = name
            return
        value = self.nodes[-1].output[0] = f"{name}.{form.precision}"
        self.add("Cast", name, value, to=ONNX_TYPES[form.io_precision])
        self.before_cast[name] = value


def folded_names(module: str) -> tuple[str, str]:
    """Initialisers of a convolution that has taken its batch norm in: weight and bias."""
    return module + FOLDED_WEIGHT, module + FOLDED_BIAS


def _conv(writer: _NodeWriter, operation: Conv) -> None:
    weights = folded_names(operation.around) if operation.norm else _names(operation)
    geometry: dict[str, Any] = {"kernel_shape": [operation.kernel_size] * 2}
    if len(operation.slots) == 1:  # a convolution with its own bias is a gate's, of one pixel
        geometry |= {
            "strides": [operation.stride] * 2,
            "pads": [operation.kernel_size // 2] * 4,
            "group": operation.groups,
        }
    if operation.padding == "same":
        del geometry["pads"]
        geometry["auto_pad"] = "SAME_UPPER"
    writer.add("Conv", operation.name, *operation.inputs, *weights, **geometry)


def _norm(writer: _NodeWriter, operation: Norm) -> None:
    inputs = (*operation.inputs, *_names(operation))
    writer.add("BatchNormalization", operation.name, *inputs, epsilon=operation.eps)


def _group_norm(writer: _NodeWriter, operation: GroupNorm) -> None:
    """Spelled out, since `GroupNormalization` had other inputs before opset 21."""
    _, centred, deviation = _grouped(writer, operation)
    divided = writer.add("Div", f"{operation.name}.divided", centred, deviation)
    _affine(writer, operation, divided)


def _evonorm(writer: _NodeWriter, operation: EvoNorm) -> None:
    name, (value,) = operation.name, operation.inputs
    grouped, _, deviation = _grouped(writer, operation)
    if len(operation.slots) > 2:  # noqa: PLR2004 -- weight and bias; v makes it an activation
        sloped = writer.add("Mul", f"{name}.sloped", value, _per_channel(writer, operation, 2))
        gate = writer.add("Sigmoid", f"{name}.sigmoid", sloped)
        gated = writer.add("Mul", f"{name}.gated", value, gate)
        grouped = writer.reshape(f"{name}.activated", gated, [0, operation.groups, -1])
    _affine(writer, operation, writer.add("Div", f"{name}.divided", grouped, deviation))


def _grouped(writer: _NodeWriter, operation: GroupNorm | EvoNorm) -> tuple[str, str, str]:
    """The value as (N, groups, rest), the same less its mean, and its deviation, (N, groups, 1).

    Means by `GlobalAveragePool`, which says the same in every opset.
    """
    name, (value,) = operation.name, operation.inputs
    grouped = writer.reshape(f"{name}.grouped", value, [0, operation.groups, -1])
    mean = writer.add("GlobalAveragePool", f"{name}.mean", grouped)
    centred = writer.add("Sub", f"{name}.centred", grouped, mean)
    square = writer.add("Mul", f"{name}.square", centred, centred)
    variance = writer.add("GlobalAveragePool", f"{name}.variance", square)
    eps = writer.constant("epsilon", operation.eps)
    shifted = writer.add("Add", f"{name}.shifted", variance, eps)
    return grouped, centred, writer.add("Sqrt", f"{name}.deviation", shifted)


def _affine(writer: _NodeWriter, operation: GroupNorm | EvoNorm, grouped: str) -> None:
    """Back to (N, C, H, W), times the weight and plus the bias of each channel."""
    name = operation.name
    shape = writer.add("Shape", f"{name}.shape", *operation.inputs)
    normed = writer.add("Reshape", f"{name}.normed", grouped, shape)
    weight, bias = (_per_channel(writer, operation, index) for index in (0, 1))
    writer.add("Add", name, writer.add("Mul", f"{name}.scaled", normed, weight), bias)


def _per_channel(writer: _NodeWriter, operation: Operation, index: int) -> str:
    """A tensor of (C,) as (C, 1, 1)."""
    name = operation.slots[index].name
    return writer.reshape(f"{name}{PER_CHANNEL}", name, [-1, 1, 1])


def _act(writer: _NodeWriter, operation: Act) -> None:
    _ACTIVATIONS[operation.function](writer, operation.name, *operation.inputs)


def _average_pool(writer: _NodeWriter, operation: AveragePool) -> None:
    strides = [operation.stride] * 2
    geometry = {"kernel_shape": [2, 2], "strides": strides, "ceil_mode": 1, "count_include_pad": 0}
    writer.add("AveragePool", operation.name, *operation.inputs, **geometry)


def _normalise(writer: _NodeWriter, operation: Normalise) -> None:
    """In float32: of a half, means of bytes have six bits behind the point."""
    name, (value,) = operation.name, operation.inputs
    if writer.form.io_precision != COMPUTED:
        float32 = ONNX_TYPES[COMPUTED]
        value = writer.outside("Cast", f"{name}.{COMPUTED}", value, to=float32)
    for operator, what in (("Sub", "mean"), ("Div", "std")):
        numbers = np.array(getattr(operation, what), np.float32).reshape(-1, 1, 1)
        constant = numpy_helper.from_array(numbers)
        held = writer.outside("Constant", f"{name}.{what}", value=constant)
        made = name if what == "std" else f"{name}.centred"
        value = writer.outside(operator, made, value, held)


def _softmax(writer: _NodeWriter, operation: Softmax) -> None:
    writer.outside("Softmax", operation.name, *operation.inputs, axis=1)
    writer.nodes[-1].output[0] = operation.output


def _plain(operator: str, **attributes: float) -> Callable[[_NodeWriter, Operation], None]:
    """One node, which reads the operation's values and tensors."""

    def spell(writer: _NodeWriter, operation: Operation) -> None:
        inputs = (*operation.inputs, *_names(operation))
        writer.add(operator, operation.name, *inputs, **attributes)

    return spell


_SPELLINGS: dict[type[Operation], Callable[[_NodeWriter, Any], None]] = {
    Conv: _conv,
    Norm: _norm,
    GroupNorm: _group_norm,
    EvoNorm: _evonorm,
    Act: _act,
    Pool: _plain("GlobalAveragePool"),
    AveragePool: _average_pool,
    Scale: _plain("Mul"),
    Add: _plain("Add"),
    Flatten: _plain("Flatten", axis=1),
    Linear: _plain("Gemm", transB=1),
    Normalise: _normalise,
    Softmax: _softmax,
}


def _names(operation: Operation) -> tuple[str, ...]:
    """Of the tensors that an operation reads."""
    return tuple(slot.name for slot in operation.slots if not slot.is_counter)


def _of_one(operator: str) -> Callable[[_NodeWriter, str, str], str]:
    """A function that ONNX has an operator for."""
    return lambda writer, name, value: writer.add(operator, name, value)


def _silu(writer: _NodeWriter, name: str, value: str) -> str:
    return writer.add("Mul", name, value, writer.add("Sigmoid", f"{name}.sigmoid", value))


def _gelu(writer: _NodeWriter, name: str, value: str) -> str:
    """``x * (1 + erf(x / sqrt(2))) * 0.5``."""
    scaled = writer.add("Div", f"{name}.div", value, writer.constant("sqrt_2", math.sqrt(2)))
    return _gate(writer, name, value, writer.add("Erf", f"{name}.erf", scaled))


def _gelu_new(writer: _NodeWriter, name: str, value: str) -> str:
    """``x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) * 0.5``."""
    cube = writer.add("Pow", f"{name}.pow", value, writer.constant("three", 3.0))
    cube = writer.add("Mul", f"{name}.cubic", cube, writer.constant("cubic", 0.044715))
    inner = writer.add("Add", f"{name}.inner", value, cube)
    slope = writer.constant("sqrt_2_over_pi", math.sqrt(2 / math.pi))
    inner = writer.add("Mul", f"{name}.scaled", inner, slope)
    return _gate(writer, name, value, writer.add("Tanh", f"{name}.tanh", inner))


def _gate(writer: _NodeWriter, name: str, value: str, sigmoid: str) -> str:
    """``value * (1 + sigmoid) * 0.5``, the end of both forms of GELU."""
    shifted = writer.add("Add", f"{name}.add", sigmoid, writer.constant("one", 1.0))
    gated = writer.add("Mul", f"{name}.mul", value, shifted)
    return writer.add("Mul", name, gated, writer.constant("half", 0.5))


_ACTIVATIONS: dict[Function, Callable[[_NodeWriter, str, str], str]] = {
    "relu": _of_one("Relu"),
    "gelu": _gelu,
    "gelu_new": _gelu_new,
    "selu": _of_one("Selu"),  # whose default alpha and gamma are PyTorch's, in float32
    "sigmoid": _of_one("Sigmoid"),
    "silu": _silu,
}
