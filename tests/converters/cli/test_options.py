"""The command line has one vocabulary, and takes what it was called before."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import pytest
from typer.main import get_command

from converters.cli.app import app
from converters.cli.console import Output
from converters.cli.endings import run_app

if TYPE_CHECKING:
    from typer.core import TyperOption

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
SOURCE = {"--from", "--channel-order", "--weights", "--head"}


def options(command: str) -> dict[str, TyperOption]:
    """The options of a command that its help shows, by spelling."""
    shown = (o for o in COMMANDS[command].params if o.param_type_name == "option" and not o.hidden)
    return {spelling: option for option in shown for spelling in option.opts}


def parsed(command: str, *arguments: str) -> dict[str, Any]:
    params: dict[str, Any] = COMMANDS[command].make_context(command, list(arguments)).params
    return params


@pytest.mark.parametrize(
    ("command", "old", "new"),
    [
        ("bench", ["out", "--batch", "3"], ["out", "--batch-size", "3"]),
        ("evaluate", ["out", "val", "--classes", "names"], ["out", "val", "--labels", "names"]),
    ],
)
def test_old_spellings_are_taken(command: str, old: list[str], new: list[str]) -> None:
    assert parsed(command, *old) == parsed(command, *new)


def test_one_option_has_one_default_and_one_help() -> None:
    found = defaultdict(set)
    for command in COMMANDS:
        for spelling, option in options(command).items():
            found[spelling].add((str(option.default), option.help))
    several = {spelling for spelling, said in found.items() if len(said) > 1}
    assert several == {
        "--weights",  # of verify: as they were converted
        "--batch-size",  # of bench: several
        "--threads",
        "--runtime",
        "--labels",  # of evaluate: names of folders
        "--dry-run",  # of push: what would go up
    }


@pytest.mark.parametrize("command", ["convert", "inspect", "compare", "verify"])
def test_whatever_reads_a_checkpoint_takes_the_same_choices(command: str) -> None:
    assert options(command).keys() >= SOURCE


def test_what_writes_artefacts_verifies_unless_told_otherwise() -> None:
    for command, arguments in (("convert", ["a", "b"]), ("export", ["out"])):
        assert parsed(command, *arguments)["verify"]
        assert not parsed(command, *arguments, "--no-verify")["verify"]


def test_runtimes_are_named_like_formats(capsys: pytest.CaptureFixture[str]) -> None:
    runtimes = parsed("bench", "out", "--runtime", "onnx,torch", "--runtime", "pt2")["runtimes"]
    assert runtimes == ["onnx", "torch", "pt2"]
    assert run_app(app, "regnet", ["bench", "out", "--runtime", "onnx,abacus"]) == 2
    assert "--runtime abacus is not known" in capsys.readouterr().err


def test_every_object_has_a_schema(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).record({"schema": 7})
    assert json.loads(capsys.readouterr().out) == {"schema": 7}
    assert run_app(app, "regnet", ["list", "RegNetY-4.0GF", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["schema"] == 1


def test_the_version_and_the_completion_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_app(app, "regnet", ["--version"]) == 0
    assert capsys.readouterr().out.startswith("regnet 0.")
    assert run_app(app, "regnet", ["--show-completion", "bash"]) == 0
    assert "_REGNET_COMPLETE" in capsys.readouterr().out
