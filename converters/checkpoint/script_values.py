"""What a variable of a TorchScript program can be, and what numbers come to without running it."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

from converters.checkpoint.values import MAX_SIZE, Opaque, StoredTensor

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_MEMBERS = 256
"""Of a list in a program; sizes have four."""

_MAX_MODULES = 50_000
"""Modules and tensors; the largest RegNets have three thousand."""

_MAX_NESTED = 100

_LISTS = frozenset(f"torch.jit._pickle.build_{kind}list" for kind in ("int", "double", "bool"))
_TAGGED = "torch.jit._pickle.restore_type_tag"


class Unknown(Enum):
    """A number or truth that depends on how large the images are, or a text made of such."""

    VALUE = "unknown"


@dataclass(eq=False, slots=True)
class Computed:
    """A tensor that is computed of the images.

    Attributes:
        name: Of the value in the graph; what writes in place makes another of it.
        axes: How many it has; None if that is not known.
    """

    name: str
    axes: int | None


@dataclass(frozen=True, slots=True)
class Held:
    """A tensor that is in the archive.

    Attributes:
        name: Its path in the modules, or what the program calls a constant.
        tensor: Where it lies.
    """

    name: str
    tensor: StoredTensor


@dataclass(frozen=True, eq=False, slots=True)
class Spelled:
    """A tensor in float32 that the program makes of numbers.

    Attributes:
        numbers: In row-major order.
        shape: The sizes.
    """

    numbers: tuple[float, ...]
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Module:
    """An object of the archive.

    Attributes:
        kind: Its class.
        path: The names of the attributes that lead to it, dots between.
        attributes: What it holds.
    """

    kind: str
    path: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """A size of a tensor, or what is computed of such.

    Attributes:
        name: Of the value in the graph.
    """

    name: str


@dataclass(frozen=True, slots=True)
class Callee:
    """A function.

    Attributes:
        name: Its whole one.
    """

    name: str


def module_tree(note: Opaque) -> tuple[Module, dict[str, StoredTensor]]:
    """The module that a pickle describes with all below it, and the tensors in them by path.

    A module in several places has the path of the first.

    Raises:
        ValueError: There are more, or they are nested deeper, than in any network.
    """
    return _Modules().whole(note)


class _Modules:
    def __init__(self) -> None:
        self._known: dict[int, Module] = {}
        self._tensors: dict[str, StoredTensor] = {}
        self._count = 0

    def whole(self, note: Opaque) -> tuple[Module, dict[str, StoredTensor]]:
        return self._module(note, "", 0), self._tensors

    def _module(self, note: Opaque, path: str, depth: int) -> Module:
        if id(note) in self._known:
            return self._known[id(note)]
        if depth > _MAX_NESTED:
            raise ValueError(f"modules nested more than {_MAX_NESTED} deep")
        attributes: dict[str, Any] = {}
        made = self._known[id(note)] = Module(note.qualified_name, path, attributes)
        for name, value in note.state.items() if isinstance(note.state, dict) else ():
            self._count += 1
            if self._count > _MAX_MODULES or not isinstance(name, str):
                raise ValueError(f"modules with more than {_MAX_MODULES} parts, or unnamed ones")
            attributes[name] = self._value(value, f"{path}.{name}" if path else name, depth + 1)
        return made

    def _value(self, value: Any, path: str, depth: int) -> Any:
        match value:
            case StoredTensor():
                self._tensors[path] = value
                return Held(path, value)
            case Opaque(args=(list() as members,), qualified_name=name) if name in _LISTS:
                return members
            case Opaque(args=(inner, str()), qualified_name=name) if name == _TAGGED:
                return self._value(inner, path, depth + 1)
            case Opaque(args=()) if value.qualified_name.startswith("__torch__."):
                return self._module(value, path, depth)
            case list() | tuple() if len(value) <= MAX_MEMBERS and depth <= _MAX_NESTED:
                self._count += len(value)
                parts = (
                    self._value(part, f"{path}.{index}", depth + 1)
                    for index, part in enumerate(value)
                )
                return list(parts) if isinstance(value, list) else tuple(parts)
        return value


Number = bool | int | float

_ON_NUMBERS: Mapping[str, Callable[..., Any]] = {
    "add": operator.add,
    "sub": operator.sub,
    "mul": operator.mul,
    "div": operator.truediv,
    "floordiv": operator.floordiv,
    "remainder": operator.mod,
    "eq": operator.eq,
    "ne": operator.ne,
    "lt": operator.lt,
    "le": operator.le,
    "gt": operator.gt,
    "ge": operator.ge,
    "min": min,
    "max": max,
}
_ON_NUMBER: Mapping[str, Callable[[Any], Any]] = {
    "neg": operator.neg,
    "Int": int,
    "Float": float,
    "Bool": bool,
}
_ON_TEXTS: Mapping[str, Callable[..., Any]] = {
    "eq": operator.eq,
    "ne": operator.ne,
    "add": lambda *_: Unknown.VALUE,  # messages alone are put together
}
_ON_TRUTHS: Mapping[str, Callable[..., bool]] = {
    "__and__": operator.and_,
    "__or__": operator.or_,
    "__xor__": operator.xor,
}
_ON_TRUTH: Mapping[str, Callable[[Any], bool]] = {"__not__": operator.not_}

_TABLES: tuple[tuple[Any, int, Mapping[str, Callable[..., Any]]], ...] = (
    (bool, 2, _ON_TRUTHS),
    (bool, 1, _ON_TRUTH),
    (str, 2, _ON_TEXTS),
    (Number, 2, _ON_NUMBERS),
    (Number, 1, _ON_NUMBER),
)
"""What all arguments are, how many there are, and what is known of such."""


def calculated(name: str, arguments: list[Any]) -> Any:
    """What an operator of torch gives for numbers, truths and texts.

    Raises:
        LookupError: It is none that is known for these.
        ValueError: It comes to nothing, or to more than a number of torch can be.
    """
    if any(isinstance(value, Unknown | Size) for value in arguments):
        if not all(isinstance(value, Unknown | Size | Number | str) for value in arguments):
            raise LookupError(name)
        return arguments[0] if name == "Int" else Unknown.VALUE
    for kind, count, functions in _TABLES:
        fits = len(arguments) == count and all(isinstance(value, kind) for value in arguments)
        if fits and name in functions:
            break
    else:
        raise LookupError(name)
    try:
        result = functions[name](*arguments)
    except ArithmeticError as error:
        raise ValueError(f"calls {name}, which comes to nothing") from error
    if isinstance(result, int) and abs(result) > MAX_SIZE:
        raise ValueError(f"calls {name}, which comes to more than 64 bits")
    return result
