"""Folders of networks that transformers does not have are refused by all of its doors.

Its RegNet would take most of them, with nothing missing and nothing unexpected, and compute another
network.
"""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from regnet import RegNetConfig
from regnet.wider import WIDER_DEFAULTS, WIDER_TYPE
from tests.converters.formats.random_folder import random_folder
from tests.frameworks.doors import DOORS, answers
from tests.frameworks.environments import ROOT

if TYPE_CHECKING:
    from pathlib import Path

OPTIMUM = ROOT / ".venv-optimum" / "bin" / "python"
"""With transformers 4.57."""

BY_TYPE = {"AutoConfig", "AutoModel", "AutoModelForImageClassification"}
"""Doors that go by the model type; the others refuse the group widths."""

SMALL: dict[str, Any] = {
    "embedding_size": 8,
    "hidden_sizes": [16, 24, 40],
    "depths": [1, 2, 1],
    "groups_width": 8,
    "num_labels": 10,
}

WIDER: dict[str, dict[str, Any]] = {
    "groups_width": {"groups_width": [8, 4, 40]},
    "stem_sizes": {"stem_sizes": [8, 8]},
    "stem_strides": {"stem_strides": [1]},
    "strides": {"strides": [2, 1, 2]},
    "expansion": {"expansion": 2.0},
    "expansion_of": {"expansion_of": "input"},
    "se_ratio": {"se_ratio": 0.5},
    "se_of": {"se_of": "bottleneck"},
    "se_divisor": {"se_divisor": 4},
    "se_act": {"se_act": "silu"},
    "shortcut": {"shortcut": "avg"},
    "output_act": {"output_act": False},
    "preactivation": {"preactivation": True},
    "norm": {"norm": "group", "norm_group_size": 8},
    "norm_group_size": {"norm_group_size": 8, "norm": "evonorm-s0a"},
    "norm_eps": {"norm_eps": 1e-3},
    "head_size": {"head_size": 40},
    "final_act": {"final_act": True},
    "padding": {"padding": "same"},
}
"""Each field that transformers does not have."""


def folder_of(fields: dict[str, Any], path: Path) -> str:
    return str(random_folder(path, RegNetConfig(**SMALL | fields)).path)


def assert_refused(found: dict[str, str | None]) -> None:
    assert found.keys() == set(DOORS)
    for door, reason in found.items():
        assert reason is not None, f"{door} opens"
        assert (WIDER_TYPE in reason) if door in BY_TYPE else ("list" in reason), reason


def test_every_field_is_asked_for() -> None:
    assert WIDER.keys() == {"groups_width", *WIDER_DEFAULTS}


@pytest.mark.parametrize("field", WIDER)
def test_transformers_beside_ours_refuses_it(field: str, tmp_path: Path) -> None:
    assert_refused(answers(folder_of(WIDER[field], tmp_path)))


def test_what_transformers_has_opens_every_door(tmp_path: Path) -> None:
    assert answers(folder_of({}, tmp_path)) == dict.fromkeys(DOORS)


@pytest.mark.slow
def test_transformers_4_refuses_them_too(tmp_path: Path) -> None:
    if not OPTIMUM.exists():
        pytest.skip("transformers 4 has no environment: make test-frameworks")
    cases = WIDER | {"nothing": {}}
    folders = {folder_of(fields, tmp_path / field): field for field, fields in cases.items()}
    command = [str(OPTIMUM), "-m", "tests.frameworks.doors", *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = {folders[path]: said for path, said in json.loads(done.stdout).items()}

    assert found.pop("nothing") == dict.fromkeys(DOORS)
    assert found.keys() == WIDER.keys()
    for said in found.values():
        assert_refused(said)
