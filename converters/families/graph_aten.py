"""ATen's operators, of torch.export and TorchScript, as `converters.checkpoint.aten` gives them."""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING

from converters.families import graph_steps as steps
from converters.families.graph_sizes import Sizes
from converters.families.graph_values import IMAGE_AXES, shown

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.checkpoint.graph import Node
    from converters.families.graph_sizes import Size
    from converters.families.graph_values import GraphReader, Operators


def _pair(reader: GraphReader, node: Node, name: str, default: int) -> tuple[int, int]:
    """An attribute for height and width, which is stated once where both are the same."""
    match node.attributes.get(name, default):
        case (int(height), int(width)):
            return height, width
        case int(both) | (int(both),):
            return both, both
        case other:
            raise reader.unfit(node, f"has {name} {shown(other)}")


def _dims(reader: GraphReader, node: Node, name: str) -> tuple[int, ...]:
    """The axes that an attribute names."""
    dims = node.attributes.get(name)
    if isinstance(dims, int):
        return (dims,)
    return reader.integers(node, name, len(node.inputs)) or ()


def _conv(reader: GraphReader, node: Node) -> None:
    reader.only(
        node,
        stride=...,
        padding=...,
        dilation=...,
        transposed=0,
        output_padding=...,
        groups=...,
        benchmark=...,
        deterministic=...,
        cudnn_enabled=...,
        allow_tf32=...,
    )
    weight = reader.tensor(node, 1, IMAGE_AXES)
    kernel, stride = steps.kernel_pad(reader, node, weight), _pair(reader, node, "stride", 1)
    same = stride == (1, 1) and node.attributes.get("padding") == "same"  # zeros on every side
    pads = (kernel, kernel) if same else _pair(reader, node, "padding", 0)
    own = {(kernel, kernel): kernel, (0, 0): 0}.get(pads)
    padding = steps.padding_of(reader, node, weight, stride, own)
    for name, found, wanted in (
        ("padding", pads, pads[0] if padding else kernel),
        ("dilation", _pair(reader, node, "dilation", 1), 1),
        ("output_padding", _pair(reader, node, "output_padding", 0), 0),
    ):
        if found != (wanted, wanted):
            raise reader.unfit(node, f"has {name} {shown(found)} where {wanted}, {wanted} belongs")
    if padding is None:
        raise reader.unfit(node, "reads an image with other pixels around it than a RegNet's")
    steps.convolution(reader, node, weight, stride, node.attributes.get("groups", 1), padding)


def _pad(reader: GraphReader, node: Node) -> None:
    """Pixels left and right, above and below: the last axis comes first."""
    reader.only(node, pad=..., padding=..., mode=..., value=...)
    mode = "replicate" if node.op == "replication_pad2d" else node.attributes.get("mode")
    value = node.attributes.get("value")
    stated = node.attributes.get("padding" if node.op == "replication_pad2d" else "pad")
    sizes = _sizes(reader, node, stated)
    if mode not in {None, "constant", "replicate"} or value not in {None, 0.0}:
        raise reader.unfit(node, f"pads images with something else (mode {shown(mode)})")
    if len(sizes) != 4:  # noqa: PLR2004 -- both sides of two axes
        raise reader.unfit(node, f"pads with {shown(sizes)}")
    left, right, above, below = sizes
    steps.padded(reader, node, (above, below, left, right), repeats=mode == "replicate")


def _average(reader: GraphReader, node: Node) -> None:
    reader.only(
        node,
        kernel_size=...,
        stride=...,
        padding=...,
        ceil_mode=...,
        count_include_pad=...,
        divisor_override=None,
    )
    ceils = node.attributes.get("ceil_mode") == 1
    counts = node.attributes.get("count_include_pad", True)
    pads, size = _pair(reader, node, "padding", 0), _pair(reader, node, "kernel_size", 0)
    if size != (2, 2) or pads != (0, 0):
        raise reader.unfit(node, f"takes means of {shown(size)} pixels, {shown(pads)} of padding")
    if ceils and counts != 0:
        raise reader.unfit(node, f"has count_include_pad {shown(counts)} where False belongs")
    steps.average(reader, node, _pair(reader, node, "stride", 2), ceils=ceils)


def _group_norm(reader: GraphReader, node: Node) -> None:
    sizes = dict.fromkeys(("N", "C", "HxW"), ...)  # of what it reads
    reader.only(node, num_groups=..., group=..., eps=..., cudnn_enabled=..., **sizes)
    groups = node.attributes.get("num_groups", node.attributes.get("group"))
    steps.group_norm(reader, node, groups, node.attributes.get("eps", 1e-5))


def _variance(reader: GraphReader, node: Node) -> None:
    """Divided by the number of elements: torch's default is one less."""
    reader.only(node, dim=..., unbiased=..., correction=..., keepdim=...)
    keeps = node.attributes.get("keepdim", 0)
    biased = 0 in {node.attributes.get(name) for name in ("unbiased", "correction")}
    if {"unbiased", "correction"} <= set(node.attributes) or not biased or keeps not in {0, 1}:
        raise reader.unfit(node, "is no biased variance")
    steps.variance(reader, node, _dims(reader, node, "dim"), keeps=keeps == 1)


def _norm(reader: GraphReader, node: Node) -> None:
    reader.only(
        node,
        training=0,
        momentum=...,
        eps=...,
        epsilon=...,
        exponential_average_factor=...,
        cudnn_enabled=...,
    )
    trains = node.op != "_native_batch_norm_legit_no_training"
    if not {"eps", "epsilon"} & set(node.attributes) or (
        trains and "training" not in node.attributes
    ):
        raise reader.unfit(node, "does not say what a batch norm has to")
    steps.norm(reader, node, node.attributes.get("eps", node.attributes.get("epsilon")))


def _pool(reader: GraphReader, node: Node) -> None:
    reader.only(node, output_size=...)
    if _pair(reader, node, "output_size", 0) != (1, 1):
        raise reader.unfit(
            node, f"pools to {shown(node.attributes.get('output_size'))}, not to 1, 1"
        )
    steps.pool(reader, node)


def _mean(reader: GraphReader, node: Node) -> None:
    reader.only(node, dim=..., keepdim=..., dtype=None)
    keeps = node.attributes.get("keepdim", 0)
    if keeps not in {0, 1}:
        raise reader.unfit(node, f"has keepdim {shown(keeps)}")
    steps.mean(reader, node, _dims(reader, node, "dim"), keeps=keeps == 1)


def _flatten(reader: GraphReader, node: Node) -> None:
    reader.only(node, start_dim=..., end_dim=...)
    if node.attributes.get("end_dim", -1) not in {-1, IMAGE_AXES - 1}:
        raise reader.unfit(node, f"flattens to axis {shown(node.attributes['end_dim'])}")
    steps.flattened(reader, node, node.attributes.get("start_dim", 0))


def _squeeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, dim=...)
    steps.squeezed(reader, node, _dims(reader, node, "dim"))


def _sizes(reader: GraphReader, node: Node, stated: object) -> Sizes:
    """Sizes that an attribute states, as numbers or by the names of values."""
    sizes: list[Size] = []
    for size in stated if isinstance(stated, tuple) else (stated,):
        known = reader.size_called(size) if isinstance(size, str) else size
        if isinstance(known, float) or known is None:
            raise reader.unfit(node, f"gives the shape {shown(stated)}")
        sizes.append(known)
    return Sizes(sizes)


def _view(reader: GraphReader, node: Node) -> None:
    reader.only(node, size=..., shape=...)
    stated = node.attributes.get("shape" if node.op == "reshape" else "size")
    sizes = _sizes(reader, node, stated)
    steps.reshaped(reader, node, sizes)


def _unflatten(reader: GraphReader, node: Node) -> None:
    """The channels in groups."""
    reader.only(node, dim=..., sizes=...)
    whole, axis = reader.shape(node, 0), node.attributes.get("dim")
    if axis not in {1, 1 - len(whole)}:
        raise reader.unfit(node, f"divides the axis {shown(axis)}")
    sizes = _sizes(reader, node, node.attributes.get("sizes"))
    steps.reshaped(reader, node, (whole[0], *sizes, *whole[2:]))


def _unsqueeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, dim=...)
    steps.unsqueezed(reader, node, _dims(reader, node, "dim"))


def _expand(reader: GraphReader, node: Node) -> None:
    """To sizes of which -1 is that of the value, or to those of another value."""
    reader.only(node, size=..., implicit=...)
    whole = reader.shape(node, 0)
    if node.op == "expand_as":
        steps.expanded(reader, node, reader.value(node, 1).shape)
        return
    sizes = _sizes(reader, node, node.attributes.get("size"))
    if len(sizes) != len(whole):
        raise reader.unfit(node, f"repeats values to the shape {shown(sizes)}")
    both = zip(sizes, whole, strict=True)
    steps.expanded(reader, node, [own if size == -1 else size for size, own in both])


def _to(reader: GraphReader, node: Node) -> None:
    """The same in float32, which everything is in."""
    reader.only(node, dtype=..., **dict.fromkeys(("non_blocking", "copy", "memory_format"), ...))
    if node.attributes.get("dtype") not in {"float32", _FLOAT32}:
        raise reader.unfit(node, "computes in another type than float32")
    steps.alias(reader, node)


_FLOAT32 = 6
"""Of torch's ``ScalarType``, as TorchScript has it."""


def _sym_size(reader: GraphReader, node: Node) -> None:
    reader.only(node, dim=...)
    whole, (dim, *_) = reader.shape(node, 0), (*_dims(reader, node, "dim"), IMAGE_AXES)
    if not -len(whole) <= dim < len(whole):
        raise reader.unfit(node, "asks for the size of an axis that is not there")
    reader.set(node, Sizes((whole[dim],)))


def _arithmetic(function: Callable[..., int]) -> Callable[[GraphReader, Node], None]:
    """What Python's operator computes of sizes."""

    def read(reader: GraphReader, node: Node) -> None:
        reader.only(node, a=..., b=...)
        sizes = [_sizes(reader, node, node.attributes.get(name)) for name in ("a", "b")]
        if node.inputs or any(len(each) != 1 for each in sizes):
            raise reader.unfit(node, "computes with other than two sizes")
        (one,), (other,) = sizes
        reader.set(node, Sizes((reader.computed(node, function, one, other),)))

    return read


def _linear(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    weight = reader.tensor(node, 1, 2)
    tensors = {"weight": weight}
    if node.inputs[2]:
        tensors["bias"] = steps.row(reader, node, 2, weight.shape[0])
    steps.linear(reader, node, reader.value(node, 0), tensors)


def _addmm(reader: GraphReader, node: Node) -> None:
    reader.only(node, beta=1, alpha=1)
    weight = reader.tensor(node, 2, 2).permuted((1, 0))
    tensors = {"weight": weight, "bias": steps.row(reader, node, 0, weight.shape[0])}
    steps.linear(reader, node, reader.value(node, 1), tensors)


def _t(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    steps.moved(reader, node, (1, 0))


def _permute(reader: GraphReader, node: Node) -> None:
    reader.only(node, dims=...)
    constant = reader.constant(node, 0)
    axes = 0 if constant is None else len(constant.shape)
    dims = _dims(reader, node, "dims")
    steps.moved(reader, node, [dim + axes if -axes <= dim < 0 else dim for dim in dims])


def _transpose(reader: GraphReader, node: Node) -> None:
    reader.only(node, dim0=..., dim1=...)
    dims = {node.attributes.get("dim0"), node.attributes.get("dim1")}
    if dims not in ({0, 1}, {-1, -2}, {0, -1}):
        raise reader.unfit(node, "moves axes, which no RegNet does")
    steps.moved(reader, node, (1, 0))


def _dropout(reader: GraphReader, node: Node) -> None:
    reader.only(node, p=..., train=0)
    if "train" not in node.attributes:
        raise reader.unfit(node, "does not say whether it drops out values")
    reader.set(node, reader.value(node, 0))


def _alias(reader: GraphReader, node: Node) -> None:
    reader.only(node, memory_format=...)
    steps.alias(reader, node)


def _silu(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    steps.activation(reader, node, "silu")


def _elu(reader: GraphReader, node: Node) -> None:
    """What selu is decomposed to."""
    reader.only(node, alpha=steps.SELU_ALPHA, scale=steps.SELU_SCALE, input_scale=1)
    if not {"alpha", "scale"} <= set(node.attributes):
        raise reader.unfit(node, "is no selu")
    steps.activation(reader, node, "selu")


def _number(reader: GraphReader, node: Node, index: int, name: str) -> float | None:
    """An operand that is a number, among attributes or constants."""
    stated = node.attributes.get(name)
    return stated if isinstance(stated, int | float) else reader.number(node, index)


def _mul(reader: GraphReader, node: Node) -> None:
    reader.only(node, other=...)
    numbers = reader.number(node, 0), _number(reader, node, 1, "other")
    steps.multiplied(reader, node, numbers)


def _add(reader: GraphReader, node: Node) -> None:
    reader.only(node, other=..., alpha=1)
    steps.added(reader, node, (reader.number(node, 0), _number(reader, node, 1, "other")))


def _div(reader: GraphReader, node: Node) -> None:
    reader.only(node, other=..., rounding_mode=None)
    steps.divided(reader, node, _number(reader, node, 1, "other"))


def _sub(reader: GraphReader, node: Node) -> None:
    reader.only(node, alpha=1)
    steps.subtracted(reader, node)


def _rsqrt(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    value = reader.value(node, 0)
    reader.express(node, value, ("reciprocal", ("sqrt", value.tree)))


def _pow(reader: GraphReader, node: Node) -> None:
    reader.only(node, exponent=...)
    steps.raised(reader, node, _number(reader, node, 1, "exponent"))


OPERATORS: Operators = {
    "_adaptive_avg_pool2d": _pool,
    "_convolution": _conv,
    "_native_batch_norm_legit": _norm,
    "_native_batch_norm_legit_no_training": _norm,
    "_to_copy": _to,
    "_unsafe_view": _view,
    "adaptive_avg_pool2d": _pool,
    "add": _add,
    "addmm": _addmm,
    "alias": _alias,
    "avg_pool2d": _average,
    "batch_norm": _norm,
    "clone": _alias,
    "constant_pad_nd": _pad,
    "contiguous": _alias,
    "conv2d": _conv,
    "convolution": _conv,
    "cudnn_batch_norm": _norm,
    "detach": _alias,
    "div": _div,
    "dropout": _dropout,
    "elu": _elu,
    "erf": steps.function,
    "expand": _expand,
    "expand_as": _expand,
    "flatten": _flatten,
    "gelu": steps.gelu,
    "group_norm": _group_norm,
    "linear": _linear,
    "matmul": steps.matmul,
    "mean": _mean,
    "mm": steps.matmul,
    "mul": _mul,
    "native_batch_norm": _norm,
    "native_group_norm": _group_norm,
    "pad": _pad,
    "permute": _permute,
    "pow": _pow,
    "reciprocal": steps.function,
    "relu": steps.function,
    "replication_pad2d": _pad,
    "reshape": _view,
    "rsqrt": _rsqrt,
    "selu": steps.function,
    "sigmoid": steps.function,
    "silu": _silu,
    "sqrt": steps.function,
    "squeeze": _squeeze,
    "sub": _sub,
    "sym_size": _sym_size,
    "t": _t,
    "tanh": steps.function,
    "to": _to,
    "transpose": _transpose,
    "unflatten": _unflatten,
    "unsqueeze": _unsqueeze,
    "var": _variance,
    "view": _view,
}
"""Those of `converters.checkpoint.aten.SIGNATURES`."""

ON_SIZES: Operators = {
    "add": _arithmetic(operator.add),
    "floordiv": _arithmetic(operator.floordiv),
    "max": _arithmetic(max),
    "min": _arithmetic(min),
    "mod": _arithmetic(operator.mod),
    "mul": _arithmetic(operator.mul),
    "sub": _arithmetic(operator.sub),
}
"""Of `converters.checkpoint.aten.ON_SIZES`."""
