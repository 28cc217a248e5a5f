"""What the engine of processes does when one dies, and what counts as done already."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.jobs.batch import processes
from converters.jobs.batch.engine import perform, run_batch
from converters.jobs.batch.job import Job, Outcome
from converters.jobs.batch.processes import Processes
from converters.jobs.conversion import ConvertOptions
from tests.converters.demo import CHECKPOINT, labels, sample_images

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OPTIONS = ConvertOptions(formats=("onnx",), verify=False)


def job(out: Path, path: Path = CHECKPOINT, **changes: Any) -> Job:
    return Job(path.name, path, out, replace(OPTIONS, **changes))


class Deadly(Processes):
    """Kills the process that was given a job, if its folder is called so."""

    def start(self, job: Job) -> None:
        super().start(job)
        if job.out.name == "doomed":
            (worker,) = self._busy.values()
            worker.process.kill()


def test_a_process_that_is_killed_costs_its_own_job_alone(tmp_path: Path) -> None:
    jobs = [job(tmp_path / name) for name in ("first", "doomed", "last")]
    outcomes = {outcome.folder: outcome for outcome in run_batch(jobs, Deadly(1))}
    assert [outcomes[name].result for name in ("first", "last")] == ["converted"] * 2
    assert outcomes["doomed"] == Outcome(
        CHECKPOINT.name,
        "doomed",
        "failed",
        4,
        f"{CHECKPOINT.name}: the process that converted it was lost (killed by SIGKILL), often for "
        "want of memory; run the command again, with fewer --jobs.",
    )


def test_processes_give_way_to_new_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "JOBS_PER_PROCESS", 1)
    engine = Processes(1)
    for outcome in run_batch([job(tmp_path / "one"), job(tmp_path / "two")], engine):
        assert outcome.result == "converted"
        assert not engine._idle


def test_a_closed_batch_interrupts_what_runs(tmp_path: Path) -> None:
    engine = Processes(2)
    running = run_batch([job(tmp_path / name) for name in "abc"], engine)
    next(running)
    (busy,) = engine._busy.values()
    running.close()
    assert not busy.process.is_alive()
    assert {path.name for path in tmp_path.iterdir()} <= {"a", "b", "c"}


@pytest.fixture(scope="module")
def converted(workspace: Path) -> Path:
    """The bundled checkpoint, converted as by :data:`OPTIONS`."""
    assert perform(job(workspace / "done")).result == "converted"
    return workspace / "done"


@pytest.fixture
def done(converted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted, tmp_path / "done")


def require_new(new: Job) -> None:
    """Check that a job is neither skipped nor done over what is there, but with ``--force``."""
    assert "exists already" in str(perform(new).error)
    forced = replace(new, options=replace(new.options, force=True))
    assert (perform(forced).result, perform(forced).result) == ("converted", "already converted")


@pytest.mark.parametrize(
    "changes",
    [
        {"formats": ("onnx", "torchscript")},
        {"share_weights": True},
        {"dtype": "float16"},
        {"labels": labels()},
        {"max_shard_size": 1_000_000},
        {"allow_nonfinite": True},
        {"channel_order": "rgb"},
    ],
    ids=" ".join,
)
def test_another_option_is_another_conversion(changes: dict[str, Any], done: Path) -> None:
    assert perform(job(done)).result == "already converted"
    require_new(job(done, **changes))


def test_other_bytes_are_another_conversion(done: Path, tmp_path: Path) -> None:
    path = tmp_path / CHECKPOINT.name
    torch.save(torch.load(CHECKPOINT, weights_only=False), path)  # in the container of today
    require_new(job(done, path))


def test_what_was_not_verified_does_not_do_for_a_batch_that_verifies(done: Path) -> None:
    assert "exists already" in str(perform(job(done, verify=True)).error)


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _forge(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"source": "another"}))


DAMAGES: dict[str, Callable[[Path], object]] = {
    "a changed artefact": lambda out: _append(out / "model.onnx"),
    "no configuration": lambda out: (out / "config.json").unlink(),
    "no preprocessing": lambda out: (out / "preprocessor_config.json").unlink(),
    "a record without a source": lambda out: _forge(out / "conversion.json"),
    "a record that is none": lambda out: (out / "conversion.json").write_text("[1]"),
    "no record": lambda out: (out / "conversion.json").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_folder_that_was_changed_is_not_skipped(damage: str, done: Path) -> None:
    DAMAGES[damage](done)
    require_new(job(done))


def test_other_images_to_calibrate_on_are_another_conversion(tmp_path: Path) -> None:
    images = [path for path, _ in sample_images(tmp_path / "images", 3)]
    first = job(tmp_path / "out", formats=("onnx-int8",), calibration_images=images[:2])
    assert perform(first).error is None
    assert perform(first).result == "already converted"
    other = job(tmp_path / "out", formats=("onnx-int8",), calibration_images=images[1:])
    assert "exists already" in str(perform(other).error)


def test_what_was_verified_does_for_a_batch_without_verification(
    demo_folder: Path, tmp_path: Path
) -> None:
    out = shutil.copytree(demo_folder, tmp_path / "out")
    everything = ConvertOptions(labels=labels(), verify=False)
    assert perform(Job("demo", CHECKPOINT, out, everything)).result == "already converted"


def test_a_bug_is_the_outcome_of_one_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.jobs.conversion.run_conversion", lambda *_: {}["missing"])
    outcome = perform(job(tmp_path / "out"))
    assert outcome.status == 4
    assert "internal error: KeyError: 'missing'; please report" in str(outcome.error)
