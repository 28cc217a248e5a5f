"""ONNX's operators, of every opset: where these differ, attributes became inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Constant
from converters.families.graph_expressions import KNOWN, X, product, substituted, sum_of
from converters.families.graph_values import IMAGE_AXES, Sizes, Step, Value, shown
from regnet.architecture import NORM_EPS
from regnet.config import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint.graph import Node
    from converters.checkpoint.values import StoredTensor
    from converters.families.graph_values import GraphReader, Operators


def _alias(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    constant = reader.constant(node, 0)
    if constant is not None:
        reader.make_constant(node, constant)
    else:
        reader.set(node, reader.value(node, 0))


def _dropout(reader: GraphReader, node: Node) -> None:
    reader.only(node, ratio=..., seed=..., is_test=1)
    if len(node.inputs) > 2 and node.inputs[2] and reader.number(node, 2) != 0:  # noqa: PLR2004
        raise reader.unfit(node, "drops out values as in training")
    reader.set(node, reader.value(node, 0))


def _constant(reader: GraphReader, node: Node) -> None:
    if len(node.attributes) != 1:
        raise reader.unfit(node, "holds not one constant")
    (value,) = node.attributes.values()
    if isinstance(value, Constant):
        reader.make_constant(node, value)
    elif isinstance(value, int | float):
        dtype = "float32" if isinstance(value, float) else "int64"
        reader.make_constant(node, Constant(dtype, (), None, (value,)))
    elif isinstance(value, tuple):
        dtype = "float32" if any(isinstance(n, float) for n in value) else "int64"
        reader.make_constant(node, Constant(dtype, (len(value),), None, value))
    else:
        raise reader.unfit(node, "holds a constant of a kind that no RegNet has")


def _cast(reader: GraphReader, node: Node) -> None:
    """Constants to float32, which loses nothing; values not at all."""
    constant = reader.constant(node, 0)
    if constant is None and reader.sizes(node, 0) is not None:
        reader.only(node, to=7, saturate=...)  # int64, which sizes are
        reader.set(node, reader.sizes(node, 0) or Sizes())
        return
    if constant is None:
        raise reader.unfit(node, "computes in another type than float32")
    reader.only(node, to=1, saturate=...)
    reader.make_constant(node, constant)


def _transpose(reader: GraphReader, node: Node) -> None:
    reader.only(node, perm=...)
    constant = reader.constant(node, 0)
    if constant is None or constant.tensor is None:
        raise reader.unfit(node, "moves axes, which no RegNet does")
    axes = len(constant.shape)
    order = reader.integers(node, "perm", 9) or tuple(reversed(range(axes)))
    if sorted(order) != list(range(axes)):
        raise reader.unfit(node, "moves axes that are not there")
    tensor = constant.tensor.permuted(order)
    reader.make_constant(node, Constant(constant.dtype, tensor.shape, tensor))


def _conv(reader: GraphReader, node: Node) -> None:
    weight = reader.tensor(node, 1, IMAGE_AXES)
    height, width = weight.shape[2:]
    stride, group = node.attributes.get("strides", (1, 1)), node.attributes.get("group", 1)
    pad = height // 2
    reader.only(
        node,
        auto_pad="NOTSET",
        dilations=(1, 1),
        group=...,
        kernel_shape=(height, width),
        pads=(pad, pad, pad, pad),
        strides=...,
    )
    if height != width or height % 2 == 0:
        raise reader.unfit(node, f"has a kernel of {height} x {width} pixels")
    if pad and "pads" not in node.attributes:
        raise reader.unfit(node, f"has no pads where {pad} zeros belong on every side")
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


def _norm(reader: GraphReader, node: Node) -> None:
    reader.only(node, epsilon=NORM_EPS, momentum=..., training_mode=0, spatial=1, is_test=1)
    if [name for name in node.outputs[1:] if name]:
        raise reader.unfit(node, "gives statistics as in training")
    leaves = ("weight", "bias", "running_mean", "running_var")
    tensors = {leaf: reader.tensor(node, index, 1) for index, leaf in enumerate(leaves, 1)}
    reader.add("norm", node, reader.value(node, 0), tensors=tensors)


def _pool(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    reader.add("pool", node, reader.value(node, 0))


def _mean(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=..., keepdims=..., noop_with_empty_axes=...)
    value = reader.value(node, 0)
    axes = reader.integers(node, "axes", 1) or ()
    if value.axes != IMAGE_AXES or sorted(axis % IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"takes the mean over the axes {shown(axes)}, not height, width")
    keeps = node.attributes.get("keepdims", 1)
    if keeps == 1:
        reader.add("pool", node, value)
        return
    pooled = f"{node.outputs[0]} before its axes are dropped"
    reader.steps.append(Step("pool", node, (reader.settled(value),), pooled))
    reader.add("flatten", node, Value(pooled, node=node))


def _flatten(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=...)
    if node.attributes.get("axis", 1) not in {1, 1 - IMAGE_AXES}:
        raise reader.unfit(node, f"flattens from axis {shown(node.attributes['axis'])} on")
    reader.add("flatten", node, reader.value(node, 0))


def _squeeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=...)
    sizes = reader.sizes(node, 0)
    if sizes is not None:
        reader.set(node, sizes)
        return
    axes = reader.integers(node, "axes", 1) or ()
    value = reader.value(node, 0)
    if value.axes != IMAGE_AXES or sorted(axis % IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"drops the axes {shown(axes)}, not height and width")
    reader.add("flatten", node, value)


def _unsqueeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=...)
    sizes = reader.sizes(node, 0)
    if sizes is None or len(sizes) != 1:
        raise reader.unfit(node, "adds axes, which no RegNet does")
    reader.set(node, sizes)


def _reshape(reader: GraphReader, node: Node) -> None:
    """(N, C, 1, 1) to (N, C), however it is said."""
    reader.only(node, allowzero=..., shape=...)
    sizes, few = reader.sizes(node, 1), reader.constant(node, 0)
    if few is not None:
        if few.numbers is None or sizes != (-1,):
            raise reader.unfit(node, "changes the shape of a constant")
        reader.make_constant(node, replace(few, shape=(len(few.numbers),)))
        return
    value = reader.value(node, 0)
    if sizes is None and "shape" in node.attributes:
        sizes = Sizes(reader.integers(node, "shape", 9) or ())
    zero = "N" if not node.attributes.get("allowzero") else 0
    match tuple(zero if size == 0 else size for size in sizes or ()):
        case (first, features) if first in {"N", reader.batch} or (first == -1 != features):
            pass
        case _:
            raise reader.unfit(node, f"gives the shape {shown(tuple(sizes or ()))}")
    left = features if isinstance(features, int) and features != -1 else 0
    reader.add("flatten", node, value, features=left)


def _shape(reader: GraphReader, node: Node) -> None:
    """Of any value with images or features, the first axis is the number of images."""
    reader.only(node, start=..., end=...)
    constant = reader.constant(node, 0)
    whole: Sequence[int | str]
    whole = "NCHW"[: reader.value(node, 0).axes] if constant is None else constant.shape
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    taken = whole[start if isinstance(start, int) else 0 : end if isinstance(end, int) else None]
    reader.set(node, Sizes(taken))


def _expand(reader: GraphReader, node: Node) -> None:
    """One number, over and over: zeros where a bias is left out."""
    reader.only(node)
    constant, sizes = reader.constant(node, 0), reader.sizes(node, 1)
    number = reader.number(node, 0) if constant is not None else None
    if number is None and sizes is not None and sizes == (1,):
        reader.set(node, reader.sizes(node, 0) or Sizes())
        return
    if constant is None or number is None or sizes is None or len(sizes) != 1:
        raise reader.unfit(node, "repeats values, which no RegNet does")
    (size,) = sizes
    if not isinstance(size, int) or not 0 < size <= MAX_COUNT:
        raise reader.unfit(node, f"repeats a value {shown(size)} times")
    reader.make_constant(node, Constant(constant.dtype, (size,), None, (number,) * size))


def _cast_like(reader: GraphReader, node: Node) -> None:
    """To the type of what is computed, which is float32 everywhere."""
    reader.only(node, saturate=...)
    constant = reader.constant(node, 0)
    if constant is None:
        raise reader.unfit(node, "computes in another type than float32")
    reader.value(node, 1)
    reader.make_constant(node, constant)


def _gather(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=0)
    sizes, index = reader.sizes(node, 0), reader.number(node, 1)
    if sizes is None or index is None or not -len(sizes) <= index < len(sizes):
        raise reader.unfit(node, "picks values, which no RegNet does")
    reader.set(node, Sizes((sizes[int(index)],)))


def _concat(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=0)
    parts = [reader.sizes(node, index) for index in range(len(node.inputs))]
    joined = [size for part in parts for size in part or ()]
    if None in parts or len(joined) > IMAGE_AXES:
        raise reader.unfit(node, "joins values, which no RegNet does")
    reader.set(node, Sizes(joined))


def _gemm(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=1.0, beta=1.0, transA=0, transB=...)
    weight = reader.tensor(node, 1, 2)
    if node.attributes.get("transB", 0) == 0:
        weight = weight.permuted((1, 0))
    tensors = {"weight": weight, "bias": _row(reader, node, 2, weight.shape[0])}
    reader.add("linear", node, reader.value(node, 0), tensors=tensors)


def _matmul(reader: GraphReader, node: Node) -> None:
    """A linear layer without its bias, which an `Add` brings."""
    reader.only(node)
    weight = reader.tensor(node, 1, 2).permuted((1, 0))
    reader.add("linear", node, reader.value(node, 0), tensors={"weight": weight})


def _row(reader: GraphReader, node: Node, index: int, classes: int) -> StoredTensor:
    """A bias, (classes,) or (1, classes)."""
    constant = reader.constant(node, index)
    if constant is None or constant.tensor is None:
        raise reader.unfit(node, "has no constant bias")
    if constant.shape not in {(classes,), (1, classes)}:
        raise reader.unfit(node, f"has a bias of shape {list(constant.shape)}")
    tensor = constant.tensor
    return replace(tensor, shape=(classes,), stride=tensor.stride[-1:])


def _selu(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=1.6732632423543772, gamma=1.0507009873554805)
    _function(reader, node)


def _gelu_node(reader: GraphReader, node: Node) -> None:
    reader.only(node, approximate=...)
    kind = node.attributes.get("approximate", "none")
    if kind not in {"none", "tanh"}:
        raise reader.unfit(node, f"has approximate {shown(kind)}")
    value = reader.value(node, 0)
    tree = dict(KNOWN)["gelu_new" if kind == "tanh" else "gelu"]
    reader.express(node, value, substituted(tree, value.tree))


def _plain(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    _function(reader, node)


def _function(reader: GraphReader, node: Node) -> None:
    value = reader.value(node, 0)
    reader.express(node, value, (node.op.lower(), value.tree))


def _mul(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    for number, other in ((reader.number(node, 0), 1), (reader.number(node, 1), 0)):
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


def _div(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    number = reader.number(node, 1)
    if not number:
        raise reader.unfit(node, "divides by something that no RegNet divides by")
    value = reader.value(node, 0)
    reader.express(node, value, product(1 / number, [value.tree]))


def _pow(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    exponent = reader.number(node, 1)
    if exponent not in {2.0, 3.0}:
        raise reader.unfit(node, "takes a power that no RegNet takes")
    value = reader.value(node, 0)
    reader.express(node, value, product(1.0, [value.tree] * int(exponent)))


def _add(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    if _adds_bias(reader, node):
        return
    for number, other in ((reader.number(node, 0), 1), (reader.number(node, 1), 0)):
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
        bias = _row(reader, node, constant, last.tensors["weight"].shape[0])
        tensors = {**last.tensors, "bias": bias}
        reader.steps[-1] = replace(last, node=node, output=node.outputs[0], tensors=tensors)
        reader.set(node, Value(node.outputs[0], node=node, axes=2))
        return True
    return False


OPERATORS: Operators = {
    "Add": _add,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "Constant": _constant,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Erf": _plain,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": _gelu_node,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Identity": _alias,
    "MatMul": _matmul,
    "Mul": _mul,
    "Pow": _pow,
    "ReduceMean": _mean,
    "Relu": _plain,
    "Reshape": _reshape,
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": _plain,
    "Squeeze": _squeeze,
    "Tanh": _plain,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
