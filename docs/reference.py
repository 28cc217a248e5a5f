"""What the code says of itself, for two pages of the site (`mkdocs.yml`): never out of date.

Of every command its arguments and options; of everything that ``converters`` and ``regnet`` name,
and of what their functions return, the docstring.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


PACKAGES = ("converters", "regnet")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Put it in the place of the comments that stand for it."""
    for marker, written in GENERATED.items():
        if marker in markdown:
            markdown = markdown.replace(marker, written())
    return markdown


def options() -> str:
    """Every command with its arguments and options, as ``--help`` has them."""
    from typer.main import get_command

    from converters.cli.app import app

    group: Any = get_command(app)
    return "\n".join(
        line for name, command in group.commands.items() for line in _command(name, command)
    )


def _command(name: str, command: Any) -> Iterator[str]:
    yield from (f"### `regnet {name}`", "")
    for paragraph in inspect.cleandoc(command.help).split("\n\n"):
        words = " ".join(paragraph.split())
        example = words.removeprefix("Example: ")
        yield from (["```sh", example, "```", ""] if example != words else [words, ""])
    yield from ("| argument, option | meaning |", "|---|---|")
    for param in command.params:
        if not getattr(param, "hidden", False):
            yield f"| {_spelled(param)} | {_cell(_words(param))} |"
    yield ""


def _spelled(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`{param.name.upper()}`" if param.required else f"`[{param.name.upper()}]`"
    return ", ".join(f"`{name}`" for name in (*param.opts, *param.secondary_opts))


def _words(param: Any) -> str:
    choices = getattr(param.type, "choices", ())
    stated, value = param.show_default, param.default
    default = stated if isinstance(stated, str) else ""
    if not default and stated is not False and isinstance(value, str | int | float):
        default = "" if isinstance(value, bool) else str(value)
    return " ".join(
        [
            param.help or "",
            *([f"One of {', '.join(map(str, choices))}."] if choices else []),
            *([f"Default: {default}."] if default else []),
        ]
    )


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


def objects() -> str:
    """Everything that ``converters`` and ``regnet`` name, and what their functions return."""
    parts = []
    for package in map(import_module, PACKAGES):
        named = {name: getattr(package, name) for name in package.__all__}
        for title, chosen in (
            ("functions", {n: o for n, o in named.items() if inspect.isfunction(o)}),
            ("classes", {n: o for n, o in named.items() if inspect.isclass(o)}),
            ("returned", dict(_returned(filter(inspect.isfunction, named.values()), named))),
        ):
            if chosen:
                parts += [f"### {package.__name__}: {title}\n"]
                parts += [_object(name, chosen[name]) for name in chosen]
    return "\n".join(parts)


def _returned(functions: Iterable[Any], known: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """The classes of this project in annotations of what functions return, without the known."""
    for function in functions:
        homes = _imports(import_module(function.__module__))
        for dotted in re.findall(r"[\w.]+", str(function.__annotations__.get("return", ""))):
            first, _, inner = dotted.partition(".")
            if first in homes and dotted not in known:
                home = f"{homes[first]}.{first}" if inner else homes[first]
                name = inner or first
                yield name, getattr(import_module(home), name)


def _imports(module: Any) -> dict[str, str]:
    """What a module imports of this project, for types too, and defines itself: name to home."""
    tree = ast.parse(inspect.getsource(module))
    own = {node.name: module.__name__ for node in tree.body if isinstance(node, ast.ClassDef)}
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return own | {
        alias.name: str(node.module)
        for node in found
        if str(node.module).startswith(PACKAGES)
        for alias in node.names
    }


def _object(name: str, value: Any) -> str:
    """A function or class under a heading, a class with its public methods and properties."""
    lines = [f"#### `{name}`", "", _signature(name, value), _text(value)]
    if inspect.isclass(value):
        homes = [base for base in value.__mro__ if base.__module__.startswith(PACKAGES)]
        for key in dict.fromkeys(key for base in homes for key in vars(base)):
            member = inspect.getattr_static(value, key)
            if not key.startswith("_") and _documented(member):
                lines.append(_method(f"{name}.{key}", member))
    return "\n".join(lines)


def _documented(member: object) -> bool:
    kinds = (property, classmethod, staticmethod)
    return bool(inspect.isfunction(member) or isinstance(member, kinds)) and bool(member.__doc__)


def _method(name: str, member: Any) -> str:
    function = getattr(member, "__func__", member)
    body = "\n".join([_signature(name, function), _text(function)])
    return f"**`{name}`**\n\n{body}"


def _signature(name: str, value: Any) -> str:
    """How it is called, with the defaults as they are written; nothing of what is not called."""
    function: Any = vars(value).get("__init__") if inspect.isclass(value) else value
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    except (OSError, TypeError):  # a property, or a constructor that dataclass made
        return ""
    node = tree.body[0]
    if not isinstance(node, ast.FunctionDef):
        return ""
    arguments = [a for a in _arguments(node.args) if a.partition(":")[0] not in {"self", "cls"}]
    result = "" if inspect.isclass(value) or node.returns is None else ast.unparse(node.returns)
    gives = f" -> {result}" if result else ""
    line = f"{name}({', '.join(arguments)}){gives}"
    if len(line) > 88:  # noqa: PLR2004 -- what fits beside the table of contents
        listed = "".join(f"    {argument},\n" for argument in arguments)
        line = f"{name}(\n{listed}){gives}"
    return f"```python\n{line}\n```\n"


def _arguments(found: ast.arguments) -> Iterator[str]:
    positional = [*found.posonlyargs, *found.args]
    defaults: list[ast.expr | None] = [*found.defaults]
    absent = [None] * (len(positional) - len(defaults))
    for argument, default in zip(positional, [*absent, *defaults], strict=True):
        yield _argument(argument, default)
    if found.vararg or found.kwonlyargs:
        yield f"*{ast.unparse(found.vararg) if found.vararg else ''}"
    for argument, default in zip(found.kwonlyargs, found.kw_defaults, strict=True):
        yield _argument(argument, default)
    if found.kwarg:
        yield f"**{ast.unparse(found.kwarg)}"


def _argument(argument: ast.arg, default: ast.expr | None) -> str:
    equals = " = " if argument.annotation else "="
    return ast.unparse(argument) + (f"{equals}{ast.unparse(default)}" if default else "")


_SECTION = re.compile(r"^(Args|Attributes|Raises|Returns|Yields):\n", re.MULTILINE)
_EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)
_ROLE = re.compile(r":\w+:`~?\.?([^`]+)`")


def _text(value: Any) -> str:
    """A docstring as Markdown: its sections are lists, its examples code."""
    text = _ROLE.sub(r"`\1`", inspect.cleandoc(value.__doc__ or "")).replace("``", "`")
    head, *sections = _SECTION.split(text)
    lines = [_EXAMPLE.sub(r"```pycon\n\g<0>\n```", head)]
    for title, body in zip(sections[::2], sections[1::2], strict=True):
        lines += [f"{title}:", "", *_entries(textwrap.dedent(body), title)]
    return "\n".join([*lines, ""])


def _entries(body: str, title: str) -> Iterator[str]:
    """The lines of a section: a list of what is named, or a text."""
    for entry in re.split(r"\n(?! )", body.strip()):
        name, colon, words = " ".join(entry.split()).partition(": ")
        if title in {"Returns", "Yields"} or not colon:
            yield " ".join(entry.split())
        else:
            yield f"- `{name}`: {words}"
    yield ""


GENERATED: dict[str, Callable[[], str]] = {
    "<!-- The site has every option here. -->": options,
    "<!-- The site has every docstring here. -->": objects,
}
"""What stands in a page, and what writes what belongs there."""
