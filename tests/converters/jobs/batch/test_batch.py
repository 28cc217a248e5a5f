"""`regnet convert A B C --out-dir DIR`, as a user runs it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from tests.converters.cli.running import BIN, assert_one_sentence, on_a_terminal, regnet
from tests.converters.demo import CHECKPOINT, snapshot
from tests.converters.giants import sparse_checkpoint, wide
from tests.converters.jobs.batch.files import BROKEN, FEW, make_batch
from tests.converters.jobs.batch.running import require_right, run_batch

if TYPE_CHECKING:
    from pathlib import Path

    from tests.converters.jobs.batch.files import Made

GOOD = 2 * len(FEW)


@pytest.fixture(scope="module")
def dozen(workspace: Path) -> list[Made]:
    """A good one of each kind, and a broken one of each."""
    return make_batch(workspace / "in", GOOD + len(BROKEN), broken=len(BROKEN))


def test_one_bad_file_does_not_stop_the_rest_and_a_second_run_skips_what_is_done(
    dozen: list[Made], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    first = run_batch(dozen, out, "--no-verify", "--jobs", "2")
    require_right(dozen, first, out)
    counts = {"converted": GOOD, "bad input": len(BROKEN) - 2, "unsafe": 2}
    assert first.record["counts"] == counts
    before = snapshot(out)

    again = run_batch(dozen, out, "--no-verify", "--jobs", "2")
    require_right(dozen, again, out, "already converted")
    assert snapshot(out) == before


def test_what_verification_fails_is_not_published_and_the_rest_is(
    dozen: list[Made], tmp_path: Path
) -> None:
    good = next(made for made in dozen if not made.status)
    nan = next(made for made in dozen if made.reason == "NaN")

    done = regnet(
        *("convert", good.path, nan.path, "--out-dir", "out", "--format", "onnx"),
        "--allow-nonfinite",
        cwd=tmp_path,
        env={},  # the installed program, for its own processes start as it did
    )

    assert done.status == 1
    assert done.out.splitlines()[0].split() == ["outcome", "checkpoints"]
    words = {tuple(line.split()) for line in done.out.splitlines()[1:]}
    assert words == {("converted", "1"), ("verification", "failed", "1")}
    sentence, summary = done.err.splitlines()
    assert sentence.startswith(f"{nan.path.name} was converted but not published")
    assert summary.startswith("1 of 2 checkpoints were not converted")
    assert [path.name for path in (tmp_path / "out").iterdir()] == [good.path.stem]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("a.pyth", "sub/a.pth", "--out-dir", "out"), "a.pyth and sub/a.pth would both become out"),
        (("a.pyth", "a.pyth", "--out-dir", "out"), "would both become out/a"),
        (("a.pyth", "b.pyth", "c.pyth"), "Several checkpoints need --out-dir"),
        (("a.pyth", "out", "--jobs", "2"), "Several checkpoints need --out-dir"),
        (("a.pyth",), "Missing argument 'out'"),
        (("a.pyth", "--out-dir", "a.pyth"), "a.pyth is not a folder"),
        (("a.pyth", "--out-dir", "out", "--dry-run"), "--dry-run take one checkpoint"),
        (("a.pyth", "--out-dir", "out", "--to", "timm"), "--dry-run take one checkpoint"),
    ],
    ids=[
        *("two of one name", "one twice", "no folder", "jobs without a folder", "no output"),
        *("a file as folder", "dry run", "written back"),
    ],
)
def test_a_batch_that_cannot_be_is_refused_before_it_begins(
    arguments: tuple[str, ...], reason: str, tmp_path: Path
) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a.pyth", "sub/a.pth"):
        (tmp_path / name).symlink_to(CHECKPOINT)
    before = snapshot(tmp_path)
    assert reason in assert_one_sentence(regnet("convert", *arguments, cwd=tmp_path), 2)
    assert snapshot(tmp_path) == before


def test_when_nothing_converts_no_folder_is_left(tmp_path: Path) -> None:
    done = regnet("convert", "a.pyth", "RegNetY-4.0FG", "--out-dir", "deep/out", cwd=tmp_path)
    assert done.status == 2
    missing, similar, _ = done.err.splitlines()
    assert "give the name of a published checkpoint such as RegNetY" in similar
    assert missing == "a.pyth: there is no such file; check the path."
    assert not (tmp_path / "deep" / "out").exists()


def test_ctrl_c_ends_every_process_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    interrupt(tmp_path, "processes")


def interrupt(tmp_path: Path, engine: str) -> None:
    """Press Ctrl-C when two large conversions are being written."""
    for name in ("a", "b"):
        sparse_checkpoint(tmp_path / f"{name}.safetensors", wide(5120, depth=6))
    command = [BIN / "regnet", "convert", "a.safetensors", "b.safetensors", "--out-dir", "out"]
    before = snapshot_of_names(tmp_path)
    with subprocess.Popen(
        [*command, "--jobs", "2", "--no-verify", "--engine", engine],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        while len(list(tmp_path.glob("out/.*/model.safetensors"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.001)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all processes at once
        printed, said = process.communicate(timeout=60)

    assert (process.returncode, printed) == (130, "")
    assert said == (
        "Interrupted after 0 of 2 checkpoints; what was converted is whole, and the same command "
        "goes on from there.\n"
    )
    assert snapshot_of_names(tmp_path) == before
    require_gone(process.pid)


def test_a_terminal_shows_how_far_it_is(dozen: list[Made], tmp_path: Path) -> None:
    finished = on_a_terminal(
        *("convert", *(made.path for made in dozen)),
        *("--out-dir", "out", "--no-verify", "--jobs", "1"),
        cwd=tmp_path,
        first="from converters.cli import console; console._SHOW_AFTER = 0",
    )
    assert finished.status == 3
    # Which of the states the bar draws depends on their time.
    assert re.search(r"\d+ converted, \d failed", finished.out)
    assert re.search(rf"\d+/{len(dozen)}", finished.out)


def snapshot_of_names(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


def require_gone(session: int) -> None:
    """Wait until no process of a session is left; multiprocessing's own tracker ends last."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            os.killpg(session, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    raise AssertionError("a process is left")
