"""What a command imports before it does anything, and the page that is drawn without typer."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from typer import rich_utils

from converters.cli import front
from converters.cli.app import app
from converters.cli.endings import run_app
from tests.converters.demo import CHECKPOINT

if TYPE_CHECKING:
    from pathlib import Path

_NAMES_LOADED = """
import os, sys
before = {*sys.modules}
from converters.cli import main
sys.stdout = open(os.devnull, "w")
try:
    main.run()
except SystemExit as end:
    assert not end.code, end.code
print(*sorted({*sys.modules} - before), file=sys.__stdout__)
"""

_OF_TYPER = {"annotated_doc", "shellingham", "typer"}
_OF_YAML = {"yaml", "_yaml", "cython_runtime"}


def loaded(*arguments: str, cwd: Path) -> set[str]:
    """The modules that a command imports."""
    finished = subprocess.run(
        [sys.executable, "-c", _NAMES_LOADED, *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=True,
    )
    return set(finished.stdout.split())


def packages(modules: set[str]) -> set[str]:
    """Those that are not Python's own."""
    found = {name.partition(".")[0] for name in modules} - sys.stdlib_module_names
    return {name for name in found if not name.startswith("_cython_")}


def test_the_page_of_all_commands_needs_neither_typer_nor_a_command(tmp_path: Path) -> None:
    modules = loaded("--help", cwd=tmp_path)
    assert packages(modules) == {"converters", "rich"}
    ours = {name for name in modules if name.startswith("converters.")}
    rooms = ("cli", "cli.main", "cli.interrupts", "cli.endings", "cli.front", "errors")
    assert ours == {f"converters.{room}" for room in rooms}
    assert not modules & {"rich.markdown", "rich.traceback", "rich.syntax", "rich.progress"}


def test_a_command_imports_what_it_needs(tmp_path: Path) -> None:
    modules = loaded("list", cwd=tmp_path)
    assert packages(modules) == {"converters", "rich", "regnet", *_OF_TYPER}
    modules = loaded("inspect", str(CHECKPOINT), "--quiet", cwd=tmp_path)
    expected = {"converters", "rich", "regnet", *_OF_TYPER}
    assert packages(modules) - _OF_YAML == expected
    graphs = {name for name in modules if "graph_" in name or "exported" in name}
    assert not graphs, "these are for files whose graph is read"
    commands = {f"converters.cli.{name}" for name in front.COMMANDS}
    assert modules & commands == {"converters.cli.inspect"}


@pytest.mark.parametrize("arguments", [["--help"], []])
@pytest.mark.parametrize("columns", ["32", "80", "131"])
@pytest.mark.parametrize("coloured", [False, True])
def test_the_page_of_all_commands_is_typers(
    arguments: list[str],
    columns: str,
    coloured: bool,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["regnet", *arguments])
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name in front.HEEDED:
        monkeypatch.delenv(name, raising=False)
    assert front.is_asked_for()
    if coloured:
        monkeypatch.setattr(rich_utils, "FORCE_TERMINAL", True)
        monkeypatch.setenv("TTY_COMPATIBLE", "1")  # which makes rich see a terminal
        monkeypatch.setenv("TERM", "xterm-256color")
    status = run_app(app, "regnet", arguments)
    typers = capsys.readouterr()
    assert (front.show(), capsys.readouterr()) == (status, typers)
    assert ("\x1b[" in typers.out) == coloured
    assert typers.err == ""


def test_what_typer_heeds_is_left_to_typer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["regnet", "--help"])
    for name in front.HEEDED:
        monkeypatch.delenv(name, raising=False)
    assert front.is_asked_for()
    monkeypatch.setenv("TYPER_USE_RICH", "0")
    assert not front.is_asked_for()
    monkeypatch.delenv("TYPER_USE_RICH")
    monkeypatch.setattr(sys, "argv", ["regnet", "list", "--help"])
    assert not front.is_asked_for()


def test_a_command_seldom_goes_through_its_objects_and_leaves_without() -> None:
    """Importing torch makes a million of them, which stay."""
    code = """
import atexit, gc
from converters.cli import main
main._regnet = lambda: print(gc.get_threshold()) or 0
atexit.register(lambda: print(gc.get_freeze_count() > 1000, flush=True))
main.run()
"""
    command = [sys.executable, "-c", code]
    finished = subprocess.run(command, check=True, capture_output=True, text=True)
    assert finished.stdout == "(100000, 50, 100)\nTrue\n"
