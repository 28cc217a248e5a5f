"""What the engine of Ray does beyond what a thousand checkpoints show; `make load` installs Ray."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from converters.errors import StorageError
from converters.jobs.batch.ray_cluster import RayCluster
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import CHECKPOINT
from tests.converters.jobs.batch.test_batch import interrupt

if TYPE_CHECKING:
    from pathlib import Path

DOOMED = """
import os
import sys
from pathlib import Path

from converters.jobs.batch import ray_cluster
from converters.jobs.batch.engine import run_batch
from converters.jobs.batch.engine import perform
from converters.jobs.batch.job import Job
from converters.jobs.conversion import ConvertOptions

options = ConvertOptions(formats=(), verify=False)
jobs = [Job(name, Path(sys.argv[1]), Path(name), options) for name in ("first", "doomed", "last")]
ray_cluster.perform = lambda job: os._exit(1) if job.name == "doomed" else perform(job)
for outcome in list(run_batch(jobs, ray_cluster.RayCluster(1))):
    print(outcome.folder, outcome.result, outcome.status, outcome.error)
"""


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)
    with pytest.raises(StorageError, match=r"--engine ray runs on it.*regnet-converters\[ray\]"):
        RayCluster(1)


@pytest.mark.slow
def test_a_worker_that_dies_costs_its_own_job_alone(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    command = [sys.executable, "-c", DOOMED, CHECKPOINT]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    first, doomed, last = done.stdout.splitlines()
    assert first == "first converted 0 None"
    assert last == "last converted 0 None"
    assert doomed.startswith(f"doomed failed 4 {CHECKPOINT.name}: the process that converted it")


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_an_error_of_the_environment(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    arguments = ("convert", CHECKPOINT, "--out-dir", "out", "--engine", "ray")
    done = regnet(*arguments, cwd=tmp_path, env={"RAY_ADDRESS": "auto"})
    assert "RAY_ADDRESS" in assert_one_sentence(done, 4)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_ctrl_c_ends_every_process_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    interrupt(tmp_path, "ray")
