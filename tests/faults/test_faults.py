"""Whatever system call goes wrong, results are whole and the next run takes up what is left."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.faults.shim import COMPILER, FAULTS

pytestmark = pytest.mark.skipif(
    COMPILER is None or sys.platform != "linux", reason="needs a C compiler and Linux"
)

CHECKOUT = Path(__file__).parents[2]
OPERATIONS = {
    *("convert", "convert --force", "export", "--to pycls", "--to timm"),
    *("fetch", "fetch (Hub)", "push"),
}

Outcomes = list[dict[str, Any]]


def injected(folder: Path, *options: str) -> Outcomes:
    """Inject faults in a program of their own, which loads the shim."""
    command = [sys.executable, "-m", "tests.faults.table", "--json", str(folder / "json"), *options]
    run = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert run.returncode in {0, 1}, run.stderr
    outcomes: Outcomes = json.loads((folder / "json").read_text())
    assert run.returncode == any(outcome["wrong"] for outcome in outcomes)
    return outcomes


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """One fault in twenty."""
    return injected(tmp_path_factory.mktemp("faults"), "--one-in", "20")


def not_survived(outcomes: Outcomes) -> Outcomes:
    return [outcome for outcome in outcomes if outcome["wrong"] or outcome["state"] == "torn"]


def test_faults_tear_nothing_and_leave_nothing_that_is_not_taken_up(sample: Outcomes) -> None:
    assert not not_survived(sample)


def test_a_sample_has_every_operation_and_finds_old_results_and_new_ones(sample: Outcomes) -> None:
    assert len(sample) >= 50
    assert {outcome["operation"] for outcome in sample} == OPERATIONS
    assert {outcome["state"] for outcome in sample} == {"old", "new"}


def test_what_is_written_in_place_is_found_torn(tmp_path: Path) -> None:
    torn = not_survived(injected(tmp_path, "--control"))
    assert {"kill -9", "Ctrl-C", "disk full (ENOSPC)"} <= {outcome["fault"] for outcome in torn}
    assert all("torn" in outcome["wrong"] for outcome in torn)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_hundreds_of_faults_tear_nothing(tmp_path: Path) -> None:
    outcomes = injected(tmp_path, "--each", "2")
    assert not not_survived(outcomes)
    assert len(outcomes) >= 500
    assert {outcome["fault"] for outcome in outcomes} == {fault.name for fault in FAULTS}
