"""The plugin of pytest, as its entry point brings it into users' own runs."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from converters.errors import DISTRIBUTION
from regnet import __version__

if TYPE_CHECKING:
    from collections.abc import Callable

    Run = Callable[..., pytest.RunResult]

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[3]

UNRELATED = """
import sys

def test_nothing_of_weight_is_imported(pytestconfig):
    assert pytestconfig.pluginmanager.has_plugin("regnet")
    own = {name for name in sys.modules if name.split(".")[0] in {"converters", "regnet"}}
    assert own == {"converters", "converters.testing", "converters.testing.plugin"}
    assert not {"numpy", "onnx", "torch", "typer"} & sys.modules.keys()
"""


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run pytest where the project is installed as `pyproject.toml` says today."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    installed = pytester.mkdir("installed") / "regnet_converters_of_the_test.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text(f"Name: {DISTRIBUTION}\nVersion: {__version__}\n")
    points = "".join(
        f"{name} = {place}\n" for name, place in project["entry-points"]["pytest11"].items()
    )
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{points}")
    monkeypatch.setenv("PYTHONPATH", f"{installed.parent}:{ROOT}")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    pytester.makeini("[pytest]")  # not this project's own settings
    return lambda *arguments: pytester.runpytest_subprocess("-p", "no:cacheprovider", *arguments)


def test_each_verdict_is_a_test_and_fails_with_its_sentence(
    run: Run, pytester: pytest.Pytester, damaged_folder: Path
) -> None:
    pytester.makepyfile(test_own="def test_own():\n    pass\n")
    shutil.copytree(damaged_folder, pytester.path / "wrong")
    (pytester.path / "wrong" / "other.ptl").touch()  # of which nothing can be said
    result = run("-rs", "-v", "--regnet-folder=wrong", "--regnet-folder", "wrong")
    result.assert_outcomes(passed=1 + 3, failed=2, skipped=1)
    result.stdout.fnmatch_lines(
        [
            "*collected 7 items",
            "test_own.py::test_own PASSED*",
            "wrong::recorded_files FAILED*",
            "wrong::verdict[[]golden.safetensors] PASSED*",
            "wrong::verdict[[]model.onnx] FAILED*",
            "wrong::not_checked SKIPPED (other.ptl is of no format*",
            "*_ recorded_files _*",
            "model.onnx was changed after it was written",
            "*_ verdict[[]model.onnx] _*",
            "model.onnx, *: RMS error of * is * times honest float32's own, limit 4",
            "SKIPPED [[]1] wrong: other.ptl is of no format*",
        ]
    )
    assert "plugin.py" not in result.stdout.str()


def test_other_folders_are_errors_of_one_sentence(run: Run, pytester: pytest.Pytester) -> None:
    pytester.mkdir("empty")
    result = run("--regnet-folder", "empty")
    result.assert_outcomes(errors=1)
    assert "Traceback" not in result.stdout.str()
    result.stdout.fnmatch_lines(["*ERROR collecting empty*", "*empty*config.json*"])


def test_who_does_not_ask_gets_nothing_imported(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(UNRELATED)
    run().assert_outcomes(passed=1)
