"""An ONNX graph in int8: every value of some layers on a grid of 256 steps, in QDQ form.

A pair of QuantizeLinear and DequantizeLinear puts a value on its grid and back; what stands between
two pairs a runtime computes in integers. Runtimes that know no integers compute the same in floats.

Activations are uint8, weights int8, symmetric, with a scale for each output channel: the pair that
x86 multiplies in one instruction (VNNI's ``vpdpbusd``). For int8 activations ONNX Runtime takes two
to four times as long, about as long as for floats.

TensorRT multiplies int8 with int8 alone, takes no zero point but 0, and no biases in integers: the
symmetric form is for it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, helper

from converters.formats.onnx.graph import named_node
from regnet.architecture import Add, Conv, Linear, Scale

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_MULTIPLYING = ("Conv", "Gemm")
_OPERATORS = (*_MULTIPLYING, "Add", "Mul", "Sigmoid", "GlobalAveragePool")
"""What is computed in integers. A ReLU is the lower end of the grid behind it."""

_IN_FLOAT = (".activation", ".normalization")
"""In the names of nodes that compute in floats."""

WEIGHT, BIAS = ".int8", ".int32"
"""What follows the name of an initialiser that is held in integers."""

SCALE, ZERO_POINT = ".scale", ".zero_point"
"""What follows the name of a value, or of an initialiser in integers, in that of its numbers."""

_STEPS_TO_A_SIDE = 127
_STEPS = 255

_LARGEST_BIAS = 2**30
"""In int32, with a bit to spare for the sum that it is added to."""

_TINY = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True, slots=True)
class Grid:
    """The 256 numbers that an activation can be: ``scale * (step - zero_point)``.

    Attributes:
        scale: Of one step; a float32.
        zero_point: Which step is zero: a uint8 where steps are 0 to 255, an int8 where they are
            -128 to 127. Zero is always one, for padding is zero.
    """

    scale: float
    zero_point: np.uint8 | np.int8

    @classmethod
    def spanning(cls, least: float, most: float) -> Grid:
        """The grid from the least to the largest of some numbers and zero."""
        least, most = min(least, 0.0), max(most, 0.0)
        scale = float(np.float32(max((most - least) / _STEPS, _TINY)))
        return cls(scale, np.uint8(round(-least / scale)))

    @classmethod
    def around_zero(cls, least: float, most: float) -> Grid:
        """The grid that reaches as far to both sides of zero as some numbers do to one."""
        largest = max(-least, most)
        return cls(float(np.float32(max(largest / _STEPS_TO_A_SIDE, _TINY))), np.int8(0))


def in_integers(
    weight: NDArray[np.floating], bias: NDArray[np.floating], input_scale: float
) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Round a layer's weights, (out, ...), and bias, (out,).

    A channel whose weights are tiny beside its bias gets larger steps, so that the bias fits.

    Returns:
        The weights in steps, -127 to 127; the size of a step for each output channel, (out,); the
        bias in steps of that times ``input_scale``; and this product, (out,).
    """
    largest = np.abs(weight).reshape(len(weight), -1).max(axis=1).astype(np.float64)
    for_bias = np.abs(bias.astype(np.float64)) / (_LARGEST_BIAS * input_scale)
    scale = np.maximum(np.maximum(largest / _STEPS_TO_A_SIDE, for_bias), _TINY).astype(np.float32)
    steps = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1)))
    bias_scale = np.float32(input_scale) * scale
    bias_steps = np.rint(bias.astype(np.float64) / np.maximum(bias_scale, _TINY))
    limited = np.clip(steps, -_STEPS_TO_A_SIDE, _STEPS_TO_A_SIDE)
    return limited.astype(np.int8), scale, bias_steps.astype(np.int32), bias_scale


def layer_names(folder: ConvertedFolder) -> tuple[str, ...]:
    """The units that are quantised or left in float, in the order of the network.

    Convolutions with what they take in, squeeze-excites, residual sums, the classifier: each has
    the name of its module. The convolutions of a squeeze-excite, which have a bias, are its own.
    """
    return tuple(
        operation.name if isinstance(operation, Linear) else operation.around
        for operation in folder.architecture.operations
        if isinstance(operation, Scale | Add | Linear)
        or (isinstance(operation, Conv) and len(operation.slots) == 1)
    )


class Int8Plan:
    """Which nodes of a graph compute in integers, and which values need a grid for that.

    Args:
        graph: In float32, batch norms folded.
        layers: Names of all layers, from :func:`layer_names`.
        left: Those of them that stay in float.
        symmetric: Whether activations are int8, and biases floats.

    Attributes:
        graph: As given.
        nodes: Names of the nodes.
        values: Names of the values, in the order of the graph.
        handed_on: Those that exist only on their grid, since a node in integers makes them.
        computed: These, and outputs that a node in integers makes by itself.
    """

    def __init__(
        self,
        graph: GraphProto,
        layers: Collection[str],
        left: Collection[str] = (),
        *,
        symmetric: bool = False,
    ) -> None:
        self.graph = graph
        self._symmetric = symmetric
        chosen = {None: False} | {layer: layer not in left for layer in layers}
        among_floats = _sums_among_floats(graph)
        ours = [
            node
            for node in graph.node
            if node.name not in among_floats and chosen[_layer_of(node, layers)]
        ]
        self.nodes = {node.name for node in ours}
        outputs = {value.name for value in graph.output}
        outputs |= {node.input[0] for node in graph.node if node.op_type == "Softmax"}
        relu = _sole_relus(graph)
        made = [relu.get(node.output[0], node.output[0]) for node in ours]
        self.handed_on = {value for value in made if value not in outputs}
        self.computed = self.handed_on | {node.output[0] for node in ours} & outputs
        read = {value for node in ours for value in _activations(node)}
        inputs = (value.name for value in graph.input)
        order = [*inputs, *(value for node in graph.node for value in node.output)]
        self.values = [value for value in order if value in read | self.handed_on]

    def read(self, value: str, *, ours: bool) -> str:
        """What a node reads for a value: it, or its place on its grid; ``ours`` are in integers."""
        on_grid = value in self.handed_on or (ours and value in self.values)
        return f"{value}.float32" if on_grid else value

    def quantised(self) -> GraphProto:
        """Write the graph anew with what is planned in integers, without initialisers."""
        read = (value.name for value in self.graph.input if value.name in self.values)
        nodes = [node for value in read for node in self._pair(value)]
        for node in self.graph.node:
            ours = node.name in self.nodes
            copy = NodeProto()
            copy.CopyFrom(node)
            copy.input[:] = [self.read(value, ours=ours) for value in node.input]
            if ours and node.op_type in _MULTIPLYING:
                _, weight, *biases = node.input
                integers = [bias + BIAS for bias in biases if not self._symmetric]
                held = [weight + WEIGHT, *integers]
                copy.input[1 : len(held) + 1] = [f"{steps}.float32" for steps in held]
                nodes.append(_dequantised(held[0], SCALE, ZERO_POINT, axis=0))
                nodes += [_dequantised(bias, SCALE, axis=0) for bias in integers]
            nodes.append(copy)
            for value in node.output:
                if value in self.values:
                    nodes += self._pair(value)
        return helper.make_graph(nodes, self.graph.name, self.graph.input, self.graph.output)

    def initialisers(
        self, grids: Mapping[str, Grid], weights: Mapping[str, NDArray[np.floating]]
    ) -> dict[str, NDArray[Any]]:
        """All tensors that the nodes of :meth:`quantised` read, by name.

        Args:
            grids: For each of ``values``.
            weights: The initialisers of ``graph``.
        """
        tensors: dict[str, NDArray[Any]] = {}
        for value in self.values:
            tensors[value + SCALE] = np.array(grids[value].scale, np.float32)
            tensors[value + ZERO_POINT] = np.array(grids[value].zero_point)
        for node in self.graph.node:
            if node.name in self.nodes and node.op_type in _MULTIPLYING:
                value, weight, *biases = node.input
                kernel, scale = weights[weight], grids[value].scale
                kept = biases if self._symmetric else ()  # in floats
                bias = (
                    weights[biases[0]]
                    if len(biases) > len(kept)
                    else np.zeros(len(kernel), np.float32)
                )
                steps, size, bias_steps, bias_size = in_integers(kernel, bias, scale)
                tensors |= {
                    weight + WEIGHT: steps,
                    weight + WEIGHT + SCALE: size,
                    weight + WEIGHT + ZERO_POINT: np.zeros(len(steps), np.int8),
                }
                tensors |= {name: weights[name] for name in kept}
                for name in biases[len(kept) :]:
                    tensors |= {name + BIAS: bias_steps, name + BIAS + SCALE: bias_size}
            else:
                tensors |= {value: weights[value] for value in node.input if value in weights}
        return tensors

    def _pair(self, value: str) -> list[NodeProto]:
        """What puts an activation on its grid and back."""
        numbers = value + SCALE, value + ZERO_POINT
        on_grid, off_grid = f"{value}.{'int8' if self._symmetric else 'uint8'}", f"{value}.float32"
        return [
            named_node("QuantizeLinear", on_grid, value, *numbers),
            named_node("DequantizeLinear", off_grid, on_grid, *numbers),
        ]


def _dequantised(steps: str, *numbers: str, **attributes: int) -> NodeProto:
    """What makes floats of an initialiser in integers."""
    inputs = (steps, *(steps + ending for ending in numbers))
    return named_node("DequantizeLinear", f"{steps}.float32", *inputs, **attributes)


def _activations(node: NodeProto) -> list[str]:
    """What a node reads but weights."""
    return list(node.input[:1] if node.op_type in _MULTIPLYING else node.input)


def _layer_of(node: NodeProto, layers: Collection[str]) -> str | None:
    """The layer that a node belongs to; None if it computes in float in any case.

    Activation functions other than ReLU do: they bend most where integers are coarse. So do norms
    that no convolution takes in: they divide by what they see.
    """
    if node.op_type not in _OPERATORS or _is_in_float(node):
        return None
    owner = node.name
    while owner and owner not in layers:
        owner = owner.rpartition(".")[0]
    return owner or None


def _is_in_float(node: NodeProto) -> bool:
    """Whether it belongs to a norm or an activation function that integers cannot compute."""
    return node.op_type != "Relu" and any(part in node.name for part in _IN_FLOAT)


def _sums_among_floats(graph: GraphProto) -> set[str]:
    """Names of the sums that a norm or an activation function in floats makes or reads.

    Integers would gain nothing there, and lose much: what a preactivation network adds up from
    block to block has the range of all its blocks together, and would be rounded to it in each.
    """
    floats = [node for node in graph.node if _is_in_float(node)]
    beside = {value for node in floats for value in (*node.input, *node.output)}
    return {
        node.name
        for node in graph.node
        if node.op_type == "Add" and not beside.isdisjoint((*node.input, *node.output))
    }


def _sole_relus(graph: GraphProto) -> dict[str, str]:
    """Value to what ReLU makes of it, where nothing else reads it."""
    readers: dict[str, list[NodeProto]] = defaultdict(list)
    for node in graph.node:
        for value in node.input:
            readers[value].append(node)
    return {
        value: by[0].output[0]
        for value, by in readers.items()
        if len(by) == 1 and by[0].op_type == "Relu"
    }
