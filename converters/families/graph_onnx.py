"""ONNX's operators, of every opset: where these differ, attributes became inputs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Constant
from converters.families import graph_steps as steps
from converters.families.graph_values import IMAGE_AXES, Sizes, shown
from regnet.files.json_file import MAX_COUNT
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint.graph import Node
    from converters.families.graph_values import GraphReader, Operators


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
    if constant is None:
        raise reader.unfit(node, "computes in another type than float32")
    reader.only(node, to=1, saturate=...)
    reader.make_constant(node, constant)


def _transpose(reader: GraphReader, node: Node) -> None:
    reader.only(node, perm=...)
    steps.moved(reader, node, reader.integers(node, "perm", 9))


def _conv(reader: GraphReader, node: Node) -> None:
    weight = reader.tensor(node, 1, IMAGE_AXES)
    pad = weight.shape[2] // 2
    reader.only(
        node,
        auto_pad="NOTSET",
        dilations=(1, 1),
        group=...,
        kernel_shape=weight.shape[2:],
        pads=(pad, pad, pad, pad),
        strides=...,
    )
    if steps.kernel_pad(reader, node, weight) and "pads" not in node.attributes:
        raise reader.unfit(node, f"has no pads where {pad} zeros belong on every side")
    stride, group = node.attributes.get("strides", (1, 1)), node.attributes.get("group", 1)
    steps.convolution(reader, node, weight, stride, group)


def _norm(reader: GraphReader, node: Node) -> None:
    reader.only(node, epsilon=NORM_EPS, momentum=..., training_mode=0, spatial=1, is_test=1)
    if [name for name in node.outputs[1:] if name]:
        raise reader.unfit(node, "gives statistics as in training")
    steps.norm(reader, node)


def _pool(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    steps.pool(reader, node)


def _mean(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=..., keepdims=..., noop_with_empty_axes=...)
    axes = reader.integers(node, "axes", 1) or ()
    steps.mean(reader, node, axes, keeps=node.attributes.get("keepdims", 1) == 1)


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
    shape = tuple(zero if size == 0 else size for size in sizes or ())
    steps.reshaped(reader, node, value, shape)


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
    numbers = reader.repeated.setdefault((number, size), ())
    if not numbers:
        if sum(map(len, reader.repeated.values())) + size > MAX_COUNT:
            raise reader.unfit(node, "repeats values more often than any network has channels")
        numbers = reader.repeated[number, size] = (number,) * size
    reader.make_constant(node, Constant(constant.dtype, (size,), None, numbers))


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
    tensors = {"weight": weight, "bias": steps.row(reader, node, 2, weight.shape[0])}
    reader.add("linear", node, reader.value(node, 0), tensors=tensors)


def _selu(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=steps.SELU_ALPHA, gamma=steps.SELU_SCALE)
    steps.activation(reader, node, "selu")


def _numbers(reader: GraphReader, node: Node) -> tuple[float | None, float | None]:
    reader.only(node)
    return reader.number(node, 0), reader.number(node, 1)


def _mul(reader: GraphReader, node: Node) -> None:
    steps.multiplied(reader, node, _numbers(reader, node))


def _div(reader: GraphReader, node: Node) -> None:
    steps.divided(reader, node, _numbers(reader, node)[1])


def _pow(reader: GraphReader, node: Node) -> None:
    steps.raised(reader, node, _numbers(reader, node)[1])


def _add(reader: GraphReader, node: Node) -> None:
    steps.added(reader, node, _numbers(reader, node))


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
    "Erf": steps.function,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Gelu": steps.gelu,
    "Gemm": _gemm,
    "GlobalAveragePool": _pool,
    "Identity": _alias,
    "MatMul": steps.matmul,
    "Mul": _mul,
    "Pow": _pow,
    "ReduceMean": _mean,
    "Relu": steps.function,
    "Reshape": _reshape,
    "Selu": _selu,
    "Shape": _shape,
    "Sigmoid": steps.function,
    "Squeeze": _squeeze,
    "Tanh": steps.function,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
