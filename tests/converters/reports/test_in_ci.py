"""The action of GitHub and the hook of pre-commit, run as those run them."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import pytest
import yaml

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.reports.findings import Findings

ROOT = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
(HOOK,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))

GITHUBS_BASH = ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail")
"""What GitHub makes of `shell: bash`."""


class Job:
    """A job of GitHub's that uses the action: its folders, its variables, outputs of its steps."""

    def __init__(self, workspace: Path, **inputs: str) -> None:
        self.workspace = workspace
        self.temporary = workspace / "temp folder"
        self.temporary.mkdir()
        self.summary = self.temporary / "step_summary"
        self.summary.touch()  # as GitHub does
        self.outputs = {"python.python-path": sys.executable, "install.regnet": str(BIN / "regnet")}
        defaults = {name: each["default"] for name, each in ACTION["inputs"].items()}
        self.inputs = defaults | {name.replace("_", "-"): text for name, text in inputs.items()}

    def run(self, step: dict[str, Any]) -> subprocess.CompletedProcess[str]:
        """Run a step that has a script, and take up what it gives."""
        given = self.temporary / "output"
        given.write_text("")  # each step has its own
        own = {
            "RUNNER_TEMP": str(self.temporary),
            "GITHUB_ACTION_PATH": str(ROOT),
            "GITHUB_OUTPUT": str(given),
            "GITHUB_STEP_SUMMARY": str(self.summary),
            "OMP_NUM_THREADS": "1",
        }
        named = {name: self._filled(text) for name, text in step["env"].items()}
        script = self.temporary / "script.sh"
        script.write_text(step["run"])
        finished = subprocess.run(
            [*GITHUBS_BASH, script],
            cwd=self.workspace,
            env=os.environ | own | named,
            capture_output=True,
            text=True,
            check=False,
        )
        for line in given.read_text().splitlines():
            name, _, value = line.partition("=")
            self.outputs[f"{step['id']}.{name}"] = value
        return finished

    def _filled(self, text: str) -> str:
        text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda m: self.inputs[m[1]], text)
        return re.sub(
            r"\$\{\{ steps\.(\w+)\.outputs\.([\w-]+) \}\}",
            lambda m: self.outputs[f"{m[1]}.{m[2]}"],
            text,
        )


def steps(*names: str) -> Iterable[dict[str, Any]]:
    return [step for step in ACTION["runs"]["steps"] if step.get("name") in names]


def verified(job: Job) -> subprocess.CompletedProcess[str]:
    (step,) = steps("Verify the folder")
    return job.run(step)


def test_the_action_passes_a_right_folder_and_writes_what_was_asked_for(
    demo_folder: Path, passing: Findings, tmp_path: Path
) -> None:
    (tmp_path / "a folder").symlink_to(demo_folder)
    (tmp_path / "baseline.json").write_text(json.dumps(passing.to_dict()))
    job = Job(
        tmp_path,
        folder="a folder",
        strict="true",
        baseline="baseline.json",
        junit="reports/junit.xml",
        html="reports/index.html",
    )
    finished = verified(job)
    assert finished.returncode == 0, finished.stderr
    assert "4 of 4 pass" in finished.stdout
    assert "4 of 4 pass" in job.summary.read_text()
    suite = ET.parse(tmp_path / "reports" / "junit.xml").getroot()  # noqa: S314 -- our own
    assert suite.get("failures") == "0"
    assert any(case.get("name") == "baseline" for case in suite.iter("testcase"))
    assert (tmp_path / "reports" / "index.html").is_file()


def test_the_action_fails_on_a_drift_and_its_summary_says_where(
    damaged_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").symlink_to(damaged_folder)
    job = Job(tmp_path)
    finished = verified(job)
    assert finished.returncode == 1
    assert "model.onnx" in finished.stderr
    assert "FAIL: 3 of 4 pass, 1 fails, 1 file changed" in job.summary.read_text()


def test_the_action_takes_no_word_for_strict_that_it_does_not_know(tmp_path: Path) -> None:
    finished = verified(Job(tmp_path, strict="yes"))
    assert finished.returncode == 2
    assert finished.stdout == "::error::strict is true or false, not yes.\n"


@pytest.mark.slow
def test_the_action_installs_itself_with_an_extra_and_verifies(
    demo_folder: Path, tmp_path: Path
) -> None:
    """From the index of pip what it wants from the index that is set up, so no other is named."""
    (tmp_path / "out").symlink_to(demo_folder)
    job = Job(tmp_path, extras="keras", extra_index_url="")
    for step in steps("Install", "Verify the folder"):
        finished = job.run(step)
        assert finished.returncode == 0, finished.stderr
    assert job.outputs["install.regnet"].startswith(str(job.temporary))
    assert "4 of 4 pass" in job.summary.read_text()
    installed = [Path(job.outputs["install.regnet"]).with_name("python"), "-c", "import h5py"]
    subprocess.run(installed, check=True)
    shutil.rmtree(job.temporary)  # a gigabyte, which pytest would keep for three runs


def hook(folder: Path) -> subprocess.CompletedProcess[str]:
    """What pre-commit runs, in an environment whose programs are found first."""
    assert HOOK["language"] == "python"
    assert not HOOK["pass_filenames"]
    return subprocess.run(
        [*shlex.split(HOOK["entry"]), *HOOK["args"]],
        cwd=folder,
        env=os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_the_hook_fails_on_a_drift(damaged_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(damaged_folder)
    finished = hook(tmp_path)
    assert finished.returncode == 1
    assert "out is not to be trusted" in finished.stderr


@pytest.mark.slow
def test_the_hook_passes_a_right_folder(demo_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(demo_folder)
    finished = hook(tmp_path)
    assert finished.returncode == 0, finished.stderr
