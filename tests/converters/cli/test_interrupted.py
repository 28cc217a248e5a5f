"""A conversion that is killed leaves nothing that looks finished, and the next one takes it up."""

from __future__ import annotations

import errno
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.values import Run
from converters.errors import StorageError
from converters.jobs.convert import convert
from converters.progress import Silent
from converters.staging.staged import staged_file, staged_folder, working_folder
from converters.staging.unfinished import partial_name
from converters.weights.weights_file import Follower, WeightsFile
from tests.converters.demo import snapshot
from tests.converters.giants import sparse_checkpoint, wide
from tests.converters.stored import in_pycls_words

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Path(__file__).parents[3]
OPTIONS: dict[str, Any] = {"formats": (), "verify": False, "force": True}
KILLED = """
import sys
from pathlib import Path

from converters.jobs.convert import convert

source, out = map(Path, sys.argv[1:])
print("ready", flush=True)
convert(source, out, formats=(), verify=False, force=True)
"""
WEIGHTS = "model.safetensors"


class Steps(Silent):
    """Remembers the titles of the steps."""

    def __init__(self) -> None:
        self.titles: list[str] = []

    def step(self, title: str, nbytes: int | None = None) -> None:  # noqa: ARG002
        self.titles.append(title)


@pytest.fixture(scope="module")
def large(workspace: Path) -> Path:
    """A checkpoint of a hundred megabytes, and what becomes of it, in ``expected``."""
    path = sparse_checkpoint(workspace / "large.safetensors", wide(2560))
    convert(path, workspace / "expected", **OPTIONS)
    return path


def killed(source: Path, out: Path, happens: Callable[[subprocess.Popen[str]], None]) -> None:
    """Start a conversion and kill it, so that it can do nothing about it."""
    program = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(source), str(out)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=CHECKOUT,
    )
    with program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        happens(program)
        program.send_signal(signal.SIGKILL)


def written_to(path: Path, size: float) -> Callable[[subprocess.Popen[str]], None]:
    """Wait until a file has a size, or is not made any more."""

    def wait(program: subprocess.Popen[str]) -> None:
        while program.poll() is None:
            if path.exists() and path.stat().st_size >= size:
                return
            time.sleep(0.0005)

    return wait


@pytest.mark.parametrize("share", [0.05, 0.5, 0.95])
def test_killed_while_it_writes_it_ends_with_the_same_bytes(large: Path, share: float) -> None:
    out, expected = large.with_name(f"out-{share}"), snapshot(large.with_name("expected"))
    staging = out.with_name(partial_name(out.name))
    size = len(expected[WEIGHTS] or b"")

    killed(large, out, written_to(staging / WEIGHTS, share * size))

    assert not out.exists()
    assert (staging / WEIGHTS).stat().st_size >= share * size
    steps = Steps()
    convert(large, out, **OPTIONS, progress=steps)
    assert steps.titles[0] == "taking up an interrupted conversion"
    assert snapshot(out) == expected
    assert not staging.exists()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_any_moment_the_output_is_the_old_one_or_the_new_one(
    large: Path, seed: int
) -> None:
    out, expected = large.with_name(f"any-{seed}"), snapshot(large.with_name("expected"))
    old: dict[str, bytes | None] = {"config.json": b"old"}
    has_old = bool(seed % 2)
    if has_old:
        out.mkdir()
        (out / "config.json").write_bytes(b"old")
    moment = random.Random(seed).uniform(0, 1.5)  # noqa: S311 -- no secret

    killed(large, out, lambda _: time.sleep(moment))

    found = snapshot(out) if out.exists() else None
    assert found in ([old, expected, None] if has_old else [None, expected])
    convert(large, out, **OPTIONS)
    assert snapshot(out) == expected
    assert not [path for path in out.parent.iterdir() if path.name.startswith(f".{out.name}.")]


def test_killed_between_the_two_renames_the_old_folder_comes_back(tmp_path: Path) -> None:
    aside = tmp_path / (partial_name("out") + "-old")
    aside.mkdir()
    (aside / "config.json").write_text("old")

    with pytest.raises(ZeroDivisionError), staged_folder(tmp_path / "out", force=True):
        raise ZeroDivisionError

    assert snapshot(tmp_path) == {"out": None, "out/config.json": b"old"}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x40
    path.write_bytes(content)


def zero_the_middle(path: Path) -> None:
    """What a power cut leaves of pages that were not on the disk yet."""
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), bytes(4096), path.stat().st_size // 2)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "nothing": lambda _: None,
    "a flipped bit": flip,
    "zeros in the middle": zero_the_middle,
    "a short file": lambda path: os.truncate(path, path.stat().st_size // 3),
    "a long file": lambda path: path.write_bytes(path.read_bytes() + b"more"),
    "an empty file": lambda path: path.write_bytes(b""),
    "another file": lambda path: path.write_bytes(b"\x00" * 5_000_000),
    "a link": lambda path: (path.unlink(), path.symlink_to("/dev/null")),
}


@pytest.fixture(scope="module")
def small(workspace: Path) -> Path:
    """A checkpoint of some megabytes, and what becomes of it, in ``small-expected``."""
    generator = torch.Generator().manual_seed(0)
    state = {
        name: torch.tensor(7)
        if name.endswith("num_batches_tracked")
        else torch.rand(shape, generator=generator)
        for name, shape in in_pycls_words(wide(1024)).items()
    }
    torch.save({"model_state": state}, workspace / "small.pyth")
    convert(workspace / "small.pyth", workspace / "small-expected", **OPTIONS)
    return workspace / "small.pyth"


@pytest.mark.parametrize("damage", DAMAGES)
def test_nothing_that_lies_there_is_trusted(small: Path, tmp_path: Path, damage: str) -> None:
    expected = snapshot(small.with_name("small-expected"))
    staging = tmp_path / partial_name("out")
    (staging / "stray").mkdir(parents=True)
    for name in (WEIGHTS, "golden.safetensors", "model-00001-of-00002.safetensors"):
        (staging / name).write_bytes(expected[WEIGHTS] or b"")
    DAMAGES[damage](staging / WEIGHTS)

    convert(small, tmp_path / "out", **OPTIONS)

    assert snapshot(tmp_path / "out") == expected
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_file_that_has_a_second_name_is_not_written_into(small: Path, tmp_path: Path) -> None:
    staging = tmp_path / partial_name("out")
    staging.mkdir()
    (tmp_path / "precious").write_bytes(b"weights of another folder")
    (staging / WEIGHTS).hardlink_to(tmp_path / "precious")

    convert(small, tmp_path / "out", **OPTIONS)

    assert (tmp_path / "precious").read_bytes() == b"weights of another folder"
    assert snapshot(tmp_path / "out") == snapshot(small.with_name("small-expected"))


def test_what_is_right_is_not_written_again(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    staging = tmp_path / partial_name("out")
    staging.mkdir()
    content = snapshot(small.with_name("small-expected"))[WEIGHTS] or b""
    (staging / WEIGHTS).write_bytes(content[: len(content) // 2])
    written: list[int] = []
    for name in ("copy_file_range", "pwrite"):
        call: Any = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, call=call: written.append(call(*a)) or written[-1])

    convert(small, tmp_path / "out", **OPTIONS)

    assert len(content) / 2 <= sum(written) < len(content) / 2 + (5 << 20)  # a piece, cut in two


@pytest.mark.parametrize("context", [staged_folder, working_folder, staged_file])
def test_of_two_at_once_the_second_is_told_to_wait(tmp_path: Path, context: Any) -> None:
    out = tmp_path / "out"
    with context(out) as first:
        (first / "mine" if first.is_dir() else first).write_text("mine")
        message = rf"^{out} is being made by another process; wait .*\.$"
        with pytest.raises(StorageError, match=message), context(out):
            pytest.fail("the block was entered")
        assert (first / "mine" if first.is_dir() else first).read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["out"] * (context is not working_folder)


def test_another_users_folder_is_not_taken_up(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a folder away")
    (tmp_path / partial_name("out")).mkdir()
    os.chown(tmp_path / partial_name("out"), 65534, -1)

    with pytest.raises(StorageError, match="another user's"), staged_folder(tmp_path / "out"):
        pytest.fail("the block was entered")


def refuses(number: int) -> Callable[..., int]:
    """A kernel that does not copy between these two files."""

    def copy(*_: int) -> int:
        raise OSError(number, os.strerror(number))

    return copy


def halfway(source: int, target: int, count: int, start: int, to: int) -> int:
    """A kernel that copies less than it is asked for, and then no more."""
    if start % 2:
        raise OSError(errno.EIO, "Input/output error")
    return os.pwrite(target, os.pread(source, count // 2 | 1, start), to)


KERNELS: dict[str, Callable[..., int] | None] = {
    errno.errorcode[number]: refuses(number)
    for number in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM)
} | {"none": None, "nothing": lambda *_: 0, "half": halfway}


@pytest.mark.parametrize("kernel", KERNELS)
def test_where_the_kernel_does_not_copy_the_bytes_are_the_same(
    small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kernel: str
) -> None:
    if KERNELS[kernel] is None:
        monkeypatch.delattr(os, "copy_file_range", raising=False)
    else:
        monkeypatch.setattr(os, "copy_file_range", KERNELS[kernel], raising=False)

    convert(small, tmp_path / "out", **OPTIONS)

    assert snapshot(tmp_path / "out") == snapshot(small.with_name("small-expected"))


@pytest.mark.skipif(not hasattr(os, "copy_file_range"), reason="this system has no such call")
def test_the_kernel_copies_where_it_can(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "source").write_bytes(bytes(range(256)) * 10)
    copied: list[int] = []
    copy = os.copy_file_range
    monkeypatch.setattr(os, "copy_file_range", lambda *a: copied.append(a[2]) or copy(*a))

    run = Run(tmp_path / "source", 6, 2000)
    with (
        SourceFile(run.path) as source,
        Follower() as one,
        Follower() as other,
        WeightsFile(tmp_path / "target", one, other) as file,
    ):
        file.copy(source, run, None)
        file.finish()

    assert copied == [2000]
    assert (tmp_path / "target").read_bytes() == run.path.read_bytes()[6:2006]
