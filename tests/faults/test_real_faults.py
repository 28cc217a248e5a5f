"""Faults that need no shim: a disk that is full, two at once, a pipe that nobody reads."""

from __future__ import annotations

import ctypes
import os
import resource
import shutil
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from converters.jobs.convert import convert
from tests.converters.cli.running import BIN, regnet, run
from tests.converters.demo import CHECKPOINT, snapshot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    State = dict[str, bytes | None]

CONVERT = ("convert", str(CHECKPOINT), "out", "--no-verify", "--format", "onnx", "-q", "--force")
FORMATS = "onnx,onnx-web,onnx-fp16"
EXPORT = ("export", "out", "--no-verify", "--format", FORMATS, "--external-data", "-q")
KB = 1024


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What lies in the place of the output."""
    folder = tmp_path_factory.mktemp("old") / "out"
    convert(CHECKPOINT, folder, dtype="float16", formats=(), verify=False)
    return folder


@pytest.fixture(scope="module")
def new(old: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, ...], State]:
    """What each command makes of it where nothing goes wrong."""
    made: dict[tuple[str, ...], State] = {}
    for arguments in (CONVERT, EXPORT):
        place = tmp_path_factory.mktemp("new")
        shutil.copytree(old, place / "out")
        assert regnet(*arguments, cwd=place).status == 0
        made[arguments] = snapshot(place)
    return made


@pytest.fixture
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A disk of so many kilobytes, in memory."""
    mount = ctypes.CDLL(None, use_errno=True).mount
    size = f"size={request.param}k".encode()
    if mount(b"tmpfs", os.fsencode(tmp_path), b"tmpfs", 0, size):
        pytest.skip("mounting a disk is not allowed here")
    yield tmp_path
    ctypes.CDLL(None).umount2(os.fsencode(tmp_path), 2)  # MNT_DETACH


@pytest.mark.parametrize("disk", [1500, 3500, 5000, 7000], indirect=True)
@pytest.mark.parametrize("arguments", [CONVERT, EXPORT], ids=["convert", "export"])
def test_a_small_disk_keeps_the_old_folder(
    disk: Path, old: Path, new: dict[tuple[str, ...], State], arguments: tuple[str, ...]
) -> None:
    shutil.copytree(old, disk / "out")
    before = snapshot(disk)
    finished = regnet(*arguments, cwd=disk)
    if finished.status:
        assert finished.status == 4, finished.err
        assert finished.err.count("\n") == 1
        assert snapshot(disk) == before
    else:
        assert snapshot(disk) == new[arguments]


def limited(nbytes: int) -> Callable[[], None]:
    """Let no file become larger, with an error instead of a signal."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (nbytes, nbytes))

    return limit


@pytest.mark.parametrize("nbytes", [0, 1, 10 * KB, 900 * KB])
def test_a_limit_on_files_keeps_the_old_folder(old: Path, tmp_path: Path, nbytes: int) -> None:
    shutil.copytree(old, tmp_path / "out")
    before = snapshot(tmp_path)
    finished = run("regnet", *EXPORT, cwd=tmp_path, before=limited(nbytes))
    assert finished.status == 4
    assert "file too large" in finished.err
    assert snapshot(tmp_path) == before


def test_of_two_at_once_one_makes_the_folder_and_the_other_waits_or_follows(
    old: Path, new: dict[tuple[str, ...], State], tmp_path: Path
) -> None:
    shutil.copytree(old, tmp_path / "out")
    both = [
        subprocess.Popen(
            [BIN / "regnet", *CONVERT], cwd=tmp_path, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    said = [program.communicate()[1] for program in both]
    statuses = {program.returncode for program in both}
    assert 0 in statuses
    assert statuses <= {0, 4}
    assert all(not text or "is being made by another process" in text for text in said)
    assert snapshot(tmp_path) == new[CONVERT]


@pytest.mark.parametrize("arguments", [CONVERT, EXPORT], ids=["convert", "export"])
def test_a_pipe_that_nobody_reads_ends_without_a_traceback_and_the_folder_is_whole(
    old: Path,
    new: dict[tuple[str, ...], State],
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    shutil.copytree(old, tmp_path / "out")
    reader, writer = os.pipe()
    os.close(reader)
    words = [word for word in arguments if word != "-q"]
    program = subprocess.run(
        [BIN / "regnet", *words],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    os.close(writer)
    assert program.returncode == 0
    assert all(line.startswith("warning: ") for line in program.stderr.splitlines())
    assert snapshot(tmp_path) == new[arguments]
