"""A LiteRT graph in int8: operators between QUANTIZE and DEQUANTIZE that compute in integers.

Values are on the grids of ONNX's int8, whose 256 steps are called -128 to 127 here instead of 0 to
255; a sigmoid's is the one that LiteRT's kernels ask for. What each operator asks of its integers:
https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from converters.formats.litert import schema
from converters.formats.litert.export import CHANNELS_LAST, Held, small
from converters.formats.litert.graph import Graph, Node
from converters.formats.onnx.int8_graph import BIAS, WEIGHT, Grid, in_integers

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[np.floating]]

_ON_GRID = ".int8"
"""What follows the name of a value in that of its integers."""

_TINY = float(np.finfo(np.float32).tiny)
_OF_ZERO = 2.0**-10
"""Step of a value that is never anything but zero, whose grid has none: XNNPACK divides by it, and
takes no quotient of 256 or more."""

_LEAST = -128
"""The first of the 256 integers."""

_OF_SIGMOID = schema.Steps(np.array([1 / 256], np.float32), _LEAST)
"""The grid of what lies between 0 and 1."""

_MULTIPLYING = {schema.CONV_2D, schema.GROUPED_CONV_2D, schema.FULLY_CONNECTED}

_KINDS = {
    schema.CONV_2D: replace(schema.CONV_2D, version=3),
    schema.GROUPED_CONV_2D: schema.GROUPED_CONV_2D,
    schema.FULLY_CONNECTED: replace(schema.FULLY_CONNECTED, version=12),  # a scale for each channel
    schema.ADD: replace(schema.ADD, version=2),
    schema.MUL: replace(schema.MUL, version=2),
    schema.MEAN: replace(schema.MEAN, version=2),
    schema.LOGISTIC: replace(schema.LOGISTIC, version=2),
    schema.PAD: replace(schema.PAD, version=2),
}
"""What has kernels in integers, and the oldest version of each that does."""


def quantised(
    graph: Graph, chosen: Collection[str], grids: Mapping[str, Grid], weights: Arrays
) -> tuple[Graph, dict[str, Held]]:
    """Write a graph anew with some of its values computed in integers.

    Args:
        graph: In float32.
        chosen: Names of these values; zeros around one of them are in integers, too.
        grids: Of these, and of all that the operators that make them read.
        weights: What convolutions and the classifier hold, with channels first, by name.

    Returns:
        The graph, and the weights of its operators in integers.
    """
    writer = _Writer(graph, chosen, grids, weights)
    for node in graph.nodes:
        writer.add(node)
    return writer.graph, writer.held


class _Writer:
    """Appends the nodes of a graph, in integers or not, with what puts values on their grids."""

    def __init__(
        self, graph: Graph, chosen: Collection[str], grids: Mapping[str, Grid], weights: Arrays
    ) -> None:
        ours = {node.output for node in graph.nodes if node.output in chosen}
        read = {value for node in graph.nodes if node.output in ours for value in node.inputs}
        padded = {node.output for node in graph.nodes if node.kind is schema.PAD}
        self._ours = ours | padded & read
        self._read = {value for node in graph.nodes for value in node.inputs}
        self._grids, self._weights = grids, weights
        self.graph = replace(graph, nodes=[], values=dict(graph.values))
        self.held: dict[str, Held] = {}

    def add(self, node: Node) -> None:
        if node.output not in self._ours:
            inputs = tuple(map(self._off_grid, node.inputs))
            self.graph.nodes.append(replace(node, inputs=inputs))
            return
        value, *others = node.inputs
        on_grid = self._on_grid(value)
        if node.kind in _MULTIPLYING:
            others = self._in_integers(node, self._steps(on_grid))
        else:
            others = [self._on_grid(one) if one in self.graph.values else one for one in others]
        steps = self._steps(on_grid) if node.kind is schema.PAD else self._made_by(node)
        output = self._on(node.output, steps)
        self.graph.nodes.append(Node(_KINDS[node.kind], (on_grid, *others), output, node.options))
        if node.output not in self._read:  # it is an output
            self._off_grid(node.output)

    def _made_by(self, node: Node) -> schema.Steps:
        return _OF_SIGMOID if node.kind is schema.LOGISTIC else _of_grid(self._grids[node.output])

    def _steps(self, on_grid: str) -> schema.Steps:
        steps = self.graph.values[on_grid].steps
        assert steps is not None, on_grid  # noqa: S101 -- for mypy: `_on` gave it some
        return steps

    def _on(self, value: str, steps: schema.Steps) -> str:
        """Name the integers of a value."""
        self.graph.values[value + _ON_GRID] = replace(self.graph.values[value], steps=steps)
        return value + _ON_GRID

    def _on_grid(self, value: str) -> str:
        """A value's integers, which may have to be made first."""
        if value + _ON_GRID not in self.graph.values:
            on_grid = self._on(value, _of_grid(self._grids[value]))
            self.graph.nodes.append(Node(schema.QUANTIZE, (value,), on_grid))
        return value + _ON_GRID

    def _off_grid(self, value: str) -> str:
        """A value in float32, which may have to be made of its integers first."""
        made = (node.output for node in self.graph.nodes)
        if value in self._ours and value not in made:
            self.graph.nodes.append(Node(schema.DEQUANTIZE_INT8, (value + _ON_GRID,), value))
        return value

    def _in_integers(self, node: Node, steps: schema.Steps) -> list[str]:
        """Round what a node multiplies by and adds; the names of both."""
        _, weight, bias = node.inputs
        kernel = self._weights[weight]
        zeros = self.graph.constants.get(bias)
        numbers = self._weights[bias] if zeros is None else zeros.astype(np.float32)
        scale = float(steps.scale[0])
        rounded, size, bias_rounded, bias_size = in_integers(kernel, numbers, scale)
        if kernel.ndim == len(CHANNELS_LAST):
            rounded = rounded.transpose(CHANNELS_LAST)
        names = [weight + WEIGHT, bias + BIAS]
        if zeros is not None:  # whose steps are of this node alone
            names[1] = f"zeros_of_{len(self.held)}"
        contiguous = np.ascontiguousarray(rounded)
        self.held[names[0]] = small(contiguous)._replace(steps=schema.Steps(size))
        self.held[names[1]] = small(bias_rounded)._replace(steps=schema.Steps(bias_size))
        return names


def _of_grid(grid: Grid) -> schema.Steps:
    """The grid with its steps called -128 to 127."""
    scale = grid.scale if grid.scale > _TINY else _OF_ZERO
    return schema.Steps(np.array([scale], np.float32), int(grid.zero_point) + _LEAST)
