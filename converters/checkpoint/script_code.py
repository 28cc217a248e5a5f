"""The code of a TorchScript archive, taken apart by Python's own parser and not run.

TorchScript is written in a part of Python's syntax, a file for each namespace, with the classes of
the modules in it (torch's ``torch/csrc/jit/serialization/python_print.cpp``; how a name is looked
up, ``import_source.cpp``). What torch's own parser could read differently is refused: here, texts
with other characters than it writes; where expressions are read, operators that are not written.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint.python_text import parsed
from converters.checkpoint.script_operators import Spot
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_FILE = 1 << 20
"""Bytes of one file of code; that of RegNetY-128GF, frozen, has some ten thousand."""

_NAMESPACE = "__torch__"

_HOOKS = ("__forward_hooks__", "__forward_pre_hooks__")


@dataclass(frozen=True, slots=True)
class Method:
    """A method of a class, or a function.

    Attributes:
        name: With the namespace before it.
        place: The file it stands in, below the folder of the archive.
        node: Its syntax.
        parameters: Their names in order, of a method without the object's own.
        defaults: What those are that may be left out.
    """

    name: str
    place: str
    node: ast.FunctionDef
    parameters: tuple[str, ...]
    defaults: Mapping[str, ast.expr]


@dataclass(frozen=True, slots=True)
class ScriptClass:
    """The class of a module.

    Attributes:
        methods: By name.
        constants: What it says of attributes that are the same for all its objects.
        classes: Of attributes that are modules, as it declares them: torch runs the methods of
            these, whatever the objects are.
        place: The file it stands in.
        hooked: Whether something more runs before or behind its ``forward``.
    """

    methods: Mapping[str, Method]
    constants: Mapping[str, ast.expr]
    classes: Mapping[str, str]
    place: str
    hooked: bool


class ScriptCode:
    """Finds classes and functions by their whole names; a file is parsed when it is needed.

    Args:
        where: What messages call the archive.
        source: Gives the text of a file by its name below the folder of the archive; None if there
            is none.
    """

    def __init__(self, where: str, source: Callable[[str], bytes | None]) -> None:
        self._where = where
        self._source = source
        self._files: dict[str, dict[str, ast.ClassDef | ast.FunctionDef]] = {}
        self._classes: dict[str, ScriptClass] = {}
        self._functions: dict[str, Method] = {}

    def class_named(self, name: str) -> ScriptClass:
        """The class of a module.

        Raises:
            InputError: There is none of that name, or it has something that torch does not write.
        """
        if name not in self._classes:
            place, node = self._definition(name)
            if not isinstance(node, ast.ClassDef):
                raise self._unfit(place, node, "is a function where the class of a module belongs")
            self._classes[name] = self._class(place, node)
        return self._classes[name]

    def function_named(self, name: str) -> Method:
        """A function that is no method.

        Raises:
            InputError: As of :meth:`class_named`.
        """
        if name not in self._functions:
            place, node = self._definition(name)
            if not isinstance(node, ast.FunctionDef):
                raise self._unfit(place, node, "makes an object, which no RegNet does")
            self._functions[name] = self._method(place, node)
        return self._functions[name]

    def _unfit(self, place: str, node: ast.AST, what: str) -> InputError:
        return Spot(self._where, place, getattr(node, "lineno", 0)).unfit(what)

    def _definition(self, name: str) -> tuple[str, ast.ClassDef | ast.FunctionDef]:
        namespace, _, own = name.rpartition(".")
        if namespace.partition(".")[0] != _NAMESPACE:
            raise InputError(
                f"{self._where}: uses {printable(name)}, which is not in its code; name the "
                "checkpoint it was made from."
            )
        place = f"code/{namespace.replace('.', '/')}.py"
        if place not in self._files:
            self._files[place] = self._parsed(place)
        if own not in self._files[place]:
            raise InputError(
                f"{self._where}, {printable(place)}: lacks {printable(own)}, which is used; "
                "download the file again or copy it anew."
            )
        return place, self._files[place][own]

    def _parsed(self, place: str) -> dict[str, ast.ClassDef | ast.FunctionDef]:
        """The classes and functions of a file."""
        data = self._source(place)
        if data is None:
            return {}
        if set(data) - _WRITTEN:
            raise InputError(
                f"{self._where}, {printable(place)}: has characters that torch does not write; "
                "name the checkpoint it was made from."
            )
        try:
            body = parsed(data).body
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            what = str(error).partition(" (")[0] or "nested too deep"
            raise InputError(
                f"{self._where}, {printable(place)}: is no code that torch writes ({what}); "
                "download the file again or copy it anew."
            ) from error
        found: dict[str, ast.ClassDef | ast.FunctionDef] = {}
        for node in body:
            if not isinstance(node, ast.ClassDef | ast.FunctionDef):
                if _is_version(node):
                    continue
                raise self._unfit(place, node, "stands outside of classes and functions")
            if node.name in found:
                raise self._unfit(place, node, f"defines {printable(node.name)} twice")
            found[node.name] = node
        return found

    def _class(self, place: str, node: ast.ClassDef) -> ScriptClass:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        if bases != ["Module"] or node.keywords or node.decorator_list:
            raise self._unfit(place, node, f"{printable(node.name)} is no class of a module")
        methods: dict[str, Method] = {}
        constants: dict[str, ast.expr] = {}
        hooked = False
        for part in node.body:
            match part:
                case ast.FunctionDef(name=name):
                    if name in methods:
                        what = f"defines {printable(name)} twice in {printable(node.name)}"
                        raise self._unfit(place, part, what)
                    methods[name] = self._method(place, part, bound=True)
                case ast.AnnAssign(
                    target=ast.Name(id=name),
                    annotation=ast.Subscript(value=ast.Name(id="Final")),
                    value=ast.expr() as value,
                ):
                    if constants.setdefault(name, value) is not value:
                        raise self._unfit(place, part, f"defines {printable(name)} twice")
                case ast.Assign(targets=[ast.Name(id=name)], value=ast.List(elts=elements)):
                    hooked = hooked or (name in _HOOKS and bool(elements))
                case _ if not _is_declaration(part):
                    raise self._unfit(place, part, "has no place in the class of a module")
        classes = dict(filter(None, map(_declared, node.body)))
        return ScriptClass(methods, constants, classes, place, hooked)

    def _method(self, place: str, node: ast.FunctionDef, *, bound: bool = False) -> Method:
        given = node.args
        unusual = given.posonlyargs or given.kwonlyargs or given.vararg or given.kwarg
        names = [argument.arg for argument in given.args]
        if unusual or node.decorator_list or (bound and not names):
            raise self._unfit(place, node, f"{printable(node.name)} takes what torch never writes")
        behind = len(names) - len(given.defaults)
        defaults = dict(zip(names[behind:], given.defaults, strict=True))
        return Method(node.name, place, node, tuple(names[bound:]), defaults)


_WRITTEN = frozenset(b"\n" + bytes(range(0x20, 0x7F)))
"""A tab is one column for torch's parser and up to eight for Python's; letters beyond ASCII may be
one for Python and two for torch."""


def _is_version(node: ast.stmt) -> bool:
    """Whether a line is the version of the operators with which files of torch 1.4 may begin."""
    match node:
        case ast.Assign(targets=[ast.Name(id="op_version_set")], value=ast.Constant()):
            return True
    return False


def _declared(node: ast.stmt) -> tuple[str, str] | None:
    """The attribute that a line declares as a module, and its class."""
    match node:
        case ast.AnnAssign(target=ast.Name(id=name), annotation=stated):
            pass
        case ast.Assign(targets=[ast.Subscript(slice=ast.Constant(value=str(name)))], value=stated):
            pass
        case _:
            return None
    levels: list[str] = []
    while isinstance(stated, ast.Attribute):
        levels.append(stated.attr)
        stated = stated.value
    if not isinstance(stated, ast.Name) or stated.id != _NAMESPACE:
        return None
    return name, ".".join([stated.id, *reversed(levels)])


def _is_declaration(node: ast.stmt) -> bool:
    """Whether a line says nothing but what type an attribute has, if that."""
    match node:
        case ast.AnnAssign(target=ast.Name(), value=None) | ast.Pass():
            return True
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="__annotations__"))]):
            return True
    return False
