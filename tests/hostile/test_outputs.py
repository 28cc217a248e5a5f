"""45 to 51: outputs that are in the way, disks that are full, inputs that change, odd paths."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from collections import namedtuple
from typing import TYPE_CHECKING, NoReturn

import pytest

from converters.staging.staged import staged_folder
from tests.converters.cli.running import assert_one_sentence, regnet, run
from tests.converters.demo import snapshot

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.victim import Victim

FORCED = ("convert", "model.pyth", "out", "-q", "--force")


@pytest.fixture(autouse=True)
def _model(victim: Victim, saved: Path) -> None:
    shutil.copy(saved, victim.folder / "model.pyth")


def keep(victim: Victim) -> None:
    """Make an output that must stay as it is."""
    (victim.folder / "out").mkdir()
    (victim.folder / "out" / "config.json").write_text("mine")


def test_45_an_output_that_is_taken_a_file_or_a_link(victim: Victim) -> None:
    keep(victim)
    (victim.folder / "file").write_text("mine")
    (victim.folder / "link").symlink_to("out")
    (victim.folder / "dangling").symlink_to("nowhere")
    victim.refused(2)
    victim.refused(2, "convert", "model.pyth", "file", "--force", "-q")
    victim.refused(2, "convert", "model.pyth", "dangling", "--force", "-q")
    victim.refused(4, "convert", "model.pyth", "file/out", "-q")
    victim.refused(2, "convert", "model.pyth", ".", "--force", "-q")


def _limit_file_size() -> None:
    """Let writing fail as on a full disk, with an error instead of a signal."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


def test_46_a_disk_that_is_full_before_or_while_it_is_written(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(victim)
    before = snapshot(victim.folder)
    finished = run("regnet", *FORCED, cwd=victim.folder, before=_limit_file_size)
    victim.note("4: " + assert_one_sentence(finished, 4).replace(f"{victim.folder}/", ""))
    assert snapshot(victim.folder) == before
    usage = namedtuple("usage", "free")  # noqa: PYI024 -- stands for shutil's own
    monkeypatch.setattr("converters.staging.staged.shutil.disk_usage", lambda _: usage(50_000))
    victim.refused(4, *FORCED)


def test_47_ctrl_c_while_the_weights_are_written(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(victim)

    def interrupt(*_: object, **__: object) -> NoReturn:
        raise KeyboardInterrupt

    monkeypatch.setattr("converters.jobs.conversion.write_weights", interrupt)
    victim.refused(130, *FORCED)


def test_48_an_input_that_changes_while_it_is_read(
    victim: Victim, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = victim.folder / "model.pyth"
    content, stamp = path.read_bytes(), path.stat().st_mtime_ns

    def meddle(*_: object) -> None:
        os.truncate(path, 50_000)

    monkeypatch.setattr("converters.jobs.conversion.require_space", meddle)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.hostile.victim.snapshot", lambda _: None)  # it is we who change it
        victim.refused(4)
    path.write_bytes(content)
    os.utime(path, ns=(stamp, stamp))
    assert [p.name for p in victim.folder.iterdir()] == ["model.pyth"]


def test_49_two_conversions_into_one_output(victim: Victim) -> None:
    with staged_folder(victim.folder / "out") as staging:
        victim.refused(4)
        (staging / "whole").touch()
    assert [*snapshot(victim.folder / "out")] == ["whole"]


def test_50_paths_with_spaces_dashes_bytes_and_length(victim: Victim, saved: Path) -> None:
    expected = snapshot(victim.converted())["model.safetensors"]
    for name in ("two words", "-leading", "ünïcödé", "'quoted\"", "x" * 200, os.fsdecode(b"\xff")):
        (victim.folder / name).mkdir()
        shutil.copy(saved, victim.folder / name / "m")
        finished = regnet(
            *("convert", "--no-verify", "-q", "--", f"{name}/m", f"{name}/out"), cwd=victim.folder
        )
        assert (finished.status, finished.err) == (0, "")
        assert snapshot(victim.folder / name / "out")["model.safetensors"] == expected


def test_51_the_links_of_the_hub_s_cache(victim: Victim, proven: Path) -> None:
    blobs, folder = victim.folder / "blobs", victim.folder / "snapshots" / "4d7a21"
    folder.mkdir(parents=True)
    blobs.mkdir()
    for name in ("model.safetensors", "config.json"):
        shutil.copy(proven / name, blobs / f"0123-{name}")
        (folder / name).symlink_to(f"../../blobs/0123-{name}")
    out = victim.converted("snapshots/4d7a21")
    assert (out / "model.safetensors").read_bytes() == (proven / "model.safetensors").read_bytes()
