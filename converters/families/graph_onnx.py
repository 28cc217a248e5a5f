"""ONNX's operators, of every opset: where these differ, attributes became inputs."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any, cast

from converters.checkpoint.graph import Constant
from converters.families import graph_steps as steps
from converters.families.graph_sizes import Sizes
from converters.families.graph_values import IMAGE_AXES, shown
from regnet.files.json_file import MAX_COUNT

if TYPE_CHECKING:
    from converters.checkpoint.graph import Node
    from converters.families.graph_values import GraphReader, Operators

_MAX_AXES = 2 * IMAGE_AXES
"""Of sizes that are joined: zeros on both sides of each axis."""


def _alias(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    steps.alias(reader, node)


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
        numbers = tuple(number for number in value if not isinstance(number, str))
        dtype = "float32" if any(isinstance(n, float) for n in numbers) else "int64"
        reader.make_constant(node, Constant(dtype, (len(numbers),), None, numbers))
    else:
        raise reader.unfit(node, "holds a constant of a kind that no RegNet has")


def _cast(reader: GraphReader, node: Node) -> None:
    """Constants to float32, which loses nothing; values not at all."""
    constant = reader.constant(node, 0)
    if constant is None and reader.sizes(node, 0) is not None:
        reader.only(node, to=7, saturate=...)  # int64, which sizes are
        reader.set(node, reader.sizes(node, 0) or Sizes())
        return
    if constant is None and node.attributes.get("to") != 1:
        raise reader.unfit(node, "computes in another type than float32")
    reader.only(node, to=1, saturate=...)
    steps.alias(reader, node)


def _transpose(reader: GraphReader, node: Node) -> None:
    reader.only(node, perm=...)
    steps.moved(reader, node, reader.integers(node, "perm", 9))


def _conv(reader: GraphReader, node: Node) -> None:
    weight = reader.tensor(node, 1, IMAGE_AXES)
    kernel, stated = steps.kernel_pad(reader, node, weight), node.attributes.get("pads")
    strides, group = node.attributes.get("strides", (1, 1)), node.attributes.get("group", 1)
    fills = node.attributes.get("auto_pad") == "SAME_UPPER" and stated is None
    own = {(kernel,) * 4: kernel, (0,) * 4: 0, None: 0}.get(cast("Any", stated))
    padding = steps.padding_of(reader, node, weight, strides, "same" if fills else own)
    if padding is None and stated is None:
        raise reader.unfit(node, f"has no pads where {kernel} zeros belong on every side")
    reader.only(
        node,
        auto_pad="SAME_UPPER" if fills else "NOTSET",
        dilations=(1, 1),
        group=...,
        kernel_shape=weight.shape[2:],
        pads=... if padding else (kernel,) * 4,
        strides=...,
    )
    steps.convolution(reader, node, weight, strides, group, padding or "symmetric")


def _pad(reader: GraphReader, node: Node) -> None:
    """Zeros around an image, as TensorFlow has them, or its edges once more."""
    reader.only(node, mode=..., pads=..., value=0.0)
    mode, sizes = node.attributes.get("mode", "constant"), reader.sizes(node, 1)
    if sizes is None:
        sizes = Sizes(reader.integers(node, "pads", 9) or ())
    others = [name for name in node.inputs[2:] if name]
    if mode not in {"constant", "edge"} or (others and reader.number(node, 2) != 0):
        raise reader.unfit(node, f"pads images with something else (mode {shown(mode)})")
    if len(sizes) != _MAX_AXES or any(sizes[axis] != 0 for axis in (0, 1, 4, 5)):
        raise reader.unfit(node, f"pads with {shown(sizes)} on the sides of each axis")
    above, left, below, right = sizes[2], sizes[3], sizes[6], sizes[7]
    steps.padded(reader, node, (above, below, left, right), repeats=mode == "edge")


def _average(reader: GraphReader, node: Node) -> None:
    reader.only(
        node,
        auto_pad="NOTSET",
        ceil_mode=...,
        count_include_pad=0,
        dilations=(1, 1),
        kernel_shape=(2, 2),
        pads=(0, 0, 0, 0),
        strides=...,
    )
    ceils = node.attributes.get("ceil_mode", 0)
    if ceils not in {0, 1} or "kernel_shape" not in node.attributes:
        raise reader.unfit(node, f"has ceil_mode {shown(ceils)}")
    steps.average(reader, node, node.attributes.get("strides", (1, 1)), ceils=ceils == 1)


def _norm(reader: GraphReader, node: Node) -> None:
    reader.only(node, epsilon=..., momentum=..., training_mode=0, spatial=1, is_test=1)
    if [name for name in node.outputs[1:] if name]:
        raise reader.unfit(node, "gives statistics as in training")
    steps.norm(reader, node, node.attributes.get("epsilon", 1e-5))


def _instance_norm(reader: GraphReader, node: Node) -> None:
    reader.only(node, epsilon=...)
    steps.instance_norm(reader, node, node.attributes.get("epsilon", 1e-5))


def _pool(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    steps.pool(reader, node)


def _mean(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=..., keepdims=..., noop_with_empty_axes=...)
    axes, keeps = reader.integers(node, "axes", 1) or (), node.attributes.get("keepdims", 1)
    if keeps not in {0, 1}:
        raise reader.unfit(node, f"has keepdims {shown(keeps)}")
    steps.mean(reader, node, axes, keeps=keeps == 1)


def _flatten(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=...)
    steps.flattened(reader, node, node.attributes.get("axis", 1))


def _squeeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=...)
    sizes = reader.sizes(node, 0)
    if sizes is not None:
        reader.set(node, sizes)
    else:
        steps.squeezed(reader, node, reader.integers(node, "axes", 1) or ())


def _unsqueeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=...)
    named = reader.named_sizes(node.inputs[0])
    if named is None:
        steps.unsqueezed(reader, node, reader.integers(node, "axes", 1) or ())
    elif len(named) == 1:
        reader.set(node, named)
    else:
        raise reader.unfit(node, "adds axes, which no RegNet does")


def _reshape(reader: GraphReader, node: Node) -> None:
    """To sizes of which 0 is that of the value."""
    reader.only(node, allowzero=..., shape=...)
    sizes, named = reader.sizes(node, 1), reader.named_sizes(node.inputs[0])
    if sizes is None and "shape" in node.attributes:
        sizes = Sizes(reader.integers(node, "shape", 9) or ())
    if named is not None:
        if sizes != (-1,):
            raise reader.unfit(node, "changes the shape of sizes")
        reader.set(node, named)
        return
    if sizes is None:
        raise reader.unfit(node, "gives a shape that is not known")
    whole = reader.shape(node, 0)
    if not node.attributes.get("allowzero"):
        kept = dict(enumerate(whole))
        sizes = Sizes(kept.get(i, 0) if size == 0 else size for i, size in enumerate(sizes))
    steps.reshaped(reader, node, sizes)


def _shape(reader: GraphReader, node: Node) -> None:
    reader.only(node, start=..., end=...)
    whole = reader.shape(node, 0)
    start, end = (node.attributes.get(name) for name in ("start", "end"))
    taken = whole[start if isinstance(start, int) else 0 : end if isinstance(end, int) else None]
    reader.set(node, Sizes(taken))


def _expand(reader: GraphReader, node: Node) -> None:
    """A value for more elements, or one number, over and over: zeros where a bias is left out."""
    reader.only(node)
    constant, sizes = reader.constant(node, 0), reader.sizes(node, 1)
    if sizes is None:
        raise reader.unfit(node, "repeats values as often as is not known")
    if constant is not None:
        _repeat(reader, node, constant, sizes)
    elif (named := reader.named_sizes(node.inputs[0])) is not None:
        if sizes != (1,):
            raise reader.unfit(node, "repeats values, which no RegNet does")
        reader.set(node, named)
    else:
        steps.expanded(reader, node, sizes)


def _repeat(reader: GraphReader, node: Node, constant: Constant, sizes: Sizes) -> None:
    """One number, so many times."""
    number, size = reader.number(node, 0), sizes[0] if len(sizes) == 1 else None
    if number is None or size is None:
        raise reader.unfit(node, "repeats values, which no RegNet does")
    if not isinstance(size, int) or not 0 < size <= MAX_COUNT:
        raise reader.unfit(node, f"repeats a value {shown(size)} times")
    numbers = reader.repeated.setdefault((number, size), ())
    if not numbers:
        if sum(map(len, reader.repeated.values())) + size > MAX_COUNT:
            raise reader.unfit(node, "repeats values more often than any network has channels")
        numbers = reader.repeated[number, size] = (number,) * size
    reader.make_constant(node, Constant(constant.dtype, (size,), None, numbers))


def _full(reader: GraphReader, node: Node) -> None:
    """Sizes that are all alike, as many as are asked for."""
    value, sizes = node.attributes.get("value"), reader.sizes(node, 0)
    numbers = value.numbers if isinstance(value, Constant) else None
    if len(node.attributes) != 1 or not numbers or sizes is None or len(sizes) != 1:
        raise reader.unfit(node, "repeats values, which no RegNet does")
    (size,), number = sizes, numbers[0]
    if not isinstance(size, int) or not 0 < size <= _MAX_AXES or not isinstance(number, int):
        raise reader.unfit(node, f"repeats a value {shown(size)} times")
    reader.set(node, Sizes([number] * size))


def _where(reader: GraphReader, node: Node) -> None:
    """Sizes that are chosen for images of every size alike."""
    reader.only(node)
    which, one, other = (reader.sizes(node, index) for index in range(3))
    if which is None or one is None or other is None or not len(which) == len(one) == len(other):
        raise reader.unfit(node, "chooses values, which no RegNet does")
    if not set(which) <= {0, 1}:
        raise reader.unfit(node, "computes differently for other images")
    triples = zip(which, one, other, strict=True)
    reader.set(node, Sizes(first if chosen else second for chosen, first, second in triples))


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
    if None in parts or len(joined) > _MAX_AXES:
        raise reader.unfit(node, "joins values, which no RegNet does")
    reader.set(node, Sizes(joined))


def _gemm(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=1.0, beta=1.0, transA=0, transB=...)
    weight = reader.tensor(node, 1, 2)
    if node.attributes.get("transB", 0) == 0:
        weight = weight.permuted((1, 0))
    tensors = {"weight": weight, "bias": steps.row(reader, node, 2, weight.shape[0])}
    steps.linear(reader, node, reader.value(node, 0), tensors)


def _selu(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=steps.SELU_ALPHA, gamma=steps.SELU_SCALE)
    steps.activation(reader, node, "selu")


def _numbers(reader: GraphReader, node: Node) -> tuple[float | None, float | None]:
    reader.only(node)
    return reader.number(node, 0), reader.number(node, 1)


def _mul(reader: GraphReader, node: Node) -> None:
    if not steps.arithmetic(reader, node, operator.mul):
        steps.multiplied(reader, node, _numbers(reader, node))


def _div(reader: GraphReader, node: Node) -> None:
    if not steps.arithmetic(reader, node, lambda one, other: int(one / other)):
        steps.divided(reader, node, _numbers(reader, node)[1])


def _pow(reader: GraphReader, node: Node) -> None:
    steps.raised(reader, node, _numbers(reader, node)[1])


def _add(reader: GraphReader, node: Node) -> None:
    if not steps.arithmetic(reader, node, operator.add):
        steps.added(reader, node, _numbers(reader, node))


def _sub(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    if not steps.arithmetic(reader, node, operator.sub):
        steps.subtracted(reader, node)


def _equal(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    if not steps.arithmetic(reader, node, operator.eq):
        raise reader.unfit(node, "compares values, which no RegNet does")


OPERATORS: Operators = {
    "Add": _add,
    "AveragePool": _average,
    "BatchNormalization": _norm,
    "Cast": _cast,
    "CastLike": _cast_like,
    "Concat": _concat,
    "Constant": _constant,
    "ConstantOfShape": _full,
    "Conv": _conv,
    "Div": _div,
    "Dropout": _dropout,
    "Equal": _equal,
    "Erf": steps.function,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": steps.gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Identity": _alias,
    "InstanceNormalization": _instance_norm,
    "MatMul": steps.matmul,
    "Mul": _mul,
    "Pad": _pad,
    "Pow": _pow,
    "Reciprocal": steps.function,
    "ReduceMean": _mean,
    "Relu": steps.function,
    "Reshape": _reshape,
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": steps.function,
    "Sqrt": steps.function,
    "Squeeze": _squeeze,
    "Sub": _sub,
    "Tanh": steps.function,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _where,
}
