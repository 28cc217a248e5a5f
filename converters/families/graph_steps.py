"""What operators mean whose dialects differ in spelling alone: the steps and expressions they make.

Each takes the reader, the node, and what the dialect's own handler has found in its attributes.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import Constant
from converters.checkpoint.values import contiguous_stride
from converters.families.graph_expressions import (
    KNOWN,
    X,
    difference,
    mean_of,
    product,
    quotient,
    substituted,
    sum_of,
    variance_of,
)
from converters.families.graph_norms import norm_of, normalised
from converters.families.graph_sizes import Sizes, filled_in, spread
from converters.families.graph_values import IMAGE_AXES, Padded, Value, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.checkpoint.graph import Node
    from converters.checkpoint.values import StoredTensor
    from converters.families.graph_expressions import Tree
    from converters.families.graph_sizes import Size
    from converters.families.graph_values import GraphReader
    from regnet.wider import Padding

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


def stride_of(reader: GraphReader, node: Node, stride: object) -> int:
    """The stride in both directions, from what is stated of each."""
    match stride:
        case (int(down), int(right)) if down == right and down >= 1:
            return int(down)
    raise reader.unfit(node, f"has strides {shown(stride)}")


def convolution(  # noqa: PLR0913, PLR0917 -- what dialects find in a convolution
    reader: GraphReader,
    node: Node,
    weight: StoredTensor,
    stride: object,
    group: object,
    padding: Padding = "symmetric",
) -> None:
    """A convolution whose padding and dilation were looked at; its bias is the third input."""
    step = stride_of(reader, node, stride)
    if not isinstance(group, int) or group < 1 or weight.shape[0] % group:
        raise reader.unfit(node, f"has group {shown(group)}")
    tensors = {"weight": weight}
    bias = reader.constant(node, 2)
    zeros = bias is not None and bias.tensor is None and bias.shape == weight.shape[:1]
    nothing = zeros and bias is not None and bias.numbers and not any(bias.numbers)
    if len(node.inputs) > 2 and node.inputs[2] and not nothing:  # noqa: PLR2004
        tensors["bias"] = reader.tensor(node, 2, 1)
    value = reader.padded(node).value
    if len(value.shape) != IMAGE_AXES:
        raise reader.unfit(node, f"reads a value of shape {shown(value.shape)}")
    shape = Sizes((value.shape[0], weight.shape[0], *_strided(reader, node, value, step)))
    fields: dict[str, Any] = {"stride": step, "groups": group, "padding": padding}
    reader.add("conv", node, value, shape=shape, tensors=tensors, **fields)


def _strided(reader: GraphReader, node: Node, value: Value, stride: int) -> tuple[Size, ...]:
    """Height and width of what is read with a stride."""
    return tuple(reader.strided(node, size, stride) for size in value.shape[2:])


def padding_of(
    reader: GraphReader, node: Node, weight: StoredTensor, stride: object, own: object
) -> Padding | None:
    """How images are padded by a convolution and before it; None if otherwise than in a RegNet.

    Args:
        reader: Of the graph.
        node: The convolution.
        weight: Its kernel.
        stride: In both directions.
        own: How many zeros it puts on every side by itself, or ``"same"`` for TensorFlow's.
    """
    step, kernel = stride_of(reader, node, stride), kernel_pad(reader, node, weight)
    image = reader.padded(node)
    if image.around == (0, 0, 0, 0):
        if own == "same":
            return "same" if step > 1 and kernel else "symmetric"
        return "symmetric" if own == kernel else None
    if image.repeats or own != 0:
        return None
    if image.around == (kernel,) * 4:
        return "symmetric"
    above, below, left, right = (
        side
        for axis in (2, 3)
        for side in _same_padding(reader, node, image.value.shape[axis], 2 * kernel + 1, step)
    )
    return "same" if image.around == (above, below, left, right) else None


def _same_padding(
    reader: GraphReader, node: Node, size: Size, kernel: int, stride: int
) -> tuple[Size, Size]:
    """The zeros on both sides that TensorFlow puts there, as `regnet.model.same_padded` has it."""

    def total(pixels: int) -> int:
        return max((pixels - 1) // stride * stride + kernel - pixels, 0)

    before = reader.computed(node, lambda pixels: total(pixels) // 2, size)
    return before, reader.computed(node, lambda pixels: total(pixels) - total(pixels) // 2, size)


def padded(
    reader: GraphReader, node: Node, around: Sequence[Size], *, repeats: bool = False
) -> None:
    """An image with pixels around it: above, below, left and right."""
    value = reader.value(node, 0)
    if len(value.shape) != IMAGE_AXES:
        raise reader.unfit(node, f"pads a value of shape {shown(value.shape)}")
    reader.set(node, Padded(value, tuple(around), repeats))


def average(reader: GraphReader, node: Node, stride: object, *, ceils: bool) -> None:
    """Means of 2x2 pixels, of those in the image at its last row and column.

    That is what a ceiling gives, or that row and column once more.
    """
    image = reader.padded(node)
    if image.around != ((0, 0, 0, 0) if ceils else (0, 1, 0, 1)) or image.repeats == ceils:
        raise reader.unfit(node, "takes other means than those of 2 x 2 pixels in the image")
    step, value = stride_of(reader, node, stride), image.value
    if len(value.shape) != IMAGE_AXES:
        raise reader.unfit(node, f"reads a value of shape {shown(value.shape)}")
    shape = Sizes((*value.shape[:2], *_strided(reader, node, value, step)))
    reader.add("average", node, value, shape=shape, stride=step)


def norm(reader: GraphReader, node: Node, eps: object) -> None:
    """A batch norm by its running statistics."""
    tensors = {leaf: reader.tensor(node, index, 1) for index, leaf in enumerate(NORM_LEAVES, 1)}
    reader.add("norm", node, reader.value(node, 0), tensors=tensors, eps=epsilon(reader, node, eps))


def epsilon(reader: GraphReader, node: Node, stated: object) -> float:
    """What is added to a variance, without what float32 made of its digits."""
    if not isinstance(stated, float) or not 0 < stated < 1:
        raise reader.unfit(node, f"has epsilon {shown(stated)}")
    return float(f"{stated:.6g}")


def group_norm(reader: GraphReader, node: Node, groups: object, eps: object) -> None:
    """A norm of groups in one operator, with its weight and bias as further inputs."""
    value = reader.value(node, 0)
    channels = value.shape[1] if len(value.shape) == IMAGE_AXES else None
    if not isinstance(groups, int) or not isinstance(channels, int) or channels % max(groups, 1):
        raise reader.unfit(node, f"has {shown(groups)} groups")
    tensors = {leaf: reader.tensor(node, index, 1) for index, leaf in ((1, "weight"), (2, "bias"))}
    added = epsilon(reader, node, eps)
    reader.add("group_norm", node, value, tensors=tensors, groups=groups, eps=added)


def instance_norm(reader: GraphReader, node: Node, eps: object) -> None:
    """A norm of what stands in groups, whose weight and bias do nothing."""
    for index, number in ((1, 1.0), (2, 0.0)):
        constant = reader.constant(node, index)
        if constant is None or not constant.numbers or set(constant.numbers) != {number}:
            raise reader.unfit(node, "is of single channels, which no norm of a RegNet is of")
    value = reader.value(node, 0)
    groups, added = _grouped(reader, node, value), epsilon(reader, node, eps)
    tree = normalised(difference(X, mean_of(groups, X)), groups, added)
    reader.express(node, value, substituted(tree, value.tree))


def pool(reader: GraphReader, node: Node) -> None:
    """Global average pooling; of what stands in groups, their means."""
    value = reader.value(node, 0)
    mean(reader, node, range(2, len(value.shape)), keeps=True)


def mean(reader: GraphReader, node: Node, axes: Sequence[int], *, keeps: bool) -> None:
    """Pooling, spelled as a mean, or pooling and flattening; or means of groups."""
    value = reader.value(node, 0)
    count = len(value.shape)
    if count < 3 or sorted(axis % count for axis in axes) != [*range(2, count)]:  # noqa: PLR2004
        words = shown(tuple(axes))
        raise reader.unfit(node, f"takes the mean over the axes {words}, not height, width")
    few = Sizes((*value.shape[:2], *(1 for _ in value.shape[2:])))
    if count != IMAGE_AXES:
        tree = mean_of(_grouped(reader, node, value), value.tree)
        reader.express(node, value, tree, few if keeps else Sizes(few[:2]))
    elif keeps:
        reader.add("pool", node, value, shape=few)
    else:
        pooled = f"{node.outputs[0]} before its axes are dropped"
        reader.step("pool", node, value, output=pooled, shape=few)
        reader.add("flatten", node, Value(pooled, X, few, node), shape=Sizes(few[:2]))


def variance(reader: GraphReader, node: Node, axes: Sequence[int], *, keeps: bool) -> None:
    """The biased variance of each group of channels."""
    value = reader.value(node, 0)
    count = len(value.shape)
    if sorted(axis % count for axis in axes) != [*range(2, count)]:
        words = shown(tuple(axes))
        raise reader.unfit(node, f"takes the variance over the axes {words}, not that of groups")
    few = Sizes((*value.shape[:2], *(1 for _ in value.shape[2:] if keeps)))
    reader.express(node, value, variance_of(_grouped(reader, node, value), value.tree), few)


def _grouped(reader: GraphReader, node: Node, value: Value) -> int:
    """Into how many groups of channels a value's elements are arranged: (N, groups, rest)."""
    whole = reader.shapes[value.base]
    groups = value.shape[1] if len(value.shape) > 2 else None  # noqa: PLR2004 -- a rest, too
    if (
        isinstance(groups, int)
        and isinstance(whole[1], int)
        and reader.is_whole(value)
        and value.shape[0] == whole[0]
        and whole[1] % groups == 0
    ):
        return groups
    raise reader.unfit(node, f"is of a value of shape {shown(value.shape)}, not of groups")


def flattened(reader: GraphReader, node: Node, axis: object) -> None:
    """(N, C, 1, 1) to (N, C)."""
    if axis not in {1, 1 - IMAGE_AXES}:
        raise reader.unfit(node, f"flattens from axis {shown(axis)} on")
    value = reader.value(node, 0)
    reshaped(reader, node, (value.shape[0], -1))


def squeezed(reader: GraphReader, node: Node, axes: Sequence[int]) -> None:
    """(N, C, 1, 1) to (N, C), by the axes that go."""
    value = reader.value(node, 0)
    if len(value.shape) != IMAGE_AXES or sorted(axis % IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"drops the axes {shown(tuple(axes))}, not height and width")
    reshaped(reader, node, value.shape[:2])


def unsqueezed(reader: GraphReader, node: Node, axes: Sequence[int]) -> None:
    """A value or constant with more axes, of one each."""
    left = list(reader.shape(node, 0))
    count = len(left) + len(axes)
    added = {axis + count if axis < 0 else axis for axis in axes}
    if len(added) < len(axes) or not added <= set(range(count)):
        raise reader.unfit(node, f"adds the axes {shown(tuple(axes))}")
    reshaped(reader, node, [1 if axis in added else left.pop(0) for axis in range(count)])


def reshaped(reader: GraphReader, node: Node, shape: Sequence[Size]) -> None:
    """A value or constant in other axes; (N, C, 1, 1) to (N, C) is an operation of a RegNet."""
    if reader.constant(node, 0) is not None:
        _reshaped_constant(reader, node, shape)
        return
    value = reader.value(node, 0)
    sizes = filled_in(shape, value.shape)
    if sizes is None:
        raise reader.unfit(node, f"gives the shape {shown(tuple(shape))}")
    if value.shape[2:] == (1, 1) and sizes == value.shape[:2]:
        reader.add("flatten", node, value, shape=sizes)
    else:
        reader.express(node, value, value.tree, sizes)


def _reshaped_constant(reader: GraphReader, node: Node, shape: Sequence[Size]) -> None:
    """A constant in other axes, whose elements stay in their order."""
    constant = reader.constant(node, 0)
    sizes = None if constant is None else filled_in(shape, Sizes(constant.shape))
    numbers = [size for size in sizes or () if isinstance(size, int)]
    if constant is None or sizes is None or len(numbers) < len(sizes):
        raise reader.unfit(node, f"gives a constant the shape {shown(tuple(shape))}")
    tensor = constant.tensor
    if tensor is not None:
        if not tensor.is_contiguous:
            raise reader.unfit(node, "changes the shape of a constant whose axes were moved")
        strides = contiguous_stride(tuple(numbers))
        tensor = replace(tensor, shape=tuple(numbers), stride=strides)
    reader.make_constant(node, replace(constant, shape=tuple(numbers), tensor=tensor))


def expanded(reader: GraphReader, node: Node, shape: Sequence[Size]) -> None:
    """A value that is repeated for more of the elements that it was computed of."""
    value = reader.value(node, 0)
    sizes = spread(value.shape, shape)
    if sizes != tuple(shape) or filled_in((*sizes, -1), reader.shapes[value.base]) is None:
        raise reader.unfit(node, f"repeats values to the shape {shown(tuple(shape))}")
    reader.express(node, value, value.tree, sizes)


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


def channels_of(reader: GraphReader, node: Node, index: int, value: Value) -> Tree | None:
    """A constant with a number for each channel of a value, (C, 1, 1); None if it is none."""
    constant, whole = reader.constant(node, index), reader.shapes[value.base]
    if constant is None or constant.tensor is None or value.shape != whole:
        return None
    shape = constant.shape[1:] if constant.shape[:1] == (1,) else constant.shape
    if len(whole) != IMAGE_AXES or shape != (whole[1], 1, 1):
        return None
    tensor = constant.tensor
    stride = tensor.stride[-len(shape) :][:1]
    return ("tensor", replace(tensor, shape=shape[:1], stride=stride))


def matmul(reader: GraphReader, node: Node) -> None:
    """A linear layer without its bias, which an addition brings."""
    reader.only(node)
    weight = reader.tensor(node, 1, 2).permuted((1, 0))
    linear(reader, node, reader.value(node, 0), {"weight": weight})


def linear(
    reader: GraphReader, node: Node, value: Value, tensors: Mapping[str, StoredTensor]
) -> None:
    """A linear layer."""
    if len(value.shape) != 2:  # noqa: PLR2004 -- (N, C)
        raise reader.unfit(node, f"reads a value of shape {shown(value.shape)}")
    shape = Sizes((value.shape[0], tensors["weight"].shape[0]))
    reader.add("linear", node, value, shape=shape, tensors=tensors)


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


def arithmetic(reader: GraphReader, node: Node, function: Callable[..., int]) -> bool:
    """Compute sizes with a node, one by one, if it computes with sizes; whether it does."""
    if all(reader.named_sizes(name) is None for name in node.inputs):
        return False
    found = [reader.sizes(node, index) for index in range(len(node.inputs))]
    columns = [sizes for sizes in found if sizes is not None]
    longest = max(map(len, columns))
    if len(columns) < len(found) or any(len(sizes) not in {1, longest} for sizes in columns):
        raise reader.unfit(node, "computes with sizes and something else")
    columns = [Sizes(sizes * longest) if len(sizes) == 1 else sizes for sizes in columns]
    rows = zip(*columns, strict=True)
    reader.set(node, Sizes(reader.computed(node, function, *row) for row in rows))
    return True


def multiplied(reader: GraphReader, node: Node, numbers: Sequence[float | None]) -> None:
    """A product: by numbers, of expressions of one value, or of a value and its gate."""
    for number, other in zip(numbers, (1, 0), strict=True):
        if number is not None:
            value = reader.value(node, other)
            reader.express(node, value, product(number, [value.tree]))
            return
    for constant, other in ((0, 1), (1, 0)):
        if reader.constant(node, constant) is not None:
            value = reader.value(node, other)
            factor = channels_of(reader, node, constant, value)
            if factor is None:
                raise reader.unfit(node, "multiplies with a constant that no RegNet has")
            reader.express(node, value, product(1.0, [value.tree, factor]))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        shape = together(reader, node, first, second)
        reader.express(node, first, product(1.0, [first.tree, second.tree]), shape)
        return
    gates = [value.tree != X and value.tree[0] == "sigmoid" for value in (first, second)]
    value, gate = (first, second) if gates != [True, False] else (second, first)
    reader.add("scale", node, value, gate)


def together(reader: GraphReader, node: Node, first: Value, second: Value) -> Sizes:
    """The shape of what is computed of two expressions of one value, element by element."""
    shape = spread(first.shape, second.shape)
    if shape is None:
        shapes = f"{shown(first.shape)} and {shown(second.shape)}"
        raise reader.unfit(node, f"computes with values of shapes {shapes}")
    return shape


def divided(reader: GraphReader, node: Node, number: float | None) -> None:
    """A quotient of a value and a number, or of two expressions of one value."""
    if number:
        value = reader.value(node, 0)
        reader.express(node, value, product(1 / number, [value.tree]))
        return
    if number is not None or reader.constant(node, 0) is not None:
        raise reader.unfit(node, "divides by something that no RegNet divides by")
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base != second.base:
        raise reader.unfit(node, "divides by something that no RegNet divides by")
    shape = together(reader, node, first, second)
    reader.express(node, first, quotient(first.tree, second.tree), shape)


def subtracted(reader: GraphReader, node: Node) -> None:
    """A difference of two expressions of one value."""
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base != second.base:
        raise reader.unfit(node, "subtracts something that no RegNet subtracts")
    shape = together(reader, node, first, second)
    reader.express(node, first, difference(first.tree, second.tree), shape)


def raised(reader: GraphReader, node: Node, exponent: float | None) -> None:
    """A power of a value."""
    if exponent not in {2.0, 3.0}:
        raise reader.unfit(node, "takes a power that no RegNet takes")
    value = reader.value(node, 0)
    reader.express(node, value, product(1.0, [value.tree] * int(exponent)))


def added(reader: GraphReader, node: Node, numbers: Sequence[float | None]) -> None:
    """A sum: of a linear layer or a norm and its bias, with a number, or of two values."""
    if _adds_bias(reader, node):
        return
    for number, other in zip(numbers, (1, 0), strict=True):
        if number is not None:
            value = reader.value(node, other)
            reader.express(node, value, sum_of(number, [value.tree]))
            return
    for constant, other in ((0, 1), (1, 0)):
        if reader.constant(node, constant) is not None:
            _end_norm(reader, node, constant, reader.value(node, other))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        shape = together(reader, node, first, second)
        reader.express(node, first, sum_of(0.0, [first.tree, second.tree]), shape)
    else:
        reader.add("add", node, first, second)


def _end_norm(reader: GraphReader, node: Node, constant: int, value: Value) -> None:
    """The bias of a norm that is spelled out, which ends it."""
    bias = channels_of(reader, node, constant, value)
    found = None if bias is None else norm_of(sum_of(0.0, [value.tree, bias]))
    if found is None:
        raise reader.unfit(node, "ends in no norm that a RegNet has")
    whole = Value(value.base, X, value.shape, node)
    added = epsilon(reader, node, found.eps)
    reader.add(found.kind, node, whole, tensors=found.tensors, groups=found.groups, eps=added)


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
        made, shape = node.outputs[0], reader.shapes[last.output]
        reader.steps[-1] = replace(last, node=node, output=made, tensors=tensors)
        reader.shapes[made] = shape
        reader.set(node, Value(made, X, shape, node))
        return True
    return False
