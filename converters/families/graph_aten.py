"""ATen's operators, of torch.export and TorchScript, as `converters.checkpoint.aten` gives them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families import graph_steps as steps
from converters.families.graph_values import IMAGE_AXES, Sizes, shown
from regnet.wider import NORM_EPS

if TYPE_CHECKING:
    from converters.checkpoint.graph import Node
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
    pad, stride = steps.kernel_pad(reader, node, weight), _pair(reader, node, "stride", 1)
    same = stride == (1, 1) and node.attributes.get("padding") == "same"  # zeros on every side
    for name, wanted, default in (
        ("padding", pad, 0),
        ("dilation", 1, 1),
        ("output_padding", 0, 0),
    ):
        found = (pad, pad) if same and name == "padding" else _pair(reader, node, name, default)
        if found != (wanted, wanted):
            raise reader.unfit(node, f"has {name} {shown(found)} where {wanted}, {wanted} belongs")
    steps.convolution(reader, node, weight, stride, node.attributes.get("groups", 1))


def _norm(reader: GraphReader, node: Node) -> None:
    reader.only(
        node,
        training=0,
        momentum=...,
        eps=NORM_EPS,
        epsilon=NORM_EPS,
        exponential_average_factor=...,
        cudnn_enabled=...,
    )
    trains = node.op != "_native_batch_norm_legit_no_training"
    if not {"eps", "epsilon"} & set(node.attributes) or (
        trains and "training" not in node.attributes
    ):
        raise reader.unfit(node, "does not say what a batch norm has to")
    steps.norm(reader, node)


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


def _view(reader: GraphReader, node: Node) -> None:
    reader.only(node, size=..., shape=...)
    stated = node.attributes.get("shape" if node.op == "reshape" else "size")
    shape: list[int | str] = []
    for size in stated if isinstance(stated, tuple) else ():
        known = reader.named_sizes(size) if isinstance(size, str) else (int(size),)
        if known is None or len(known) != 1:
            raise reader.unfit(node, f"gives the shape {shown(stated)}")
        shape += known
    steps.reshaped(reader, node, reader.value(node, 0), tuple(shape))


def _sym_size(reader: GraphReader, node: Node) -> None:
    """Of any value with images or features, the first axis is the number of images."""
    reader.only(node, dim=...)
    axes, (dim, *_) = reader.value(node, 0).axes, (*_dims(reader, node, "dim"), IMAGE_AXES)
    if not -axes <= dim < axes:
        raise reader.unfit(node, "asks for the size of an axis that is not there")
    reader.set(node, Sizes("NCHW"[:axes][dim]))


def _linear(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    weight = reader.tensor(node, 1, 2)
    tensors = {"weight": weight}
    if node.inputs[2]:
        tensors["bias"] = steps.row(reader, node, 2, weight.shape[0])
    reader.add("linear", node, reader.value(node, 0), tensors=tensors)


def _addmm(reader: GraphReader, node: Node) -> None:
    reader.only(node, beta=1, alpha=1)
    weight = reader.tensor(node, 2, 2).permuted((1, 0))
    tensors = {"weight": weight, "bias": steps.row(reader, node, 0, weight.shape[0])}
    reader.add("linear", node, reader.value(node, 1), tensors=tensors)


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


def _pow(reader: GraphReader, node: Node) -> None:
    reader.only(node, exponent=...)
    steps.raised(reader, node, _number(reader, node, 1, "exponent"))


OPERATORS: Operators = {
    "_adaptive_avg_pool2d": _pool,
    "_convolution": _conv,
    "_native_batch_norm_legit": _norm,
    "_native_batch_norm_legit_no_training": _norm,
    "_unsafe_view": _view,
    "adaptive_avg_pool2d": _pool,
    "add": _add,
    "addmm": _addmm,
    "alias": _alias,
    "batch_norm": _norm,
    "clone": _alias,
    "contiguous": _alias,
    "conv2d": _conv,
    "convolution": _conv,
    "cudnn_batch_norm": _norm,
    "detach": _alias,
    "div": _div,
    "dropout": _dropout,
    "elu": _elu,
    "erf": steps.function,
    "flatten": _flatten,
    "gelu": steps.gelu,
    "linear": _linear,
    "matmul": steps.matmul,
    "mean": _mean,
    "mm": steps.matmul,
    "mul": _mul,
    "native_batch_norm": _norm,
    "permute": _permute,
    "pow": _pow,
    "relu": steps.function,
    "reshape": _view,
    "selu": steps.function,
    "sigmoid": steps.function,
    "silu": _silu,
    "squeeze": _squeeze,
    "sym_size": _sym_size,
    "t": _t,
    "tanh": steps.function,
    "transpose": _transpose,
    "view": _view,
}
"""Those of `converters.checkpoint.aten.SIGNATURES`."""
