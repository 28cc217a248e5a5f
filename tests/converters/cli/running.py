"""Runs commands as a user does: in a process of their own, with stdout, stderr and exit status.

Most of a command's time is that of its imports. Where nothing depends on how it starts, its process
is a fork that has them behind it.
"""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from converters.cli import main
from tests.converters.forks import fork

if TYPE_CHECKING:
    from collections.abc import Callable


BIN = Path(sys.executable).parent

_PATIENCE = 120
"""Seconds that a command may take."""

_BLOCK_TORCH = """
import sys
from importlib.metadata import Distribution, PackageNotFoundError

sys.modules["torch"] = None  # importing it fails
from_name = Distribution.from_name

def others(name):
    if name == "torch":
        raise PackageNotFoundError(name)
    return from_name(name)

Distribution.from_name = others
"""


@dataclass(frozen=True)
class Finished:
    """What a command left: exit status, stdout, stderr."""

    status: int
    out: str
    err: str


def run(
    command: str,
    *arguments: str | Path,
    cwd: Path,
    env: dict[str, str] | None = None,
    before: Callable[[], None] | None = None,
) -> Finished:
    """Run a command; the installed program, if anything is to be otherwise when it starts.

    Args:
        command: ``regnet`` or ``convert-pycls``.
        arguments: Its arguments.
        cwd: Where it runs.
        env: Variables to set.
        before: Called in the new process first.
    """
    if env is None and before is None:
        return _run_in_a_fork(command, *arguments, cwd=cwd)
    process = subprocess.run(
        [BIN / command, *arguments],
        cwd=cwd,
        env=_inherited() | (env or {}),
        preexec_fn=before,
        capture_output=True,
        text=True,
        timeout=_PATIENCE,
        check=False,
    )
    return Finished(process.returncode, process.stdout, process.stderr)


def _inherited() -> dict[str, str]:
    own = {"NO_COLOR", "FORCE_COLOR", "COLUMNS"}  # of how the tests are run
    kept = {name: value for name, value in os.environ.items() if name not in own}
    return kept | {"OMP_NUM_THREADS": "1"}


def _run_in_a_fork(command: str, *arguments: str | Path, cwd: Path) -> Finished:
    with TemporaryDirectory() as folder:
        streams = [str(Path(folder, name)) for name in ("out", "err")]
        line = [str(BIN / command), *map(str, arguments)]
        process = fork(_begin, line, str(cwd), _inherited(), streams)
        process.join(_PATIENCE)
        status = process.exitcode
        if status is None:
            process.kill()
            raise TimeoutError(f"{command} was not done within {_PATIENCE} seconds")
        process.close()
        return Finished(status, *(Path(stream).read_text() for stream in streams))


def _begin(line: list[str], cwd: str, env: dict[str, str], streams: list[str]) -> None:
    """What the installed program does, in the fork."""
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for number, stream in enumerate(streams, 1):
        descriptor = os.open(stream, os.O_WRONLY | os.O_CREAT)
        os.dup2(descriptor, number)
        os.close(descriptor)
    sys.argv[:] = line
    (main.run if Path(line[0]).name == "regnet" else main.run_convert)()


def regnet(*arguments: str | Path, cwd: Path, env: dict[str, str] | None = None) -> Finished:
    return run("regnet", *arguments, cwd=cwd, env=env)


def on_a_terminal(
    *arguments: str | Path, cwd: Path, env: dict[str, str] | None = None, first: str | None = None
) -> Finished:
    """Run ``regnet`` with a terminal for its stdout and stderr; both are in ``out``.

    Args:
        arguments: Its arguments.
        cwd: Where it runs.
        env: Variables to set.
        first: Python's statements to be executed before it begins.
    """
    program: list[str | Path] = [BIN / "regnet"]
    if first is not None:
        program = [sys.executable, "-c", f"{first}\nfrom converters.cli import main\nmain.run()"]
    controller, terminal = pty.openpty()
    inherited = {k: v for k, v in os.environ.items() if k != "NO_COLOR"}
    process = subprocess.Popen(
        [*program, *arguments],
        cwd=cwd,
        env=inherited | {"TERM": "xterm", "COLUMNS": "200"} | (env or {}),
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    written = bytearray()
    with suppress(OSError):  # how Linux says that the other end is closed
        while chunk := os.read(controller, 65536):
            written += chunk
    os.close(controller)
    return Finished(process.wait(), written.decode(), "")


def without_torch(folder: Path) -> dict[str, str]:
    """Make variables under which importing torch fails."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_BLOCK_TORCH)
    paths = filter(None, (str(folder), os.environ.get("PYTHONPATH")))
    return {"PYTHONPATH": os.pathsep.join(paths)}


def assert_one_sentence(finished: Finished, status: int) -> str:
    """Check what all errors have in common; return the sentence."""
    sentence = finished.err
    assert finished.status == status, sentence
    assert finished.out == ""
    assert sentence.endswith((".\n", "`.\n"))
    assert sentence.count("\n") == 1, sentence
    assert "Traceback" not in sentence
    assert "Internal error" not in sentence
    assert sentence[:-1].isprintable()
    return sentence[:-1]
