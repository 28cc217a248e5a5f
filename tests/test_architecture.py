"""The rooms, and that imports run one way; docs/architecture.md shows the same list."""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "architecture.md"

MOST_ROOMS = 25
"""As many as a person can have an overview of."""

REGNET = (
    "files",
    "wider",
    "config",
    "architecture",
    "design_space",
    "images",
    "image_processor",
    "hub",
    "outputs",
    "layers",
    "model",
)
"""Directly under ``regnet``, lowest first."""

CONVERTERS = (
    "errors",
    "progress",
    "staging",
    "checkpoint",
    "families",
    "published",
    "weights",
    "folder",
    "formats",
    "parity",
    "reports",
    "jobs",
    "cli",
    "testing",
)
"""Directly under ``converters``, lowest first."""

ROOMS = (*(f"regnet.{room}" for room in REGNET), *(f"converters.{room}" for room in CONVERTERS))
"""What a room imports lies before it."""

DOORS = {
    "regnet": "the front door, which names what the rooms hold",
    "converters": "the front door, which names what the rooms hold",
    "regnet.__main__": "`python -m regnet` is the command line of whoever has it installed",
    "converters.__main__": "`python -m converters` is the command line",
}
"""Modules that are no rooms, with the reason why each may import what it wants."""


SYSTEM = "regnet.files.system"
"""What operating systems differ in."""

OF_SOME = {
    *("_winapi", "crypt", "ctypes", "fcntl", "grp", "msvcrt", "nt", "posix", "pty", "pwd"),
    *("resource", "select", "syslog", "termios", "tty", "winreg", "winsound"),
}
"""Modules that not every system has, or through which one calls its own."""

OF_ALL = {
    "mmap": {"ACCESS_COPY", "ACCESS_READ", "mmap"},
    "os": {
        *("O_CREAT", "O_RDONLY", "O_RDWR", "O_WRONLY", "SEEK_CUR", "SEEK_END", "SEEK_SET", "W_OK"),
        *("X_OK", "PathLike", "_exit", "access", "close", "cpu_count", "devnull", "dup", "dup2"),
        *("environ", "fdopen", "fspath", "fstat", "ftruncate", "link", "open", "path", "strerror"),
        *("umask", "walk", "write"),
    },
    "signal": {*("SIGINT", "SIGTERM", "SIG_IGN", "Signals", "getsignal", "raise_signal", "signal")},
}
"""Of other modules, what Python's documentation says that every system has, under Availability."""


@cache
def modules() -> dict[str, ast.Module]:
    """Every module of both packages, parsed."""
    files = [path for name in ("regnet", "converters") for path in (ROOT / name).rglob("*.py")]
    return {name_of(path): ast.parse(path.read_text("utf-8")) for path in sorted(files)}


def name_of(path: Path) -> str:
    """As an import spells it."""
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


def room_of(module: str) -> str:
    """The room that a module lies in."""
    return ".".join(module.split(".")[:2])


@cache
def imports() -> dict[str, set[str]]:
    """Each module to those of ours that it imports: late, for types alone, or at once."""
    return {name: set(imported_by(tree)) & modules().keys() for name, tree in modules().items()}


def test_nothing_that_git_ignores_is_part_of_the_project() -> None:
    """A link to an environment that was added by mistake replaces the environment on checkout."""
    if not (ROOT / ".git").exists():
        pytest.skip("this is no clone")
    command = ["git", "ls-files", "--cached", "--ignored", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert not listed.stdout.split()


def imported_by(tree: ast.AST) -> list[str]:
    """What a module names in imports; of ``from a import b`` the module ``a.b`` if there is one."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            names += [name if name in modules() else str(node.module) for name in inner]
    return names


def test_each_module_lies_in_a_room_and_each_room_has_some() -> None:
    assert {room_of(name) for name in modules()} - DOORS.keys() == set(ROOMS)


def test_the_rooms_are_few() -> None:
    assert len(ROOMS) <= MOST_ROOMS


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_those_before_it(room: str) -> None:
    allowed = ROOMS[: ROOMS.index(room) + 1]
    upwards = [
        f"{name} imports {other}"
        for name in modules()
        if room_of(name) == room and name not in DOORS
        for other in sorted(imports()[name])
        if room_of(other) not in allowed and other not in DOORS
    ]
    assert not upwards


def test_no_module_imports_itself_by_way_of_others() -> None:
    try:
        TopologicalSorter(imports()).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(reversed(error.args[1])))


def of_some_systems(tree: ast.Module) -> Iterator[str]:
    """What a module uses that not every operating system has."""
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=module), attr=used) if module in OF_ALL:
                yield from {f"{module}.{used}"} - {f"{module}.{name}" for name in OF_ALL[module]}
            case ast.ImportFrom(module=str(module), names=found) if module in OF_ALL:
                yield from {alias.name for alias in found} - OF_ALL[module]
            case ast.Import(names=found):
                yield from {alias.name.partition(".")[0] for alias in found} & OF_SOME
            case ast.ImportFrom(module=str(module)):
                yield from {module.partition(".")[0]} & OF_SOME
            case ast.Constant(value=str(text)):
                yield from re.findall(r"(?:^|\s|`)(/(?:proc|sys|dev)\b.*)", text)


def test_what_systems_differ_in_is_named_in_one_module() -> None:
    used = {name: list(of_some_systems(tree)) for name, tree in modules().items()}
    assert [name for name, found in used.items() if found] == [SYSTEM], used


def test_texts_are_written_the_same_on_every_system() -> None:
    written = [
        (name, {keyword.arg for keyword in node.keywords})
        for name, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "write_text"
    ]
    assert len(written) > 5
    assert not [name for name, stated in written if not {"encoding", "newline"} <= stated]


@pytest.mark.parametrize("name", sorted(modules()))
def test_each_module_says_in_a_sentence_what_it_is_for(name: str) -> None:
    sentence = (ast.get_docstring(modules()[name]) or "").split("\n\n")[0]
    assert re.search(r"\w.*[.:]$", sentence, re.DOTALL), name


def test_the_page_shows_the_rooms_in_their_order() -> None:
    drawn = re.search(r"## Rooms\n.*?```\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert drawn is not None
    package, shown = "", []
    for line in drawn[1].splitlines():
        if match := re.match(r"( *)(\w+)(?:/|\.py)(?:\s|$)", line):
            package = package if match[1] else match[2]
            shown += [f"{package}.{match[2]}"] if match[1] else []
    assert tuple(shown) == ROOMS
