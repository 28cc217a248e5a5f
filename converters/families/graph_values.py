"""What the nodes of an exported graph compute, whoever spelled them: values, constants and steps.

What computes nothing is taken out (`Identity`, dropout in inference), what is spelled in several
ways becomes one operation, and element by element everything is an expression of one value, which
is a known activation, a norm or nothing. An attribute or operator that is not understood is refused
by the name of its node, so what comes out is all that the graph computes.

Expressions may have their elements in any axes, as long as they stay in their order.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.errors import InputError, printable
from converters.families.graph_expressions import CLOSE, KNOWN, MAX_TERMS, X, same, size_of
from converters.families.graph_sizes import Extent, Sizes, computed, filled_in, open_size, volume

if TYPE_CHECKING:
    from converters.checkpoint.graph import Constant, Graph, Node
    from converters.checkpoint.values import StoredTensor
    from converters.families.graph_expressions import Tree
    from converters.families.graph_sizes import Size
    from regnet.wider import Padding

_ADVICE = "export an unmodified RegNet in float32, or name the checkpoint it was made from"

IMAGE_AXES = 4
"""Of images, and of what is computed of them up to pooling."""

_MAX_EXTENTS = 1024
"""Different sizes that depend on the images'; a RegNet has a hundred."""

_MAX_COMPUTED = 8192
"""How often such sizes are computed; the most talkative exporter does so ten times for a norm."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation of a network.

    Attributes:
        kind: ``conv``, ``norm``, ``group_norm``, ``evonorm``, ``act``, ``average``, ``pool``,
            ``scale``, ``add``, ``flatten`` or ``linear``.
        node: The one that makes its value.
        inputs: Names of the values that it reads; of a scale, the value before its gate.
        output: Name of the value that it makes.
        tensors: ``weight``, ``bias`` and a norm's statistics, in torch's layout.
        stride: Of a convolution or an average, in both directions.
        groups: Of a convolution, or of a norm of groups.
        padding: Of a convolution, as `regnet.architecture.Conv` has it.
        eps: Of a norm.
        function: Of an act, as `RegNetConfig.hidden_act` has it, or ``sigmoid``.
    """

    kind: str
    node: Node
    inputs: tuple[str, ...]
    output: str
    tensors: Mapping[str, StoredTensor] = field(default_factory=dict)
    stride: int = 1
    groups: int = 1
    padding: Padding = "symmetric"
    eps: float = 0.0
    function: str = ""


@dataclass(frozen=True, slots=True)
class Value:
    """A value of the graph: an expression of one that a step makes.

    Attributes:
        base: That one's name.
        tree: The expression.
        shape: Its axes, in which the elements have that one's order.
        node: The last one of it; None of the images.
    """

    base: str
    tree: Tree
    shape: Sizes
    node: Node | None = None


@dataclass(frozen=True, slots=True)
class Padded:
    """A value with more pixels around it, which a convolution or an average reads.

    Attributes:
        value: That one.
        around: How many there are above, below, left and right.
        repeats: Whether they are those at the edges, and no zeros.
    """

    value: Value
    around: tuple[Size, ...]
    repeats: bool = False


class OtherNodeError(InputError):
    """A node is understood, and computes something else than a RegNet's."""


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
        graph: Of an exported file.
        where: What messages call the file.
        operators: What reads each, by the domain that a node has and its name.

    Attributes:
        steps: In the order of computation.
        image: The name of the value that is the images.
        outputs: Names of the values that it gives, in order.
        shapes: Of the values that steps make, by name.
        repeated: A number and how often it is repeated, to these; each is in memory once.

    Raises:
        InputError: If something in it is not understood; it is named.
    """

    def __init__(self, graph: Graph, where: str, operators: Mapping[str, Operators]) -> None:
        self._operators = operators
        self.steps: list[Step] = []
        self.constants: dict[str, Constant] = dict(graph.constants)
        self.where = where
        self.repeated: dict[tuple[float, int], tuple[float, ...]] = {}
        self._acts: dict[tuple[str, Tree], str] = {}
        self.shapes: dict[str, Sizes] = {}
        self._values: dict[str, Value | Padded | Sizes] = {}
        self._extents: dict[Extent, Extent] = {}
        self._strided: dict[tuple[Size, int], Size] = {}
        self._computed = 0
        if len(graph.inputs) != 1 or len(graph.inputs[0].shape or ()) != IMAGE_AXES:
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
        sizes = image.shape or (None,) * IMAGE_AXES
        shape = Sizes(open_size(axis) if s is None else s for axis, s in enumerate(sizes))
        self.shapes[image.name] = shape
        self._values[image.name] = Value(image.name, X, shape)
        for node in graph.nodes:
            self._read(node)
        self.outputs = tuple(self._output(value.name) for value in graph.outputs)

    def _read(self, node: Node) -> None:
        handler = self._operators.get(node.domain, {}).get(node.op)
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
        if not isinstance(value, Value):
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
                same = math.isclose(value, wanted, rel_tol=CLOSE)
            if wanted is not ... and not same:
                what = f"has {name} {shown(value)} where {shown(wanted)} belongs"
                raise OtherNodeError(str(self.unfit(node, what)))

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
        raise self.unfit(node, f"has {name} {shown(stated)}")

    def value(self, node: Node, index: int) -> Value:
        """A value that is computed of the images, among the inputs of a node."""
        name = node.inputs[index] if index < len(node.inputs) else ""
        value = self._values.get(name)
        if isinstance(value, Padded):
            raise self.unfit(node, "reads an image with pixels around it that no RegNet has")
        if not isinstance(value, Value):
            raise self.unfit(node, f"reads a constant or a size as its input {index}")
        return value

    def padded(self, node: Node) -> Padded:
        """The first input of a node, which may have more pixels around it."""
        value = self._values.get(node.inputs[0] if node.inputs else "")
        return value if isinstance(value, Padded) else Padded(self.value(node, 0), (0, 0, 0, 0))

    def settled(self, value: Value) -> str:
        """The name of a value that a step makes: of an expression, by an activation.

        Raises:
            InputError: If the expression is none that is known, or its axes are others.
        """
        node = value.node
        if node is not None and value.shape != self.shapes[value.base]:
            raise self.unfit(node, f"gives the shape {shown(value.shape)}, which no RegNet has")
        if value.tree == X:
            return value.base
        key = (value.base, value.tree)
        if node is None:
            raise AssertionError(key)  # the images are no expression
        if key not in self._acts:
            function = next((name for name, tree in KNOWN if same(tree, value.tree)), None)
            if function is None:
                raise self.unfit(node, "ends in no activation that a RegNet has")
            self._acts[key] = made = node.outputs[0]
            self.shapes[made] = value.shape
            self.steps.append(Step("act", node, (value.base,), made, function=function))
        return self._acts[key]

    def add(
        self, kind: str, node: Node, *inputs: Value, shape: Sizes | None = None, **fields: Any
    ) -> None:
        """Append the step that makes a node's value, of the first one's shape if not of another."""
        made = node.outputs[0]
        self.step(kind, node, *inputs, output=made, shape=shape or inputs[0].shape, **fields)
        self.set(node, Value(made, X, self.shapes[made], node))

    def step(
        self, kind: str, node: Node, *inputs: Value, output: str, shape: Sizes, **fields: Any
    ) -> None:
        """Append a step whose value is called otherwise than what a node makes."""
        names = tuple(map(self.settled, inputs))
        self.steps.append(Step(kind, node, names, output, **fields))
        self.shapes[output] = shape

    def set(self, node: Node, value: Value | Padded | Sizes) -> None:
        """Say what a node makes; others than its first output may not be asked for."""
        self._values[node.outputs[0]] = value

    def express(self, node: Node, value: Value, tree: Tree, shape: Sizes | None = None) -> None:
        """Say that a node makes an expression of what a value is one of, perhaps in other axes."""
        if size_of(tree) > MAX_TERMS:
            raise self.unfit(node, "ends in no activation that a RegNet has")
        self.set(node, Value(value.base, tree, shape or value.shape, node))

    def is_whole(self, value: Value) -> bool:
        """Whether it has an element for each of those that it is an expression of."""
        return filled_in(value.shape, self.shapes[value.base]) is not None

    def computed(self, node: Node, function: Callable[..., int], *sizes: Size) -> Size:
        """What a node computes of sizes, or would."""
        if function is operator.mul and not all(isinstance(size, int) for size in sizes):
            whole = volume(sizes)
            if len(whole.extents) > 1:
                return whole
        self._computed += any(not isinstance(size, int) for size in sizes)
        if self._computed > _MAX_COMPUTED or len(self._extents) >= _MAX_EXTENTS:
            raise self.unfit(node, f"computes more than {_MAX_EXTENTS} sizes of images")
        try:
            size = computed(function, *sizes)
        except ValueError as error:
            raise self.unfit(node, str(error)) from error
        if isinstance(size, int):
            return size
        return self._extents.setdefault(size, size)

    def strided(self, node: Node, size: Size, stride: int) -> Size:
        """How many pixels a stride leaves of a height or width, rounded up."""
        if stride > 1 and (size, stride) not in self._strided:
            left = self.computed(node, lambda pixels: (pixels - 1) // stride + 1, size)
            self._strided[size, stride] = left
        return self._strided.get((size, stride), size)

    def make_constant(self, node: Node, constant: Constant) -> None:
        """Say that a node makes a constant."""
        self.constants[node.outputs[0]] = constant

    def named_sizes(self, name: str) -> Sizes | None:
        """The sizes that a value is; None if it is none."""
        value = self._values.get(name)
        return value if isinstance(value, Sizes) else None

    def size_called(self, name: str) -> Size | None:
        """The one size that a value or a constant is; None if it is none."""
        sizes, constant = self.named_sizes(name), self.constants.get(name)
        if sizes is None and constant is not None:
            sizes = Sizes(n for n in constant.numbers or () if isinstance(n, int))
        return sizes[0] if sizes is not None and len(sizes) == 1 else None

    def sizes(self, node: Node, index: int) -> Sizes | None:
        """The sizes that an input of a node is, be they computed or a constant."""
        named = self.named_sizes(node.inputs[index] if index < len(node.inputs) else "")
        if named is not None:
            return named
        constant = self.constant(node, index)
        if constant is None or constant.numbers is None:
            return None
        return Sizes(int(number) for number in constant.numbers)

    def shape(self, node: Node, index: int) -> Sizes:
        """Of a value, of a constant, or of what sizes are."""
        name = node.inputs[index]
        named, constant = self.named_sizes(name), self.constants.get(name)
        if named is not None:
            return Sizes((len(named),))
        return self.value(node, index).shape if constant is None else Sizes(constant.shape)


def shown(value: object) -> str:
    """An attribute or sizes, as messages have them."""
    if isinstance(value, tuple):
        return ", ".join(map(shown, value)) or "nothing"
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


Operators = Mapping[str, Callable[[GraphReader, "Node"], None]]
"""Of a domain: what reads a node, by the name of its operator."""
