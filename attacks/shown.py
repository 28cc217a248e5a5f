"""What every attack does with its file: the other tool opens it, then ours; nothing is harmed.

The files live in a temporary folder. Code in them would only make a folder called ``ran`` there.
"""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

RAN = Path("ran")
_OURS = "from converters.cli.main import run; run()"


class MakesFolder:
    """Pickles as a call that makes the folder :data:`RAN`: code of the attacker's choice."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(RAN),)


@contextmanager
def temporary_folder() -> Iterator[None]:
    """Work in a folder of its own, without warnings."""
    before = Path.cwd()
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(before)


def fell(tool: str, how: str) -> None:
    """Print that a tool fell for the file."""
    print(f"{tool}: fell, {how}")


def ran_code(tool: str) -> None:
    """Print whether the code in the file ran, and forget it."""
    if RAN.exists():
        RAN.rmdir()
        fell(tool, "it ran the code in the file")
    else:
        print(f"{tool}: held")


def ours(path: str) -> None:
    """Print what a conversion of the file ends with."""
    command = [sys.executable, "-c", _OURS, "convert", path, "out", "-q"]
    run = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    assert not RAN.exists(), "the code in the file ran"  # noqa: S101 -- the point of it all
    print(f"regnet convert: exit status {run.returncode}, {run.stderr.strip()}")
