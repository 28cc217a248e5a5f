"""What the documentation and the workflow show is what there is."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path

import yaml

from converters import reports
from tests.converters.reports.schema_check import faults

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "reports.md").read_text("utf-8")
WORKFLOW = (ROOT / "examples" / "ci" / "regnet-verify.yml").read_text("utf-8")
ON_A_MAC = (ROOT / "examples" / "ci" / "core-ml.yml").read_text("utf-8")

FORMS = {"--junit", "--markdown", "--html"}


def test_every_key_of_the_json_example_is_described() -> None:
    example = re.search(r"```json\n(.*?)```", PAGE, re.DOTALL)
    assert example
    schema = json.loads(files(reports).joinpath("report.schema.json").read_text("utf-8"))
    found = faults(json.loads(example[1]), schema, schema)
    assert [fault for fault in found if " lacks " not in fault] == []


def test_the_pytest_example_calls_what_there_is() -> None:
    example = re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert example
    names: dict[str, object] = {}
    exec(example[1], names)  # noqa: S102 -- our own page
    assert callable(names["test_the_folder_is_what_was_converted"])


def test_the_workflow_on_a_mac_wants_everything_to_be_run() -> None:
    (job,) = yaml.safe_load(ON_A_MAC)["jobs"].values()
    assert job["runs-on"].startswith("macos")
    assert [step["run"] for step in job["steps"] if "regnet" in step.get("run", "")] == [
        'regnet verify out/ --strict --markdown "$GITHUB_STEP_SUMMARY"\n'
    ]


def test_the_workflow_is_valid_and_pins_its_actions() -> None:
    (job,) = yaml.safe_load(WORKFLOW)["jobs"].values()
    actions = [step["uses"] for step in job["steps"] if "uses" in step]
    assert actions
    assert all(re.fullmatch(r"actions/[a-z-]+@v\d+", action) for action in actions)
    (command,) = (step["run"] for step in job["steps"] if "regnet" in step.get("run", ""))
    assert command.startswith("regnet verify out/ ")
    assert set(re.findall(r"--[a-z]+", command)) == FORMS
    assert '"$GITHUB_STEP_SUMMARY"' in command
