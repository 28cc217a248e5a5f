"""The commands, each imported when it is asked for."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption
from typer.main import get_command

from converters.cli.front import ABOUT, COMMANDS, VERSION
from regnet import __version__
from regnet.files.late import imported

_OLD_SPELLINGS = {
    "evaluate": {"classes": "labels"},
    "bench": {"batch": "batch-size"},
}
"""Of options, by command: what they were called before, and what they are called."""


class _Command(TyperCommand):
    """A command with ``--debug``, which `endings.run_app` heeds and no command has to know."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        debug = TyperOption(
            param_decls=["--debug"],
            is_flag=True,
            default=False,
            expose_value=False,
            help="Show tracebacks.",
        )
        settings["params"] = [*(settings.get("params") or ()), debug]
        super().__init__(*args, **settings)


def _settings(name: str) -> dict[str, Any]:
    """How a command is parsed: options by their old spellings as well, which no help shows."""
    old = _OLD_SPELLINGS.get(name)
    return {"token_normalize_func": lambda word: old.get(word, word)} if old else {}


@cache
def alone(name: str) -> typer.Typer:
    """A command as a program of its own."""
    program = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command = imported(f"converters.cli.{name}:{name}_command")
    program.command(name, cls=_Command, context_settings=_settings(name))(command)
    return program


@cache
def _of_group(name: str) -> Any:
    return get_command(alone(name))


class _Commands(Mapping[str, Any]):
    """All commands by name."""

    def __getitem__(self, name: str) -> Any:
        if name not in COMMANDS:
            raise KeyError(name)
        return _of_group(name)

    def __iter__(self) -> Iterator[str]:
        return iter(COMMANDS)

    def __len__(self) -> int:
        return len(COMMANDS)


class _Group(TyperGroup):
    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands: Any = _Commands()

    def list_commands(self, ctx: Any) -> list[str]:  # noqa: ARG002 -- click's signature
        return list(COMMANDS)


app = typer.Typer(
    name="regnet",
    cls=_Group,
    help=ABOUT,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"regnet {__version__}\n")
        raise typer.Exit


@app.callback()
def _regnet(
    *,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help=VERSION),
    ] = False,
) -> None: ...
