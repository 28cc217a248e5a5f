"""What every test of conversion needs."""

from __future__ import annotations

import shutil
import signal
import subprocess
from types import SimpleNamespace
from typing import TYPE_CHECKING

import pytest

from converters.jobs.convert import convert
from tests.converters.demo import CHECKPOINT, labels
from tests.converters.forks import ForkedProgram

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Take Ctrl-C as Python does by default; a background shell has it ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@pytest.fixture(autouse=True, scope="session")
def quickly_started() -> Iterator[None]:
    """Let confined programs be forks; how they start is proven in `test_confined`."""
    quick = SimpleNamespace(Popen=ForkedProgram, PIPE=subprocess.PIPE, DEVNULL=subprocess.DEVNULL)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("converters.formats.confined.program.subprocess", quick)
        yield


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder for large files, emptied when the module's tests are done."""
    folder = tmp_path_factory.mktemp("workspace")
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled checkpoint, converted; tests copy it before they change anything."""
    out = tmp_path_factory.mktemp("demo") / "out"
    convert(CHECKPOINT, out, labels=labels())
    return out


@pytest.fixture
def folder(demo_folder: Path, tmp_path: Path) -> Path:
    """A copy of the converted folder, of the test's own."""
    return shutil.copytree(demo_folder, tmp_path / "moved")
