"""Configurations that are written as a program's text, read without running it.

OpenMMLab writes Python of which only the literals matter: assignments of numbers, strings, lists
and ``dict(...)``. Those are evaluated here, names of earlier ones included; everything else, calls
above all, is left :data:`UNKNOWN`. JSON is read too.

Source: mmengine ``config/config.py`` (``pretty_text``), mmcv 0.x and 1.x ``utils/config.py``
(``text``, in which the files of ``_base_`` stand one behind another under their names, and
``_merge_a_into_b``, by which the later ones win).
"""

from __future__ import annotations

import ast
import json
import operator
import re
from typing import TYPE_CHECKING, Any, Final

from converters.checkpoint import Opaque
from converters.checkpoint.pickle_reader import require_bounded
from converters.checkpoint.python_text import parsed

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_MAX_TEXT = 1_000_000
"""Characters; published configurations have about ten thousand."""

_MAX_NUMBER = 1 << 60
"""Beyond which nobody computes a setting; numbers that are squared in turns soon fill memory."""

_FILE_NAME = re.compile(r"^[^\s'\"=(#]+\.py$", re.MULTILINE)
"""A line of mmcv's text that names the file whose content follows."""

_DELETE = "_delete_"
"""OpenMMLab's key for a dict that replaces its base's instead of being merged with it."""

_WRONG_VALUES = (ArithmeticError, LookupError, MemoryError, RecursionError, TypeError, ValueError)


class _Unknown:
    """What is no literal."""

    def __repr__(self) -> str:
        return "an expression"


UNKNOWN: Final = _Unknown()
"""The value of what would have to be run."""

_OPERATORS: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}


def read_config(stored: object) -> dict[str, Any] | None:
    """Read a configuration that a checkpoint holds as text, or as a dict of any class.

    Returns:
        Its names and values; None if it cannot be read. Nothing in it was run.
    """
    try:
        values = _parsed(stored) if isinstance(stored, str) else _plain(stored, {})
        require_bounded(values)
    except (SyntaxError, *_WRONG_VALUES):
        return None
    return values if isinstance(values, dict) else None


def _parsed(text: str) -> Any:
    """The names and values of a text.

    Raises:
        ValueError: If it is too long, or its values have no end; others as it is no such text.
    """
    if len(text) > _MAX_TEXT:
        raise ValueError("longer than any configuration")
    if text.lstrip().startswith("{"):
        return json.loads(text)
    values: dict[str, Any] = {}
    for part in _FILE_NAME.split(text):
        assigned = _assignments(parsed(part))
        require_bounded(assigned)  # before it is walked through
        values = _merged(values, assigned)
    return values


def _plain(value: object, known: dict[int, object]) -> object:
    """The same without classes: a ``ConfigDict`` is a dict with a name."""
    if id(value) in known:
        return known[id(value)]
    found = value
    if isinstance(value, Opaque):
        found = value.fields or UNKNOWN
    if isinstance(found, dict):
        found = {str(key): _plain(one, known) for key, one in found.items()}
    elif isinstance(found, list | tuple):
        found = type(found)(_plain(one, known) for one in found)
    known[id(value)] = found
    return found


def _assignments(module: ast.Module) -> dict[str, Any]:
    """The names that a program assigns at its top, with the values that are literals."""
    names: dict[str, Any] = {}
    for statement in module.body:
        match statement:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                names[name] = _value(value, names)
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                names[name] = _value(value, names)
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    names[alias.asname or alias.name] = alias.name
            case ast.Expr(value=ast.Constant()) | ast.Pass():
                pass
            case _:
                _forget(statement, names)
    return names


def _forget(statement: ast.stmt, names: dict[str, Any]) -> None:
    """Make unknown what a statement that is not evaluated may have changed."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and node.id in names:
            names[node.id] = UNKNOWN


def _value(node: ast.expr, names: Mapping[str, Any]) -> Any:  # noqa: PLR0911 -- a table
    """The value of an expression, or :data:`UNKNOWN`."""
    match node:
        case ast.Constant(value=value):
            return value
        case ast.Name(id=name):
            return names.get(name, UNKNOWN)
        case ast.List(elts=items):
            return [_value(item, names) for item in items]
        case ast.Tuple(elts=items):
            return tuple(_value(item, names) for item in items)
        case ast.Dict(keys=keys, values=values):
            parts = [
                (None if key is None else _value(key, names), value)
                for key, value in zip(keys, values, strict=True)
            ]
            return _dict([(key, _value(value, names)) for key, value in parts])
        case ast.Call(func=ast.Name(id="dict"), args=args, keywords=keywords):
            spread = [(None, _value(arg, names)) for arg in args]
            return _dict([*spread, *((one.arg, _value(one.value, names)) for one in keywords)])
        case ast.Attribute(attr=name):
            return name  # of a class, where a configuration names one: torch.optim.SGD
        case _:
            return _computed(node, names)


def _computed(node: ast.expr, names: Mapping[str, Any]) -> Any:
    """The value of arithmetic with numbers, and of a part of a literal."""
    match node:
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, names)
            if isinstance(value, int | float):
                return -value if isinstance(sign, ast.USub) else value
        case ast.BinOp(left=left, op=sign, right=right) if type(sign) in _OPERATORS:
            pair = _value(left, names), _value(right, names)
            if all(isinstance(value, int | float) for value in pair):
                result = _OPERATORS[type(sign)](*pair)
                return result if abs(result) < _MAX_NUMBER else UNKNOWN
        case ast.Subscript(value=whole, slice=part):
            value = _value(whole, names)
            if isinstance(part, ast.Slice) and isinstance(value, list | tuple | str):
                ends = (part.lower, part.upper, part.step)
                bounds: list[Any] = [end and _value(end, names) for end in ends]
                if all(bound is None or isinstance(bound, int) for bound in bounds):
                    return value[slice(*bounds)]
            elif isinstance(value, list | tuple | dict):
                return value[_value(part, names)]
    return UNKNOWN


def _dict(pairs: list[tuple[Any, Any]]) -> Any:
    """A dict of these; a pair without a key is a dict whose items stand in its place."""
    made: dict[Any, Any] = {}
    for key, value in pairs:
        if key is not None:
            made[key] = value
        elif isinstance(value, dict):
            made |= value
        else:
            return UNKNOWN
    return made


def _merged(base: dict[str, Any], child: dict[str, Any]) -> dict[str, Any]:
    """What a file makes of its base."""
    merged = dict(base)
    for key, value in child.items():
        old = merged.get(key)
        if isinstance(value, dict):
            replaces = bool(value.get(_DELETE)) or not isinstance(old, dict)
            kept = {name: one for name, one in value.items() if name != _DELETE}
            merged[key] = kept if replaces else _merged(old or {}, kept)
        else:
            merged[key] = value
    return merged
