"""What operators mean whose dialects differ in spelling alone: the steps and expressions they make.

Each takes the reader, the node, and what the dialect's own handler has found in its attributes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Constant
from converters.families.graph_expressions import KNOWN, X, product, substituted, sum_of
from converters.families.graph_values import IMAGE_AXES, Step, Value, shown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint.graph import Node
    from converters.checkpoint.values import StoredTensor
    from converters.families.graph_values import GraphReader

NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")
"""A batch norm's tensors, as its second and further inputs."""


SELU_ALPHA, SELU_SCALE = 1.6732632423543772, 1.0507009873554805
"""Of its paper, as every framework has them."""


def kernel_pad(reader: GraphReader, node: Node, weight: StoredTensor) -> int:
    """How many zeros belong on every side of what is convolved with a kernel."""
    height, width = weight.shape[2:]
    if height != width or height % 2 == 0:
        raise reader.unfit(node, f"has a kernel of {height} x {width} pixels")
    return height // 2


def convolution(
    reader: GraphReader, node: Node, weight: StoredTensor, stride: object, group: object
) -> None:
    """A convolution whose padding and dilation were looked at; its bias is the third input."""
    match stride:
        case (int(down), int(right)) if down == right and down >= 1:
            pass
        case _:
            raise reader.unfit(node, f"has strides {shown(stride)}")
    if not isinstance(group, int) or group < 1 or weight.shape[0] % group:
        raise reader.unfit(node, f"has group {shown(group)}")
    tensors = {"weight": weight}
    bias = reader.constant(node, 2)
    zeros = bias is not None and bias.tensor is None and bias.shape == weight.shape[:1]
    nothing = zeros and bias is not None and bias.numbers and not any(bias.numbers)
    if len(node.inputs) > 2 and node.inputs[2] and not nothing:  # noqa: PLR2004
        tensors["bias"] = reader.tensor(node, 2, 1)
    reader.add("conv", node, reader.value(node, 0), tensors=tensors, stride=int(down), groups=group)


def norm(reader: GraphReader, node: Node) -> None:
    """A batch norm whose epsilon was looked at."""
    tensors = {leaf: reader.tensor(node, index, 1) for index, leaf in enumerate(NORM_LEAVES, 1)}
    reader.add("norm", node, reader.value(node, 0), tensors=tensors)


def pool(reader: GraphReader, node: Node) -> None:
    """Global average pooling."""
    reader.add("pool", node, reader.value(node, 0))


def mean(reader: GraphReader, node: Node, axes: Sequence[int], *, keeps: bool) -> None:
    """Pooling, spelled as a mean; or pooling and flattening."""
    value = reader.value(node, 0)
    if value.axes != IMAGE_AXES or sorted(axis % IMAGE_AXES for axis in axes) != [2, 3]:
        words = shown(tuple(axes))
        raise reader.unfit(node, f"takes the mean over the axes {words}, not height, width")
    if keeps:
        reader.add("pool", node, value)
        return
    pooled = f"{node.outputs[0]} before its axes are dropped"
    reader.steps.append(Step("pool", node, (reader.settled(value),), pooled))
    reader.add("flatten", node, Value(pooled, node=node))


def flattened(reader: GraphReader, node: Node, axis: object) -> None:
    """(N, C, 1, 1) to (N, C)."""
    if axis not in {1, 1 - IMAGE_AXES}:
        raise reader.unfit(node, f"flattens from axis {shown(axis)} on")
    reader.add("flatten", node, reader.value(node, 0))


def squeezed(reader: GraphReader, node: Node, axes: Sequence[int]) -> None:
    """(N, C, 1, 1) to (N, C), by the axes that go."""
    value = reader.value(node, 0)
    if value.axes != IMAGE_AXES or sorted(axis % IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"drops the axes {shown(tuple(axes))}, not height and width")
    reader.add("flatten", node, value)


def reshaped(reader: GraphReader, node: Node, value: Value, shape: tuple[int | str, ...]) -> None:
    """(N, C, 1, 1) to (N, C), by the shape that comes out."""
    match shape:
        case (first, features) if first in {"N", reader.batch} or (first == -1 != features):
            pass
        case _:
            raise reader.unfit(node, f"gives the shape {shown(shape)}")
    left = features if isinstance(features, int) and features != -1 else 0
    reader.add("flatten", node, value, features=left)


def moved(reader: GraphReader, node: Node, order: Sequence[int] | None) -> None:
    """A constant with its axes in another order; None is the reverse."""
    constant = reader.constant(node, 0)
    if constant is None or constant.tensor is None:
        raise reader.unfit(node, "moves axes, which no RegNet does")
    axes = len(constant.shape)
    order = order or tuple(reversed(range(axes)))
    if sorted(order) != list(range(axes)):
        raise reader.unfit(node, "moves axes that are not there")
    tensor = constant.tensor.permuted(order)
    reader.make_constant(node, Constant(constant.dtype, tensor.shape, tensor))


def matmul(reader: GraphReader, node: Node) -> None:
    """A linear layer without its bias, which an addition brings."""
    reader.only(node)
    weight = reader.tensor(node, 1, 2).permuted((1, 0))
    reader.add("linear", node, reader.value(node, 0), tensors={"weight": weight})


def row(reader: GraphReader, node: Node, index: int, classes: int) -> StoredTensor:
    """A bias, (classes,) or (1, classes)."""
    constant = reader.constant(node, index)
    if constant is None or constant.tensor is None:
        raise reader.unfit(node, "has no constant bias")
    if constant.shape not in {(classes,), (1, classes)}:
        raise reader.unfit(node, f"has a bias of shape {list(constant.shape)}")
    tensor = constant.tensor
    return replace(tensor, shape=(classes,), stride=tensor.stride[-1:])


def alias(reader: GraphReader, node: Node) -> None:
    """The same value or constant under another name."""
    constant = reader.constant(node, 0)
    if constant is not None:
        reader.make_constant(node, constant)
    else:
        reader.set(node, reader.value(node, 0))


def function(reader: GraphReader, node: Node) -> None:
    """A function that an operator is called after."""
    reader.only(node)
    value = reader.value(node, 0)
    reader.express(node, value, (node.op.lower(), value.tree))


def activation(reader: GraphReader, node: Node, name: str) -> None:
    """A whole activation in one operator."""
    value = reader.value(node, 0)
    reader.express(node, value, substituted(dict(KNOWN)[name], value.tree))


def gelu(reader: GraphReader, node: Node) -> None:
    """GELU, exact or by a hyperbolic tangent."""
    reader.only(node, approximate=...)
    kind = node.attributes.get("approximate", "none")
    if kind not in {"none", "tanh"}:
        raise reader.unfit(node, f"has approximate {shown(kind)}")
    activation(reader, node, "gelu_new" if kind == "tanh" else "gelu")


def multiplied(reader: GraphReader, node: Node, numbers: Sequence[float | None]) -> None:
    """A product: by a number, of expressions of one value, or of a value and its gate."""
    for number, other in zip(numbers, (1, 0), strict=True):
        if number is not None:
            value = reader.value(node, other)
            reader.express(node, value, product(number, [value.tree]))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        reader.express(node, first, product(1.0, [first.tree, second.tree]))
        return
    gates = [value.tree != X and value.tree[0] == "sigmoid" for value in (first, second)]
    value, gate = (first, second) if gates != [True, False] else (second, first)
    reader.add("scale", node, value, gate)


def divided(reader: GraphReader, node: Node, number: float | None) -> None:
    """A quotient of a value and a number."""
    if not number:
        raise reader.unfit(node, "divides by something that no RegNet divides by")
    value = reader.value(node, 0)
    reader.express(node, value, product(1 / number, [value.tree]))


def raised(reader: GraphReader, node: Node, exponent: float | None) -> None:
    """A power of a value."""
    if exponent not in {2.0, 3.0}:
        raise reader.unfit(node, "takes a power that no RegNet takes")
    value = reader.value(node, 0)
    reader.express(node, value, product(1.0, [value.tree] * int(exponent)))


def added(reader: GraphReader, node: Node, numbers: Sequence[float | None]) -> None:
    """A sum: of a linear layer and its bias, with a number, or of two values."""
    if _adds_bias(reader, node):
        return
    for number, other in zip(numbers, (1, 0), strict=True):
        if number is not None:
            value = reader.value(node, other)
            reader.express(node, value, sum_of(number, [value.tree]))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        reader.express(node, first, sum_of(0.0, [first.tree, second.tree]))
    else:
        reader.add("add", node, first, second)


def _adds_bias(reader: GraphReader, node: Node) -> bool:
    """Whether a node is the second half of a linear layer; then it is taken into the first."""
    for constant, other in ((0, 1), (1, 0)):
        if reader.constant(node, constant) is None or reader.constant(node, other) is not None:
            continue
        value = reader.value(node, other)
        last = reader.steps[-1] if reader.steps else None
        if last is None or last.kind != "linear" or "bias" in last.tensors:
            return False
        if value.tree != X or value.base != last.output:
            return False
        bias = row(reader, node, constant, last.tensors["weight"].shape[0])
        tensors = {**last.tensors, "bias": bias}
        reader.steps[-1] = replace(last, node=node, output=node.outputs[0], tensors=tensors)
        reader.set(node, Value(node.outputs[0], node=node, axes=2))
        return True
    return False
