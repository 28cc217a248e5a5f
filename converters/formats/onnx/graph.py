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
from onnx import GraphProto, NodeProto, ValueInfoProto, helper, numpy_helper

from converters.formats.onnx.file import ONNX_TYPES
from converters.formats.onnx.form import DEFAULT_FORM, FOLDED_BIAS, FOLDED_WEIGHT
from regnet.architecture import BASE_PREFIX, CLASSIFIER, NORM_EPS, PIXELS, Blocks
from regnet.dataflow import Dataflow

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from converters.formats.onnx.form import Element, GraphForm
    from regnet.architecture import ConvNorm, SqueezeExcite
    from regnet.config import RegNetConfig

LOGITS = "logits"
FEATURES = "last_hidden_state"
POOLED = "pooler_output"


def build_graph(
    config: RegNetConfig,
    *,
    classifier: bool,
    fold_norms: bool,
    casts: Collection[str] = (),
    form: GraphForm = DEFAULT_FORM,
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
    """
    network = Blocks.of(config)
    if form.io_precision != form.precision:
        casts = (*casts, PIXELS)
    prefix = BASE_PREFIX if classifier else ""
    writer = _NodeWriter(prefix, config.hidden_act, fold_norms, casts, form)
    features = writer.trunk(network)
    batch, channels = form.dim("batch"), network.out_channels
    if classifier:
        writer.classify(features, has_linear=config.num_labels > 0)
        shapes: dict[str, list[int | str]] = {LOGITS: [batch, config.num_labels or channels]}
    else:
        writer.pool(writer.finish(FEATURES))
        writer.finish(POOLED)
        extents = [_feature_size(network, form, axis) for axis in ("height", "width")]
        shapes = {FEATURES: [batch, channels, *extents], POOLED: [batch, channels, 1, 1]}
    kind = ONNX_TYPES[form.io_precision]
    outputs = [helper.make_tensor_value_info(name, kind, shape) for name, shape in shapes.items()]
    return helper.make_graph(writer.nodes, config.model_type, [pixels_value(config, form)], outputs)


def pixels_value(config: RegNetConfig, form: GraphForm) -> ValueInfoProto:
    """The input of the network."""
    shape = (form.dim("batch"), config.num_channels, form.dim("height"), form.dim("width"))
    return helper.make_tensor_value_info(PIXELS, ONNX_TYPES[form.io_precision], shape)


def _feature_size(network: Blocks, form: GraphForm, axis: str) -> int | str:
    """Of the last feature map: each stride of 2 halves, rounding up."""
    size = form.sizes[axis]
    if size is None:
        return f"feature_{axis}"
    layers = [
        network.stem,
        *(layer for stage in network.stages for b in stage for layer in b.layers),
    ]
    for layer in layers:
        size = -(-size // getattr(layer, "stride", 1))
    return size


@dataclass
class _NodeWriter(Dataflow):
    """Appends nodes in execution order; every method returns the name of the value it made."""

    prefix: str
    hidden_act: str
    fold_norms: bool
    casts: Collection[str] = ()
    form: GraphForm = DEFAULT_FORM
    nodes: list[NodeProto] = field(default_factory=list)
    constants: set[str] = field(default_factory=set)

    def add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        inputs = tuple(map(self.as_computed, inputs))
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        return name

    def as_computed(self, name: str) -> str:
        """What a node reads for an input: itself, or its cast; only one node reads such a one."""
        if name not in self.casts:
            return name
        precision: Element = self.form.precision
        value = f"{name}.{precision}"
        node = helper.make_node("Cast", [name], [value], name=value, to=ONNX_TYPES[precision])
        self.nodes.append(node)
        return value

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

    def finish(self, name: str) -> str:
        """Make an output of the value that was made last, and that nothing has read yet.

        Returns:
            What layers behind it read: it, or what it was before its cast.
        """
        form = self.form
        if form.io_precision == form.precision:
            self.nodes[-1].output[0] = name
            return name
        value = self.nodes[-1].output[0] = f"{name}.{form.precision}"
        self.add("Cast", name, value, to=ONNX_TYPES[form.io_precision])
        return value

    def pool(self, value: str) -> str:
        return self.add("GlobalAveragePool", f"{self.prefix}pooler", value)

    def classify(self, value: str, *, has_linear: bool) -> str:
        sequential, _, _ = CLASSIFIER.rpartition(".")
        value = self.add("Flatten", f"{sequential}.0", self.pool(value), axis=1)
        if has_linear:
            self.add("Gemm", CLASSIFIER, value, *_weight_and_bias(CLASSIFIER), transB=1)
        return self.finish(LOGITS)

    def residual(self, name: str, value: str, shortcut: str) -> str:
        total = self.add("Add", f"{name}.add", value, shortcut)
        return self.activation(f"{name}.activation", total)

    def conv_norm(self, layer: ConvNorm, value: str) -> str:
        name = self.prefix + layer.name
        convolution, norm = f"{name}.convolution", f"{name}.normalization"
        geometry = {
            "kernel_shape": [layer.kernel_size] * 2,
            "strides": [layer.stride] * 2,
            "pads": [layer.kernel_size // 2] * 4,
            "group": layer.groups,
        }
        if self.fold_norms:
            folded = folded_names(name)
            value = self.add("Conv", convolution, value, *folded, **geometry)
        else:
            value = self.add("Conv", convolution, value, f"{convolution}.weight", **geometry)
            statistics = (f"{norm}.running_mean", f"{norm}.running_var")
            parameters = (*_weight_and_bias(norm), *statistics)
            value = self.add("BatchNormalization", norm, value, *parameters, epsilon=NORM_EPS)
        return self.activation(f"{name}.activation", value) if layer.activation else value

    def squeeze_excite(self, layer: SqueezeExcite, value: str) -> str:
        name = self.prefix + layer.name
        squeeze, excite = f"{name}.attention.0", f"{name}.attention.2"
        gate = self.add("GlobalAveragePool", f"{name}.pooler", value)
        gate = self.add("Conv", squeeze, gate, *_weight_and_bias(squeeze), kernel_shape=[1, 1])
        gate = self.add("Relu", f"{name}.attention.1", gate)
        gate = self.add("Conv", excite, gate, *_weight_and_bias(excite), kernel_shape=[1, 1])
        gate = self.add("Sigmoid", f"{name}.attention.3", gate)
        return self.add("Mul", f"{name}.mul", value, gate)

    def activation(self, name: str, value: str) -> str:
        return _ACTIVATIONS[self.hidden_act](self, name, value)


def folded_names(module: str) -> tuple[str, str]:
    """Initialisers of a convolution that has taken its batch norm in: weight and bias."""
    return module + FOLDED_WEIGHT, module + FOLDED_BIAS


def _weight_and_bias(module: str) -> tuple[str, str]:
    return f"{module}.weight", f"{module}.bias"


def _relu(writer: _NodeWriter, name: str, value: str) -> str:
    return writer.add("Relu", name, value)


def _selu(writer: _NodeWriter, name: str, value: str) -> str:
    # The operator's default alpha and gamma are PyTorch's, in float32.
    return writer.add("Selu", name, value)


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


_ACTIVATIONS: dict[str, Callable[[_NodeWriter, str, str], str]] = {
    "relu": _relu,
    "gelu": _gelu,
    "gelu_new": _gelu_new,
    "selu": _selu,
    "silu": _silu,
}
