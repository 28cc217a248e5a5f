"""Follows the code of a TorchScript archive, and gives the operations that it comes to.

Nothing is computed but what does not depend on the images: which branch is taken, how often a loop
goes round, what a number is. Methods and functions are put in the place of their calls, and what is
left is a straight line of operations of torch. What depends on the images otherwise, and every form
that torch's serializer does not write, is refused by file and line.

Modules are as ``eval()`` makes them: their ``training`` is False, whatever the archive says.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from converters.checkpoint.script_operators import Given, ScriptOperators, Spot, is_none, part
from converters.checkpoint.script_values import (
    MAX_MEMBERS,
    Callee,
    Computed,
    Held,
    Module,
    Spelled,
    Unknown,
)
from converters.checkpoint.values import MAX_SIZE, StoredTensor
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from converters.checkpoint.graph import Node
    from converters.checkpoint.script_code import Method, ScriptCode

MAX_STEPS = 150_000
"""Expressions and statements that are followed; the largest RegNets have some thirty thousand."""

MAX_CALLS = 40
"""Calls in calls; those of RegNets are ten deep."""

_MAX_OUTPUTS = 64

_IMAGE_AXES = 4

_BUILT_IN = frozenset({"torch", "ops", "int", "float", "bool", "getattr"})
_TYPED = frozenset({"annotate", "unchecked_cast"})
_RESERVED = _BUILT_IN | _TYPED | {"__torch__", "CONSTANTS", "range", "uninitialized", "inf", "nan"}
"""Names that mean something in every method, so that no variable may have them."""

_OPERATORS: Mapping[type, str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Eq: "eq",
    ast.NotEq: "ne",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
}

_ATOMS = ast.Name | ast.Attribute | ast.Call | ast.Constant | ast.Subscript
"""What `not` binds to in torch's syntax as in Python's."""


@dataclass(slots=True)
class _Frame:
    """A call.

    Attributes:
        method: What is called.
        path: Of the module that it works for.
        names: Its variables.
        result: What it gives.
        returned: Whether it has.
    """

    method: Method
    path: str
    names: dict[str, Any]
    result: Any = None
    returned: bool = False


@dataclass
class ScriptProgram:
    """Follows one program.

    Args:
        where: What messages call the archive.
        code: Its classes and functions.
        root: The module that is the network.
        constants: What ``CONSTANTS.c0`` and so on are.
        held: Names of all tensors of modules and constants.

    Attributes:
        image: The name of what it takes.
        outputs: Names of the values that it gives.
        nodes: The operations in order.
        used: The tensors that they read, by name.
        spelled: Those that they read and the code makes of numbers, likewise.
    """

    where: str
    code: ScriptCode
    root: Module
    constants: Sequence[object]
    held: Sequence[str]
    image: str = ""
    outputs: tuple[str, ...] = ()
    nodes: tuple[Node, ...] = ()
    used: Mapping[str, StoredTensor] = field(default_factory=dict)
    spelled: Mapping[str, Spelled] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._steps = self._depth = 0
        self._readers: Mapping[type, Callable[[_Frame, Any], Any]] = {
            ast.Constant: self._literal,
            ast.Name: self._variable,
            ast.Attribute: self._attribute,
            ast.List: self._list,
            ast.Tuple: self._list,
            ast.Dict: self._dictionary,
            ast.Subscript: self._subscript,
            ast.UnaryOp: self._unary,
            ast.BinOp: self._binary,
            ast.Compare: self._compare,
            ast.Call: self._call,
        }

    def follow(self) -> None:
        """Find the operations between the images and what ``forward`` gives.

        Raises:
            InputError: If the program cannot be made straight; file and line are named.
        """
        method = self.code.class_named(self.root.kind).methods.get("forward")
        if method is None:
            raise InputError(
                f"{self.where}: its module {printable(self.root.kind)} has no forward method, so "
                "it computes nothing; name the checkpoint it was made from."
            )
        spot = self._spot(_Frame(method, "", {}), method.node)
        taken = [name for name in method.parameters if name not in method.defaults]
        if len(taken) != 1:
            names = printable(", ".join(taken)) or "nothing"
            raise spot.unfit(f"takes {names} where a RegNet takes one batch of images")
        (self.image,) = taken
        self._operators = ScriptOperators(self.where, (self.image, *self.held))
        images = Given([Computed(self.image, _IMAGE_AXES)])
        try:
            result = self._method(spot, self.root, "forward", images)
        except RecursionError as error:
            raise spot.unfit("is nested too deep") from error
        self.outputs = tuple(_tensors(spot, result))
        self.nodes = self._operators.finish(self.outputs)
        self.used = self._operators.used
        self.spelled = self._operators.spelled

    def _spot(self, frame: _Frame, node: ast.AST) -> Spot:
        return Spot(self.where, frame.method.place, getattr(node, "lineno", 0), frame.path)

    def _step(self, frame: _Frame, node: ast.AST) -> None:
        self._steps += 1
        if self._steps > MAX_STEPS:
            what = f"comes behind {MAX_STEPS} steps, which no RegNet has"
            raise self._spot(frame, node).unfit(what)

    # Calls.

    def _method(self, spot: Spot, module: object, name: str, given: Given) -> Any:
        if not isinstance(module, Module):
            raise spot.unfit("calls a method of what is no module")
        kind = self.code.class_named(module.kind)
        if name not in kind.methods:
            raise spot.unfit(f"calls {printable(name)}, which its module lacks")
        if kind.hooked:
            raise spot.unfit("calls a module with hooks, which no RegNet has")
        values = Given([module, *given.values], given.keywords)
        return self._run(spot, kind.methods[name], module.path, values)

    def _run(self, spot: Spot, method: Method, path: str, given: Given) -> Any:
        """Follow what is called; a method's own object is among the values."""
        names = [each.arg for each in method.node.args.args]
        left, called = names[len(given.values) :], printable(method.name)
        if len(given.values) > len(names) or not given.keywords.keys() <= set(left):
            raise spot.unfit(f"calls {called} with other arguments than it takes")
        frame = _Frame(method, path, {})
        values = dict(zip(names, given.values, strict=False)) | dict(given.keywords)
        for name in names:
            if name not in values and name not in method.defaults:
                raise spot.unfit(f"calls {called} without its {printable(name)}")
            default = method.defaults.get(name)
            if name in values or default is None:
                self._name(frame, method.node, name, values[name])
            else:
                self._name(frame, method.node, name, self._value(frame, default))
        self._depth += 1
        if self._depth > MAX_CALLS:
            raise spot.unfit(f"is more than {MAX_CALLS} calls deep")
        self._statements(frame, method.node.body)
        self._depth -= 1
        return frame.result

    # Statements.

    def _statements(self, frame: _Frame, body: Sequence[ast.stmt]) -> None:
        for node in body:
            self._statement(frame, node)
            if frame.returned:
                return

    def _statement(self, frame: _Frame, node: ast.stmt) -> None:
        self._step(frame, node)
        match node:
            case ast.Assign(targets=[target], value=value):
                self._assign(frame, target, self._value(frame, value))
            case ast.AnnAssign(target=ast.Name() as target, value=ast.expr() as value):
                self._assign(frame, target, self._value(frame, value))
            case ast.Expr(value=ast.Call() as value):
                self._value(frame, value)
            case ast.If():
                self._if(frame, node)
            case ast.For(target=ast.Name(), orelse=[]):
                self._for(frame, node)
            case ast.Return(value=value):
                frame.result = None if value is None else self._value(frame, value)
                frame.returned = True
            case ast.Pass():
                pass
            case _:
                raise self._spot(frame, node).unfit("is a statement that no RegNet needs")

    def _assign(self, frame: _Frame, target: ast.expr, value: Any) -> None:
        match target:
            case ast.Name(id=name):
                self._name(frame, target, name, value)
            case ast.Tuple(elts=targets) if isinstance(value, list | tuple):
                if len(targets) != len(value) or not all(isinstance(t, ast.Name) for t in targets):
                    raise self._spot(frame, target).unfit("names other values than there are")
                for each, one in zip(targets, value, strict=True):
                    self._assign(frame, each, one)
            case _:
                raise self._spot(frame, target).unfit("changes something else than a variable")

    def _name(self, frame: _Frame, node: ast.AST, name: str, value: Any) -> None:
        if name in _RESERVED:
            what = f"calls a variable {name}, which means something else"
            raise self._spot(frame, node).unfit(what)
        frame.names[name] = value

    def _if(self, frame: _Frame, node: ast.If) -> None:
        condition = self._value(frame, node.test)
        if isinstance(condition, bool):
            self._statements(frame, node.body if condition else node.orelse)
        elif condition is Unknown.VALUE and _raises(node.body):
            self._statements(frame, node.orelse)  # of images that are taken at all
        elif condition is Unknown.VALUE and _raises(node.orelse):
            self._statements(frame, node.body)
        else:
            raise self._spot(frame, node).unfit("computes differently for other images")

    def _for(self, frame: _Frame, node: ast.For) -> None:
        for index in self._range(frame, node.iter):
            self._assign(frame, node.target, index)
            self._statements(frame, node.body)
            if frame.returned:
                return

    def _range(self, frame: _Frame, node: ast.expr) -> range:
        match node:
            case ast.Call(func=ast.Name(id="range"), args=arguments, keywords=[]):
                match self._values(frame, arguments):
                    case [int()] | [int(), int()] as numbers:
                        return range(*numbers)
        raise self._spot(frame, node).unfit("goes round as often as no RegNet does")

    # Expressions.

    def _value(self, frame: _Frame, node: ast.expr) -> Any:
        self._step(frame, node)
        reader = self._readers.get(type(node))
        if reader is None:
            raise self._unwritten(frame, node)
        return reader(frame, node)

    def _values(self, frame: _Frame, nodes: Sequence[ast.expr]) -> list[Any]:
        return [self._value(frame, node) for node in nodes]

    def _unwritten(self, frame: _Frame, node: ast.AST) -> InputError:
        return self._spot(frame, node).unfit("has a form that torch does not write")

    def _literal(self, frame: _Frame, node: ast.Constant) -> Any:
        value = node.value
        fits = isinstance(value, int) and value <= MAX_SIZE
        if value is None or isinstance(value, bool | float | str) or fits:
            return value
        raise self._unwritten(frame, node)

    def _variable(self, frame: _Frame, node: ast.Name) -> Any:
        if node.id in frame.names:
            return frame.names[node.id]
        if node.id in {"inf", "nan"}:
            return float(node.id)
        what = f"reads {printable(node.id)}, which nothing before it makes"
        raise self._spot(frame, node).unfit(what)

    def _attribute(self, frame: _Frame, node: ast.Attribute) -> Any:
        whole = _dotted(node)
        root, _, name = whole.partition(".")
        if root == "__torch__":
            return Callee(whole)
        if root == "CONSTANTS":
            return self._constant(self._spot(frame, node), name)
        return self._of_module(frame, node, self._value(frame, node.value), node.attr)

    def _constant(self, spot: Spot, name: str) -> Any:
        index = name.removeprefix("c")
        if index not in map(str, range(len(self.constants))):
            raise spot.unfit(f"reads the constant {printable(name)}, which is missing")
        value = self.constants[int(index)]
        return Held(f"CONSTANTS.{name}", value) if isinstance(value, StoredTensor) else value

    def _of_module(self, frame: _Frame, node: ast.AST, module: object, name: str) -> Any:
        spot = self._spot(frame, node)
        if not isinstance(module, Module):
            raise spot.unfit(f"reads {printable(name)} of what is no module")
        if name == "training":
            return False
        constant = self.code.class_named(module.kind).constants.get(name)
        if (constant is None) == (name not in module.attributes):
            what = "which its module lacks" if constant is None else "of which there are two"
            raise spot.unfit(f"reads {printable(name)}, {what}")
        if constant is None:
            value = module.attributes[name]
            declared = self.code.class_named(module.kind).classes.get(name)
            if declared and isinstance(value, Module) and value.kind != declared:
                raise spot.unfit(
                    f"reads {printable(name)}, which is of another class than declared"
                )
            return value
        return self._value(_Frame(frame.method, module.path, {}), constant)

    def _list(self, frame: _Frame, node: ast.List | ast.Tuple) -> Any:
        if len(node.elts) > MAX_MEMBERS:
            raise self._unwritten(frame, node)
        values = self._values(frame, node.elts)
        return values if isinstance(node, ast.List) else tuple(values)

    def _dictionary(self, frame: _Frame, node: ast.Dict) -> Any:
        keys = [key.value if isinstance(key, ast.Constant) else None for key in node.keys]
        if not all(isinstance(key, str) for key in keys) or len(set(keys)) != len(keys):
            raise self._unwritten(frame, node)
        return dict(zip(keys, self._values(frame, node.values), strict=True))

    def _subscript(self, frame: _Frame, node: ast.Subscript) -> Any:
        whole, index = self._values(frame, [node.value, node.slice])
        return part(self._spot(frame, node), whole, index)

    def _unary(self, frame: _Frame, node: ast.UnaryOp) -> Any:
        match node:
            case ast.UnaryOp(op=ast.USub(), operand=ast.Constant() as operand):
                name = "neg"
            case ast.UnaryOp(op=ast.Not(), operand=operand) if isinstance(operand, _ATOMS):
                name = "__not__"
            case _:
                raise self._unwritten(frame, node)
        value = self._value(frame, operand)
        return self._operators.calculated(self._spot(frame, node), name, [value])

    def _binary(self, frame: _Frame, node: ast.BinOp) -> Any:
        name = _OPERATORS.get(type(node.op))
        if name is None:
            raise self._unwritten(frame, node)
        values = self._values(frame, [node.left, node.right])
        if name in {"add", "mul"} and isinstance(values[1], Computed):
            values.sort(key=lambda value: not isinstance(value, Computed | Held))
        return self._operators.of_torch(self._spot(frame, node), name, Given(values))

    def _compare(self, frame: _Frame, node: ast.Compare) -> Any:
        if len(node.ops) != 1:
            raise self._unwritten(frame, node)  # which torch reads from left to right
        (kind,) = node.ops
        values = self._values(frame, [node.left, *node.comparators])
        spot = self._spot(frame, node)
        if isinstance(kind, ast.Is | ast.IsNot):
            return is_none(spot, *values) == isinstance(kind, ast.Is)
        if type(kind) not in _OPERATORS:
            raise self._unwritten(frame, node)
        return self._operators.calculated(spot, _OPERATORS[type(kind)], values)

    def _call(self, frame: _Frame, node: ast.Call) -> Any:
        function = node.func
        root, _, name = _dotted(function).partition(".")
        if root in _TYPED and len(node.args) == 2:  # noqa: PLR2004 -- a type, and a value of it
            return self._value(frame, node.args[1])
        if root == "uninitialized":
            return Unknown.VALUE
        if any(keyword.arg is None for keyword in node.keywords):
            raise self._unwritten(frame, node)
        by_name = {str(keyword.arg): self._value(frame, keyword.value) for keyword in node.keywords}
        spot = self._spot(frame, node)
        if root in _BUILT_IN:
            given = Given(self._values(frame, node.args), by_name)
            return self._built_in(frame, node, f"{root}.{name}", given)
        if isinstance(function, ast.Attribute) and root != "__torch__":
            module = self._value(frame, function.value)
            given = Given(self._values(frame, node.args), by_name)
            return self._method(spot, module, function.attr, given)
        callee = self._value(frame, function)
        if not isinstance(callee, Callee):
            raise spot.unfit("calls what is no function")
        method = self.code.function_named(callee.name)
        return self._run(spot, method, frame.path, Given(self._values(frame, node.args), by_name))

    def _built_in(self, frame: _Frame, node: ast.AST, function: str, given: Given) -> Any:
        spot = self._spot(frame, node)
        root, _, name = function.partition(".")
        match root, given.values:
            case "torch", _:
                return self._operators.of_torch(spot, name, given)
            case "ops", _:
                return self._operators.of_interpreter(spot, name, given)
            case "getattr", [module, str(attribute)]:
                return self._of_module(frame, node, module, attribute)
            case "int" | "float" | "bool", [_]:
                return self._operators.calculated(spot, root.capitalize(), given.values)
        raise spot.unfit(f"calls {root} with other arguments than it takes")


def _tensors(spot: Spot, result: Any) -> Iterator[str]:
    """Names of the tensors in what ``forward`` gives."""
    pending = [result]
    for _ in range(_MAX_OUTPUTS):
        if not pending:
            return
        match pending.pop(0):
            case Computed(name=name):
                yield name
            case None:
                pass
            case list() | tuple() as several:
                pending[:0] = several
            case dict() as several:
                pending[:0] = several.values()
            case _:
                raise spot.unfit("gives what no RegNet gives")
    raise spot.unfit(f"gives more than {_MAX_OUTPUTS} values")


def _dotted(node: ast.expr) -> str:
    """A name with dots; empty if it is none."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def _raises(body: Sequence[ast.stmt]) -> bool:
    """Whether a branch gives up, and nothing else."""
    match body:
        case [*before, ast.Expr(value=ast.Call(func=function))]:
            plain = all(isinstance(node, ast.Assign) for node in before)
            return plain and _dotted(function) == "ops.prim.RaiseException"
    return False
