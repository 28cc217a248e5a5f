"""What GitHub is told: workflows, the action, the hook of pre-commit, forms for issues.

GitHub cannot be run here; test_in_ci.py runs the scripts. Held are the form of each file, and what
it names to what there is.
"""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from converters.errors import DISTRIBUTION
from regnet import __version__
from tests.test_wheel import RELEASING

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parent.parent
OWN = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TO_COPY = sorted((ROOT / "examples" / "ci").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*-*.yml"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
ACTION = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))

OURS = ("./", f"OWNER/{DISTRIBUTION}@v{__version__}")
"""How a workflow of this repository, and one to be copied, name the action."""

MADE_THERE = {"dist/", "dist/*.whl", "reports/", "out", "out/"}
"""What steps name that earlier ones have made."""

FIELDS = {
    "markdown": {"value"},
    "input": {"label"},
    "textarea": {"label"},
    "dropdown": {"label", "options"},
}
"""Kinds of fields that a form of GitHub's may have, and the attributes that each must have."""


def steps_of(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 90
        yield from job["steps"]


@pytest.mark.parametrize("path", [*OWN, *TO_COPY], ids=lambda path: path.name)
def test_a_workflow_is_one_and_pins_what_it_uses(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text("utf-8"))
    assert workflow["name"]
    assert workflow[True]  # what YAML makes of `on`
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps_of(workflow):
        assert len(step.keys() & {"uses", "run"}) == 1
        if step.get("uses") in OURS:
            assert step["with"].keys() <= ACTION["inputs"].keys()
        elif "uses" in step:
            assert re.fullmatch(r"actions/[a-z-]+@v\d+", step["uses"])


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_a_workflow_of_ours_says_that_it_was_not_run(path: Path) -> None:
    assert path.read_text("utf-8").startswith("# Not run by its authors")


def test_the_workflow_on_a_mac_wants_everything_to_be_run() -> None:
    for folder in (".github/workflows", "examples/ci"):
        workflow = yaml.safe_load((ROOT / folder / "core-ml.yml").read_text("utf-8"))
        (job,) = workflow["jobs"].values()
        assert job["runs-on"].startswith("macos")
        (ours,) = (step["with"] for step in job["steps"] if step.get("uses") in OURS)
        assert (ours["strict"], ours["extras"]) == (True, "coreml")


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_what_the_lines_of_a_workflow_run_is_there(path: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    commands, extras = PROJECT["scripts"], PROJECT["optional-dependencies"].keys()
    for step in steps_of(yaml.safe_load(path.read_text("utf-8"))):
        if "run" not in step:
            continue
        command, *words = step["run"].split()
        assert command in {"bash", "make", "python", *commands}
        if command == "make":
            assert set(words) <= targets
        for named in re.findall(r"\[([a-z,]+)\]", step["run"]):
            assert set(named.split(",")) <= extras
        for word in words:
            if "/" in word and word not in MADE_THERE:
                assert (ROOT / word).exists(), word


def test_workflows_test_each_python_that_the_project_is_said_to_run_on() -> None:
    said = set(re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"])))
    for name, job in (("tests", "linux"), ("package", "install")):
        path = ROOT / ".github" / "workflows" / f"{name}.yml"
        matrix = yaml.safe_load(path.read_text("utf-8"))["jobs"][job]["strategy"]["matrix"]
        assert said <= set(matrix["python"])


def test_no_text_of_a_caller_becomes_code_of_the_action() -> None:
    for step in ACTION["runs"]["steps"]:
        assert "${{" not in step.get("run", "")
        assert ("run" in step) == ("shell" in step)  # else GitHub refuses it


def test_the_page_shows_the_inputs_of_the_action() -> None:
    page = (ROOT / "docs" / "ci.md").read_text("utf-8")
    table = page[page.index("## GitHub") : page.index("## pre-commit")]
    rows = re.findall(r"^\| (`[^|]*) \|([^|]*)\|", table, re.MULTILINE)
    shown = {name: value.strip(" `") for names, value in rows for name in names[1:-1].split("`, `")}
    defaults = {name: each["default"] for name, each in ACTION["inputs"].items()}
    assert shown == defaults | {"extra-index-url": "PyTorch's for processors"}


def test_the_action_has_a_use_for_each_input_and_no_other() -> None:
    used = re.findall(r"\$\{\{ inputs\.([\w-]+) \}\}", (ROOT / "action.yml").read_text("utf-8"))
    assert sorted(used) == sorted(ACTION["inputs"])
    assert all(each["description"].endswith(".") for each in ACTION["inputs"].values())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("schema", "paths"),
    [
        ("github-workflows", [*OWN, *TO_COPY]),
        ("github-actions", [ROOT / "action.yml"]),
        ("github-issue-forms", FORMS),
        ("github-issue-config", [ROOT / ".github" / "ISSUE_TEMPLATE" / "config.yml"]),
        ("citation-file-format", [ROOT / "CITATION.cff"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_schemas_of_their_makers_hold(schema: str, paths: list[Path]) -> None:
    """As check-jsonschema brings them along."""
    if not RELEASING.is_file():
        pytest.skip("`make test-all` installs what checks into a place of its own")
    check = RELEASING.with_name("check-jsonschema")
    subprocess.run([check, "--builtin-schema", f"vendor.{schema}", *paths], check=True)


@pytest.mark.slow
def test_the_hook_is_one_to_pre_commit() -> None:
    if not RELEASING.is_file():
        pytest.skip("`make test-all` installs what checks into a place of its own")
    check = [RELEASING.with_name("pre-commit"), "validate-manifest"]
    subprocess.run([*check, ROOT / ".pre-commit-hooks.yaml"], check=True)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_is_one(path: Path) -> None:
    form = yaml.safe_load(path.read_text("utf-8"))
    assert form.keys() == {"name", "description", "labels", "body"}
    ids = [field["id"] for field in form["body"] if field["type"] != "markdown"]
    assert len(set(ids)) == len(ids)
    for field in form["body"]:
        assert FIELDS[field["type"]] <= field["attributes"].keys()
        assert all(isinstance(each, str) for each in field["attributes"].get("options", ()))
