"""What every test of conversion needs."""

from __future__ import annotations

import shutil
import signal
from typing import TYPE_CHECKING

import pytest

from converters.jobs.convert import convert
from tests.converters.demo import CHECKPOINT, labels

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(autouse=True)
def interruptible() -> Iterator[None]:
    """Take Ctrl-C as Python does by default; a background shell has it ignored."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


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
