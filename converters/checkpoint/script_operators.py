"""What calls of operators in a TorchScript program come to: numbers, or nodes of a graph."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.checkpoint.aten import ON_SIZES, SIGNATURES, AtenNodes, Named, argument_names
from converters.checkpoint.script_values import (
    MAX_MEMBERS,
    Computed,
    Held,
    Size,
    Spelled,
    Unknown,
    calculated,
)
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from converters.checkpoint.aten import Argument
    from converters.checkpoint.graph import Node
    from converters.checkpoint.values import StoredTensor

_ADVICE = "export an unmodified RegNet, or name the checkpoint it was made from"

_KEEPING = frozenset({
    *("adaptive_avg_pool2d", "avg_pool2d", "batch_norm", "constant_pad_nd", "dropout", "gelu"),
    *("group_norm", "linear", "relu", "selu", "sigmoid", "silu", "sqrt", "tanh", "to"),
})  # fmt: skip
"""Operators whose result has as many axes as what they read first."""

_IMAGE_AXES = 4
_CONVOLUTIONS = frozenset({"_convolution", "conv2d"})

_ELEMENT_BY_ELEMENT = frozenset({"add", "div", "mul", "pow"})

_OF_SIZES = {
    **{name: name for name in ("add", "sub", "mul", "floordiv", "max", "min")},
    "floor_divide": "floordiv",
    "remainder": "mod",
}
"""What is computed of sizes: torch's operators, to those of the graph."""

_FLOAT32 = 6
"""Of torch's ``ScalarType``: that of whatever is computed, since no other is read."""

_ROOT = "code/__torch__/"
_MANGLED = re.compile(r"/___torch_mangle_[0-9]+")


@dataclass(frozen=True, slots=True)
class Spot:
    """Where in a program something stands.

    Attributes:
        where: What messages call the archive.
        place: The file of code, below the folder of the archive.
        line: In it.
        path: Of the module that it works for.
    """

    where: str
    place: str
    line: int
    path: str = ""

    def unfit(self, what: str) -> InputError:
        """The error for code that cannot be followed; ``what`` is a predicate."""
        return InputError(
            f"{self.where}, {printable(self.place)}, line {self.line}: {what}; {_ADVICE}."
        )

    @property
    def node(self) -> str:
        """What the node of an operation here is called, without what tells classes apart.

        That changes with what the process that saved the file had seen before.
        """
        line = f"{_MANGLED.sub('', self.place).removeprefix(_ROOT)}:{self.line}"
        return f"{self.path} in {line}" if self.path else line


@dataclass(frozen=True, slots=True)
class Given:
    """What a call is given.

    Attributes:
        values: In order.
        keywords: By name.
    """

    values: list[Any]
    keywords: Mapping[str, Any] = field(default_factory=dict)


class ScriptOperators:
    """Takes the calls of operators in the order of computation.

    Args:
        where: What messages call the archive.
        names: Of the images, and of all tensors that are there before.

    Attributes:
        used: The tensors that are read, by name.
        spelled: Those that the program makes of numbers, likewise.
    """

    def __init__(self, where: str, names: Iterable[str]) -> None:
        self.used: dict[str, StoredTensor] = {}
        self.spelled: dict[str, Spelled] = {}
        self._nodes = AtenNodes(where, names)
        self._made = 0

    def finish(self, outputs: Sequence[str]) -> tuple[Node, ...]:
        """The nodes of a graph that gives these values."""
        return self._nodes.finish(outputs)

    def calculated(self, spot: Spot, name: str, values: list[Any]) -> Any:
        """What an operator gives for numbers, truths and texts.

        Raises:
            InputError: If it is none that is followed.
        """
        try:
            return calculated(name, values)
        except LookupError:
            what = f"calls {printable(name)} on what no RegNet calls it on"
            raise spot.unfit(what) from None
        except ValueError as error:
            raise spot.unfit(str(error)) from error

    def of_torch(self, spot: Spot, name: str, given: Given) -> Any:
        """What a call of ``torch.NAME`` gives.

        Raises:
            InputError: If it is none that is followed.
        """
        if "." in name:
            raise spot.unfit(f"calls torch.{printable(name)}, which torch does not write")
        match name, given.values:
            case "warn" | "format", _:
                found: Any = None if name == "warn" else Unknown.VALUE
            case "dim" | "size", [Computed() as tensor, *axis]:
                found = self._size(spot, tensor, axis) if name == "size" else _axes_of(tensor)
            case "__is__" | "__isnot__", [left, right]:
                found = is_none(spot, left, right) == (name == "__is__")
            case "_unwrap_optional", [value] if value is not None:
                found = value
            case _, [_, _] if name in _OF_SIZES and _computes_sizes(given):
                found = self._of_sizes(spot, name, given.values)
            case _, [Computed() | Held(), *_]:
                found = self._operation(spot, name, given)
            case _, [list() | tuple() | Spelled(), *_]:
                found = _of_list(spot, name, given)
            case _ if given.keywords:
                raise spot.unfit(f"calls {printable(name)} on what no RegNet calls it on")
            case _:
                found = self.calculated(spot, name, given.values)
        return found

    def of_interpreter(self, spot: Spot, name: str, given: Given) -> Any:
        """What a call of ``ops.NAME`` gives, which TorchScript has besides torch's operators.

        Raises:
            InputError: If it is none that is followed.
        """
        match name.partition("."), given.values:
            case ("aten", _, operator), _:
                return self.of_torch(spot, operator, given)
            case ("prim", _, "NumToTensor" | "unchecked_unwrap_optional"), [value]:
                return value
            case ("prim", _, "min" | "max" as function), [_, _]:
                return self.of_torch(spot, function, given)
            case ("prim", _, "dtype"), [Computed()]:
                return _FLOAT32
            case ("prim", _, "device"), [Computed()]:
                return None
            case ("prim", _, "RaiseException"), _:
                raise spot.unfit("refuses all images")
            case ("prim", _, "ConstantMKLDNNTensor"), _:
                raise InputError(
                    f"{spot.where}: lacks its weights, for torch.jit.optimize_for_inference has "
                    "given them to oneDNN, and torch does not save those; name the checkpoint it "
                    "was made from, or save what torch.jit.freeze gives."
                )
        raise spot.unfit(f"calls {printable(name)}, which no RegNet needs")

    def _size(self, spot: Spot, tensor: Computed, axis: list[Any]) -> Any:
        if tensor.axes is None:
            return Unknown.VALUE
        every = list(range(tensor.axes))
        wanted = [part(spot, every, axis[0])] if axis else every
        sizes = [Size(self._name()) for _ in wanted]
        for which, size in zip(wanted, sizes, strict=True):
            self._nodes.add(spot.node, "aten::sym_size", [Named(tensor.name), which], [size.name])
        return sizes[0] if axis else sizes

    def _of_sizes(self, spot: Spot, name: str, values: list[Any]) -> Size:
        """Append what is computed of two sizes, or of a size and a number."""
        operands: dict[str, Argument] = {}
        for key, value in zip("ab", values, strict=True):
            if isinstance(value, Held):
                self.used[value.name] = value.tensor
            operands[key] = (value.name,) if isinstance(value, Size | Held) else value
        made = Size(self._name())
        self._nodes.add(spot.node, f"{ON_SIZES}.{_OF_SIZES[name]}", operands, [made.name])
        return made

    def _operation(self, spot: Spot, name: str, given: Given) -> Computed:
        """Append an operation on tensors."""
        plain = name.removesuffix("_")
        names = argument_names(plain)
        left = names[len(given.values) :]
        if not given.keywords.keys() <= set(left):
            raise spot.unfit(f"calls {printable(name)} with arguments that no RegNet gives it")
        arguments: Sequence[Argument] | dict[str, Argument]
        arguments = [self._argument(spot, value) for value in given.values]
        if given.keywords:
            arguments = dict(zip(names, arguments, strict=False)) | {
                key: self._argument(spot, value) for key, value in given.keywords.items()
            }
        made = self._name()
        self._nodes.add(spot.node, f"aten::{name}", arguments, [made])
        first = given.values[0]
        if name != plain and plain in SIGNATURES and isinstance(first, Computed):
            first.name = made
            return first
        return Computed(made, _axes_behind(plain, given))

    def _argument(self, spot: Spot, value: Any) -> Argument:
        match value:
            case Computed(name=name):
                return Named(name)
            case Held(name=name, tensor=tensor):
                self.used[name] = tensor
                return Named(name)
            case Spelled():
                self.spelled[name := self._name()] = value
                return Named(name)
            case None | bool() | int() | float() | str():
                return value
            case list() | tuple():
                return tuple(_member(spot, each) for each in value)
        raise spot.unfit("computes with sizes of images, or with what is no tensor")

    def _name(self) -> str:
        self._made += 1
        return f"value {self._made}"


def is_none(spot: Spot, left: Any, right: Any) -> bool:
    """Whether two values are None, of which one has to be said to be.

    Raises:
        InputError: If neither is.
    """
    if left is not None and right is not None:
        raise spot.unfit("asks for something else than None")
    return left is None and right is None


def part(spot: Spot, whole: Any, index: Any) -> Any:
    """What stands in a list or dictionary.

    Raises:
        InputError: If nothing does.
    """
    listed = isinstance(whole, list | tuple) and type(index) is int
    if listed and -len(whole) <= index < len(whole):
        return whole[index]
    if isinstance(whole, dict) and isinstance(index, str) and index in whole:
        return whole[index]
    raise spot.unfit("picks a part, which no RegNet does")


def _of_list(spot: Spot, name: str, given: Given) -> Any:
    found: Any
    match name, given.values:
        case "len", [several]:
            found = len(several)
        case "list", [several]:
            found = list(several)
        case "list_with_default", [[int(), int()] as sizes, list()]:  # of torch 1.4
            found = sizes
        case "slice", [several, int() as start]:
            found = list(several)[start:]
        case "add", [list() as one, list() as other] if len(one) + len(other) <= MAX_MEMBERS:
            found = one + other
        case "append", [list() as several, value] if len(several) < MAX_MEMBERS:
            several.append(value)
            found = several
        case "tensor", [list() as numbers] if _spells(numbers, given.keywords):
            found = Spelled(tuple(numbers), (len(numbers),))
        case "view", [Spelled(numbers=numbers), [-1, 1, 1]]:  # one for each channel
            found = Spelled(numbers, (len(numbers), 1, 1))
        case _:
            raise spot.unfit(f"calls {printable(name)} on a list, which no RegNet does")
    return found


def _member(spot: Spot, value: Any) -> Any:
    match value:
        case Size(name=name):
            return name
        case bool() | int() | float():
            return value
    raise spot.unfit("computes with sizes of images, or with several tensors")


def _spells(numbers: list[Any], keywords: Mapping[str, Any]) -> bool:
    """Whether ``torch.tensor`` makes a tensor in float32 of numbers."""
    alike = all(isinstance(number, float) for number in numbers)
    known = keywords.keys() <= {"dtype", "device"} and keywords.get("device") is None
    return alike and known and keywords.get("dtype") == _FLOAT32


def _computes_sizes(given: Given) -> bool:
    """Whether operands are sizes and whole numbers, of which tensors may hold the latter."""
    known = all(
        isinstance(value, Size) or type(value) is int or _is_number(value) for value in given.values
    )
    return known and not given.keywords and any(isinstance(v, Size) for v in given.values)


def _is_number(value: Any) -> bool:
    """Whether it is a tensor of the archive without axes."""
    return isinstance(value, Held) and not value.tensor.shape


def _axes_of(tensor: Computed) -> int | Unknown:
    return Unknown.VALUE if tensor.axes is None else tensor.axes


def _axes_behind(name: str, given: Given) -> int | None:
    """How many axes the result of an operation has; None if that is not certain."""
    axes = [_axes_beside(value) for value in given.values]
    known = [count for count in axes if count is not None]
    found, others = axes[0], given.values[1:]
    match name, others:
        case "view" | "reshape", [list() as sizes]:
            found = len(sizes)
        case _ if name in _CONVOLUTIONS:
            found = _IMAGE_AXES
        case _ if found is None or given.keywords.keys() - {"alpha"}:
            found = None
        case "flatten", [1] if found > 1:
            found = 2
        case "mean", [list(), True]:
            pass
        case _ if name in _ELEMENT_BY_ELEMENT:
            found = max(known) if len(known) == len(axes) else None
        case _ if name not in _KEEPING:
            found = None
    return found


def _axes_beside(value: Any) -> int | None:
    """How many axes an operand has; None if that is not certain."""
    if isinstance(value, bool | int | float):
        return 0
    if isinstance(value, Held):
        return len(value.tensor.shape)
    return value.axes if isinstance(value, Computed) else None
