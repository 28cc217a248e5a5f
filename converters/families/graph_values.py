"""From the nodes of an exported graph to the operations of networks, whoever spelled them.

What computes nothing is taken out (`Identity`, dropout in inference), what is spelled in several
ways becomes one operation, and element by element everything is an expression of one value, which
is a known activation or nothing. An attribute or operator that is not understood is refused by the
name of its node, so what comes out is all that the graph computes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import Constant
from converters.errors import InputError, printable
from regnet.architecture import NORM_EPS
from regnet.config import MAX_COUNT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from converters.checkpoint.graph import Graph, Node
    from converters.checkpoint.values import StoredTensor

_ADVICE = "export an unmodified RegNet in float32, or name the checkpoint it was made from"

_IMAGE_AXES = 4

_CLOSE = 1e-6
"""Relative: attributes and factors are kept in float32."""

_MAX_TERMS = 64
"""Of an expression; that of the longest activation has twelve."""

Tree = tuple[Any, ...]
"""An expression of one value x: ``("x",)``, ``(function, tree)``, ``("sum", number, trees)`` or
``("product", number, trees)``, trees in a fixed order."""

X: Tree = ("x",)


@dataclass(frozen=True, slots=True)
class Step:
    """An operation of a network.

    Attributes:
        kind: ``conv``, ``norm``, ``act``, ``pool``, ``scale``, ``add``, ``flatten`` or ``linear``.
        node: The one that makes its value.
        inputs: Names of the values that it reads; of a scale, the value before its gate.
        output: Name of the value that it makes.
        tensors: ``weight``, ``bias`` and a norm's statistics, in torch's layout.
        stride: Of a convolution, in both directions.
        groups: Of a convolution.
        function: Of an act, as `RegNetConfig.hidden_act` has it, or ``sigmoid``.
        features: Of a flatten, how many it leaves an image, where that is said; else 0.
    """

    kind: str
    node: Node
    inputs: tuple[str, ...]
    output: str
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)
    stride: int = 1
    groups: int = 1
    function: str = ""
    features: int = 0


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of the graph: an expression of one that a step makes.

    Attributes:
        base: That one's name.
        tree: The expression.
        node: The last one of it; None of the images.
        axes: How many it has: 4, or 2 behind pooling.
    """

    base: str
    tree: Tree = X
    node: Node | None = None
    axes: int = _IMAGE_AXES


class _Sizes(tuple[int | str, ...]):
    """What `Shape` gives, and what is picked from it; an axis of images or features is a letter."""

    __slots__ = ()


def unfit(where: str, node: Node, what: str) -> InputError:
    """The error for what no RegNet has.

    Args:
        where: The file.
        node: What is wrong.
        what: Of it, as words that follow its name.
    """
    return InputError(f"{where}: its node {node.label} {what}; {_ADVICE}.")


class GraphReader:
    """Reads a whole graph.

    Args:
        graph: Of an ONNX file.
        where: What messages call the file.

    Attributes:
        steps: In the order of computation.
        image: The name of the value that is the images.
        outputs: Names of the values that it gives, in order.

    Raises:
        InputError: If something in it is not understood; it is named.
    """

    def __init__(self, graph: Graph, where: str) -> None:
        self.steps: list[Step] = []
        self.constants: dict[str, Constant] = dict(graph.constants)
        self.where = where
        self._acts: dict[tuple[str, Tree], str] = {}
        self._values: dict[str, _Value | _Sizes] = {}
        if len(graph.inputs) != 1 or len(graph.inputs[0].shape or ()) != _IMAGE_AXES:
            names = ", ".join(printable(value.name) for value in graph.inputs) or "nothing"
            raise InputError(
                f"{where}: takes {names} where a RegNet takes one batch of images (N, C, H, W); "
                f"{_ADVICE}."
            )
        (image,) = graph.inputs
        if image.dtype != "float32":
            raise InputError(
                f"{where}: takes images in {printable(image.dtype or 'no type')}, and graphs that "
                f"compute in float32 are read; {_ADVICE}."
            )
        self.image = image.name
        self.batch = (image.shape or (None,))[0]
        self._values[image.name] = _Value(image.name)
        for node in graph.nodes:
            self._read(node)
        self.outputs = tuple(self._output(value.name) for value in graph.outputs)

    def _read(self, node: Node) -> None:
        handler = None if node.domain else _HANDLERS.get(node.op)
        if handler is None:
            raise self.unfit(node, "is of a kind that no RegNet has")
        for name in filter(None, node.inputs):
            if name not in self._values and name not in self.constants:
                raise self.unfit(node, f"reads '{printable(name)}', which nothing before it makes")
        made = [name for name in node.outputs if name]
        if not made or any(name in self._values or name in self.constants for name in made):
            raise self.unfit(node, "makes no value, or one that there is already")
        handler(self, node)

    def _output(self, name: str) -> str:
        """What an output of the graph is."""
        value = self._values.get(name)
        if not isinstance(value, _Value):
            raise InputError(
                f"{self.where}: gives '{printable(name)}', which is no feature or class; {_ADVICE}."
            )
        return self.settled(value)

    # What handlers ask.

    def unfit(self, node: Node, what: str) -> InputError:
        """See :func:`unfit`."""
        return unfit(self.where, node, what)

    def only(self, node: Node, **attributes: object) -> None:
        """Check that each attribute of a node is one of these, with this value where one is given.

        ``...`` stands for any value.
        """
        for name, value in node.attributes.items():
            if name not in attributes:
                raise self.unfit(node, f"has the attribute {printable(name)}, which is not known")
            wanted = attributes[name]
            same = value == wanted
            if isinstance(wanted, float) and isinstance(value, float):
                same = math.isclose(value, wanted, rel_tol=_CLOSE)
            if wanted is not ... and not same:
                raise self.unfit(node, f"has {name} {_shown(value)} where {_shown(wanted)} belongs")

    def constant(self, node: Node, index: int) -> Constant | None:
        """A constant among the inputs of a node; None if it is none or left out."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        return self.constants.get(name)

    def tensor(self, node: Node, index: int, axes: int) -> StoredTensor:
        """A constant that is a tensor of so many axes."""
        constant = self.constant(node, index)
        if constant is None:
            raise self.unfit(node, f"has no constant for its input {index}")
        if constant.tensor is None or len(constant.shape) != axes:
            raise self.unfit(
                node,
                f"reads a constant of type {printable(constant.dtype)} and shape "
                f"{list(constant.shape)} as its input {index}, where {axes} axes of floats belong",
            )
        return constant.tensor

    def number(self, node: Node, index: int) -> float | None:
        """A constant that is one number; None if it is none."""
        constant = self.constant(node, index)
        if constant is None or math.prod(constant.shape) != 1 or not constant.numbers:
            return None
        return float(constant.numbers[0])

    def integers(self, node: Node, name: str, index: int) -> tuple[int, ...] | None:
        """Integers that an attribute or, in newer opsets, an input gives; None if neither does."""
        stated = node.attributes.get(name)
        constant = self.constant(node, index)
        if constant is not None and constant.numbers is not None:
            stated = tuple(int(number) for number in constant.numbers)
        elif index < len(node.inputs) and node.inputs[index]:
            raise self.unfit(node, f"computes its {name}, which is a constant in every RegNet")
        if stated is None:
            return None
        if isinstance(stated, tuple) and all(isinstance(number, int) for number in stated):
            return tuple(int(number) for number in stated)
        raise self.unfit(node, f"has {name} {_shown(stated)}")

    def value(self, node: Node, index: int) -> _Value:
        """A value that is computed of the images, among the inputs of a node."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        value = self._values.get(name)
        if not isinstance(value, _Value):
            raise self.unfit(node, f"reads a constant or a size as its input {index}")
        return value

    def settled(self, value: _Value) -> str:
        """The name of a value that a step makes: of an expression, by an activation.

        Raises:
            InputError: If the expression is none that is known.
        """
        if value.tree == X:
            return value.base
        key = (value.base, value.tree)
        node = value.node
        if node is None:
            raise AssertionError(key)  # the images are no expression
        if key not in self._acts:
            function = next((name for name, tree in _KNOWN if _same(tree, value.tree)), None)
            if function is None:
                raise self.unfit(node, "ends in no activation that a RegNet has")
            self._acts[key] = node.outputs[0]
            step = Step("act", node, (value.base,), node.outputs[0], function=function)
            self.steps.append(step)
        return self._acts[key]

    def add(self, kind: str, node: Node, *inputs: _Value, **fields: Any) -> None:
        """Append the step that makes a node's value."""
        names = tuple(map(self.settled, inputs))
        self.steps.append(Step(kind, node, names, node.outputs[0], **fields))
        axes = 2 if kind in {"flatten", "linear"} else inputs[0].axes
        self.set(node, _Value(node.outputs[0], node=node, axes=axes))

    def set(self, node: Node, value: _Value | _Sizes) -> None:
        """Say what a node makes; others than its first output may not be asked for."""
        self._values[node.outputs[0]] = value

    def make_constant(self, node: Node, constant: Constant) -> None:
        """Say that a node makes a constant."""
        self.constants[node.outputs[0]] = constant

    def sizes(self, node: Node, index: int) -> _Sizes | None:
        """The sizes that an input of a node is, be they computed or a constant."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        value = self._values.get(name)
        if isinstance(value, _Sizes):
            return value
        constant = self.constant(node, index)
        if constant is None or constant.numbers is None:
            return None
        return _Sizes(int(number) for number in constant.numbers)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(_shown, value)) or "nothing"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


# One handler for each operator.


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
        reader.set(node, reader.sizes(node, 0) or _Sizes())
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
    weight = reader.tensor(node, 1, _IMAGE_AXES)
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
            raise reader.unfit(node, f"has strides {_shown(stride)}")
    if not isinstance(group, int) or group < 1 or weight.shape[0] % group:
        raise reader.unfit(node, f"has group {_shown(group)}")
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
    if value.axes != _IMAGE_AXES or sorted(axis % _IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"takes the mean over the axes {_shown(axes)}, not height, width")
    keeps = node.attributes.get("keepdims", 1)
    if keeps == 1:
        reader.add("pool", node, value)
        return
    pooled = f"{node.outputs[0]} before its axes are dropped"
    reader.steps.append(Step("pool", node, (reader.settled(value),), pooled))
    reader.add("flatten", node, _Value(pooled, node=node))


def _flatten(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=...)
    if node.attributes.get("axis", 1) not in {1, 1 - _IMAGE_AXES}:
        raise reader.unfit(node, f"flattens from axis {_shown(node.attributes['axis'])} on")
    reader.add("flatten", node, reader.value(node, 0))


def _squeeze(reader: GraphReader, node: Node) -> None:
    reader.only(node, axes=...)
    sizes = reader.sizes(node, 0)
    if sizes is not None:
        reader.set(node, sizes)
        return
    axes = reader.integers(node, "axes", 1) or ()
    value = reader.value(node, 0)
    if value.axes != _IMAGE_AXES or sorted(axis % _IMAGE_AXES for axis in axes) != [2, 3]:
        raise reader.unfit(node, f"drops the axes {_shown(axes)}, not height and width")
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
        sizes = _Sizes(reader.integers(node, "shape", 9) or ())
    zero = "N" if not node.attributes.get("allowzero") else 0
    match tuple(zero if size == 0 else size for size in sizes or ()):
        case (first, features) if first in {"N", reader.batch} or (first == -1 != features):
            pass
        case _:
            raise reader.unfit(node, f"gives the shape {_shown(tuple(sizes or ()))}")
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
    reader.set(node, _Sizes(taken))


def _expand(reader: GraphReader, node: Node) -> None:
    """One number, over and over: zeros where a bias is left out."""
    reader.only(node)
    constant, sizes = reader.constant(node, 0), reader.sizes(node, 1)
    number = reader.number(node, 0) if constant is not None else None
    if number is None and sizes is not None and sizes == (1,):
        reader.set(node, reader.sizes(node, 0) or _Sizes())
        return
    if constant is None or number is None or sizes is None or len(sizes) != 1:
        raise reader.unfit(node, "repeats values, which no RegNet does")
    (size,) = sizes
    if not isinstance(size, int) or not 0 < size <= MAX_COUNT:
        raise reader.unfit(node, f"repeats a value {_shown(size)} times")
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
    reader.set(node, _Sizes((sizes[int(index)],)))


def _concat(reader: GraphReader, node: Node) -> None:
    reader.only(node, axis=0)
    parts = [reader.sizes(node, index) for index in range(len(node.inputs))]
    joined = [size for part in parts for size in part or ()]
    if None in parts or len(joined) > _IMAGE_AXES:
        raise reader.unfit(node, "joins values, which no RegNet does")
    reader.set(node, _Sizes(joined))


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
        raise reader.unfit(node, f"has approximate {_shown(kind)}")
    value = reader.value(node, 0)
    tree = dict(_KNOWN)["gelu_new" if kind == "tanh" else "gelu"]
    _set_tree(reader, node, value, _substituted(tree, value.tree))


def _plain(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    _function(reader, node)


def _function(reader: GraphReader, node: Node) -> None:
    value = reader.value(node, 0)
    _set_tree(reader, node, value, (node.op.lower(), value.tree))


def _set_tree(reader: GraphReader, node: Node, value: _Value, tree: Tree) -> None:
    if _size(tree) > _MAX_TERMS:
        raise reader.unfit(node, "ends in no activation that a RegNet has")
    reader.set(node, _Value(value.base, tree, node, value.axes))


def _mul(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    for number, other in ((reader.number(node, 0), 1), (reader.number(node, 1), 0)):
        if number is not None:
            value = reader.value(node, other)
            _set_tree(reader, node, value, _product(number, [value.tree]))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        _set_tree(reader, node, first, _product(1.0, [first.tree, second.tree]))
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
    _set_tree(reader, node, value, _product(1 / number, [value.tree]))


def _pow(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    exponent = reader.number(node, 1)
    if exponent not in {2.0, 3.0}:
        raise reader.unfit(node, "takes a power that no RegNet takes")
    value = reader.value(node, 0)
    _set_tree(reader, node, value, _product(1.0, [value.tree] * int(exponent)))


def _add(reader: GraphReader, node: Node) -> None:
    reader.only(node)
    if _adds_bias(reader, node):
        return
    for number, other in ((reader.number(node, 0), 1), (reader.number(node, 1), 0)):
        if number is not None:
            value = reader.value(node, other)
            _set_tree(reader, node, value, _sum(number, [value.tree]))
            return
    first, second = reader.value(node, 0), reader.value(node, 1)
    if first.base == second.base:
        _set_tree(reader, node, first, _sum(0.0, [first.tree, second.tree]))
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
        reader.set(node, _Value(node.outputs[0], node=node, axes=2))
        return True
    return False


_HANDLERS: dict[str, Callable[[GraphReader, Node], None]] = {
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
"""By operator, of every opset: where these differ, attributes became inputs."""


# Expressions.


def _product(number: float, trees: Sequence[Tree]) -> Tree:
    """A product of expressions and a number, without products in it."""
    factors: list[Tree] = []
    for tree in trees:
        if tree[0] == "product":
            number *= tree[1]
            factors += tree[2]
        else:
            factors.append(tree)
    if math.isclose(number, 1.0, rel_tol=_CLOSE):
        number = 1.0
        if len(factors) == 1:
            return factors[0]
    return ("product", number, tuple(sorted(factors, key=_key)))


def _sum(number: float, trees: Sequence[Tree]) -> Tree:
    """A sum of expressions and a number."""
    return ("sum", number, tuple(sorted(trees, key=_key)))


def _key(tree: Tree) -> str:
    """What expressions are sorted by: their form, without numbers, which differ in last places."""
    if tree[0] in {"sum", "product"}:
        return f"{tree[0]}({','.join(map(_key, tree[2]))})"
    return tree[0] if tree == X else f"{tree[0]}({_key(tree[1])})"


def _size(tree: Tree) -> int:
    """How many parts an expression has."""
    if tree[0] in {"sum", "product"}:
        return 1 + sum(map(_size, tree[2]))
    return 1 if tree == X else 1 + _size(tree[1])


def _same(one: Tree, other: Tree) -> bool:
    """Whether two expressions are one, but for how their numbers are rounded."""
    if one[0] != other[0] or len(one) != len(other):
        return False
    if one[0] in {"sum", "product"}:
        return (
            math.isclose(one[1], other[1], rel_tol=_CLOSE, abs_tol=0.0)
            and len(one[2]) == len(other[2])
            and all(map(_same, one[2], other[2]))
        )
    return one == X or _same(one[1], other[1])


def _substituted(tree: Tree, value: Tree) -> Tree:
    """An expression of an expression."""
    if tree == X:
        return value
    if tree[0] == "product":
        return _product(tree[1], [_substituted(factor, value) for factor in tree[2]])
    if tree[0] == "sum":
        return _sum(tree[1], [_substituted(term, value) for term in tree[2]])
    return (tree[0], _substituted(tree[1], value))


def _gelu(inner: Tree, function: str) -> Tree:
    return _product(0.5, [X, _sum(1.0, [(function, inner)])])


_CUBIC = _sum(0.0, [X, _product(0.044715, [X, X, X])])

_KNOWN: tuple[tuple[str, Tree], ...] = (
    ("relu", ("relu", X)),
    ("sigmoid", ("sigmoid", X)),
    ("selu", ("selu", X)),
    ("silu", _product(1.0, [X, ("sigmoid", X)])),
    ("gelu", _gelu(_product(math.sqrt(0.5), [X]), "erf")),
    ("gelu_new", _gelu(_product(math.sqrt(2 / math.pi), [_CUBIC]), "tanh")),
)
"""Activations, as `RegNetConfig.hidden_act` has them, and the gate of squeeze-and-excitation."""
