"""``assert_parity`` in a user's own tests."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converters.errors import InputError
from converters.testing import assert_parity

if TYPE_CHECKING:
    from converters.reports.findings import Findings

ROOT = Path(__file__).parents[3]

USERS_TEST = """
from converters.testing import assert_parity

def test_the_folder_is_what_was_converted():
    assert_parity("out")
"""


def test_a_right_folder_passes_and_its_report_comes_back(
    demo_folder: Path, passing: Findings, tmp_path: Path
) -> None:
    baseline = tmp_path / "b.json"
    baseline.write_text(json.dumps(passing.to_dict()))
    assert assert_parity(demo_folder, baseline=baseline) == passing.report


def test_a_wrong_folder_fails_with_a_table(damaged_folder: Path) -> None:
    with pytest.raises(AssertionError) as caught:
        assert_parity(str(damaged_folder))
    head, *lines = str(caught.value).splitlines()
    assert head == "out: FAIL: 3 of 4 pass, 1 fails, 1 file changed"
    assert any(line.split()[0] == "model.onnx" and "FAIL" in line for line in lines)
    assert str(damaged_folder.parent) not in str(caught.value)


def test_a_right_folder_fails_that_is_worse_than_its_baseline(
    demo_folder: Path, passing: Findings, tmp_path: Path
) -> None:
    record = passing.to_dict()
    record["verdicts"].append(record["verdicts"][-1] | {"artefact": "model.pt2"})
    (tmp_path / "b.json").write_text(json.dumps(record))
    with pytest.raises(AssertionError, match=r"- model\.pt2 of the baseline is gone"):
        assert_parity(demo_folder, baseline=tmp_path / "b.json")


def test_a_missing_folder_is_an_error_and_no_failed_assertion(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        assert_parity(tmp_path / "nothing")


def test_five_lines_are_a_test(damaged_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "test_parity.py").write_text(USERS_TEST)
    (tmp_path / "out").symlink_to(damaged_folder)
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_parity.py"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 1
    assert "1 failed" in finished.stdout
    assert "model.onnx" in finished.stdout


def test_importing_it_imports_no_torch() -> None:
    code = (
        "import sys, converters.testing; print(sorted({'torch', 'onnx', 'numpy'} & {*sys.modules}))"
    )
    finished = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert finished.stdout == "[]\n"
