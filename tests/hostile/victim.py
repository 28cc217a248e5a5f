"""The real command, run on files that strangers hand in, and what it must leave as it was."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from converters.checkpoint.sniff import looks_like_safetensors
from converters.cli.app import app
from converters.cli.endings import run_app
from tests.converters.demo import snapshot

if TYPE_CHECKING:
    from collections.abc import Iterator

MESSAGES = Path(__file__).with_name("messages.toml")
"""What each test's commands end with; written anew by `python -m tests.hostile.table --renew`."""


def recorded() -> dict[str, list[str]]:
    """The snapshots: name of a test to its commands' exit statuses and messages."""
    content: dict[str, list[str]] = tomllib.loads(MESSAGES.read_text(encoding="utf-8"))
    return content


def write_recorded(outcomes: dict[str, list[str]]) -> None:
    """Write the snapshots, one test after another, in the catalogue's order."""
    lines = ["# Exit status and message of each command; `python -m tests.hostile.table --renew`."]
    for name, said in sorted(outcomes.items()):
        lines += [
            "",
            f"{name} = [",
            *(f"    {json.dumps(s, ensure_ascii=False)}," for s in said),
            "]",
        ]
    MESSAGES.write_text("\n".join(lines) + "\n", encoding="utf-8")


class Table:
    """A plugin of pytest that keeps what the victims heard and whether the tests passed.

    Attributes:
        renews: Whether the messages on record are ignored.
        files: A folder for copies of the files that were refused, below the name of their test.
        outcomes: Test to exit statuses and messages.
        failed: Tests that failed.
    """

    def __init__(self, *, renews: bool, files: Path) -> None:
        self.renews = renews
        self.files = files
        self.outcomes: dict[str, list[str]] = {}
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Remember a test that failed in any of its phases."""
        if report.failed:
            self.failed.add(report.nodeid.rpartition("::")[2].partition("[")[0])


@dataclass
class Victim:
    """A folder to put files into, and the command that is run there, in this process.

    Attributes:
        folder: The working directory of the commands.
        said: Exit status and message of each command so far.
        copies: A folder that gets the files that were refused, or None.
    """

    folder: Path
    capture: pytest.CaptureFixture[str]
    said: list[str] = field(default_factory=list)
    copies: Path | None = None

    def put(self, content: bytes, name: str = "model.pyth") -> Path:
        (self.folder / name).write_bytes(content)
        return self.folder / name

    def refused(self, status: int, *arguments: str) -> str:
        """Run a command that must refuse; nothing in the folder may change.

        Args:
            status: The exit status it must end with.
            arguments: Of ``regnet``; none is a conversion of ``model.pyth`` into ``out``.
        """
        before = snapshot(self.folder)
        arguments = arguments or ("convert", "model.pyth", "out", "-q")
        ended, out, sentence = self._run(arguments)
        self._copy(self.folder / arguments[1])
        assert ended == status, sentence or out
        assert sentence.count("\n") == 1, sentence
        sentence = sentence[:-1].replace(f"{self.folder}/", "")  # of outputs, the place is named
        assert sentence.isprintable()
        assert "Internal error" not in sentence
        assert snapshot(self.folder) == before
        self.note(f"{status}: {sentence}")
        return sentence

    def broken(self, *arguments: str) -> str:
        """Run a verification that must fail, with exit status 1."""
        return self.refused(1, *arguments)

    def converted(self, name: str = "model.pyth", *options: str) -> Path:
        """Convert a file that must be accepted, without running the network; return the folder."""
        out = f"out{len(self.said)}"
        arguments = ("convert", "--no-verify", "-q", *options, "--", name, out)
        ended, _, sentence = self._run(arguments)
        assert (ended, sentence) == (0, "")
        assert not [*self.folder.glob(".*regnet*")]
        self.note("0: converts")
        return self.folder / out

    def answered(self, *arguments: str) -> Any:
        """Run a command that must succeed, and return its ``--json``."""
        ended, out, sentence = self._run((*arguments, "--json"))
        assert ended == 0, sentence
        return json.loads(out)

    def _copy(self, path: Path) -> None:
        """Keep a file for other tools, under a name that their loaders go by."""
        if self.copies is None or not path.is_file():
            return
        self.copies.mkdir(parents=True, exist_ok=True)
        content = path.read_bytes()
        suffix = "safetensors" if looks_like_safetensors(content) else "bin"
        (self.copies / f"{len(self.said)}.{suffix}").write_bytes(content)

    def note(self, outcome: str) -> None:
        self.said.append(outcome)

    def _run(self, arguments: tuple[str, ...]) -> tuple[int, str, str]:
        self.capture.readouterr()
        with pytest.raises(SystemExit) as ended:
            sys.exit(run_app(app, "regnet", list(arguments)))
        out, sentence = self.capture.readouterr()
        status = ended.value.code
        return status if isinstance(status, int) else 0, out, sentence


def working_in(folder: Path) -> Iterator[Path]:
    """Make a folder the working directory, so that messages name files without their place."""
    before = Path.cwd()
    os.chdir(folder)
    yield folder
    os.chdir(before)
