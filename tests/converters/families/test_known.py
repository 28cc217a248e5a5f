"""The one list of frameworks: what comes from it, and that a new one needs nothing else."""

from __future__ import annotations

import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, get_args

import pytest
import torch

from converters.cli import options
from converters.errors import InputError
from converters.families.known import FAMILIES, Known, target_named, written_back
from converters.families.options import SourceOptions
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.weights.inspection import inspected
from tests.converters.families import toy
from tests.converters.families.toy_framework import Net
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from converters.parity.verdict import Verdict

PYPROJECT = Path(__file__).parents[3] / "pyproject.toml"


@pytest.mark.parametrize("name", FAMILIES)
def test_a_row_of_the_list_says_what_the_framework_s_own_module_says(name: str) -> None:
    known = FAMILIES[name]

    assert known.family.keymap.framework == name
    assert known.is_written == (known.family.write is not None)


def test_the_command_line_has_the_frameworks_of_the_list() -> None:
    scripts = set(tomllib.loads(PYPROJECT.read_text("utf-8"))["project"]["scripts"])

    assert scripts == {"regnet", *(f"convert-{name}" for name in FAMILIES)}
    assert get_args(options.Framework) == tuple(FAMILIES)
    assert get_args(options.Target) == written_back()


@pytest.mark.parametrize("name", ["transformers", "caffe"])
def test_what_nothing_is_written_back_for_is_said(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} is not among pycls, timm, .*; choose one"):
        target_named(name)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """What a framework saves that only a row of the list tells of."""
    network = randomise(Net((8, 16, 24), (1, 2), (8, 8), (2, 2), 5))
    torch.save({"net": network.state_dict()}, tmp_path / "net.toy")
    return tmp_path / "net.toy"


@pytest.fixture
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    module = "tests.converters.families.toy"
    row = Known(module, r"body\.0\.0\.main\.0\.0\.weight", is_written=True)
    monkeypatch.setitem(FAMILIES, "toy", row)


def verdict_on(folder: Path, checkpoint: Path) -> Verdict:
    converted = ConvertedFolder(folder)
    return judge_source(converted, Truth(converted, verification_inputs(3, 48)), checkpoint)


@pytest.mark.usefixtures("row")
def test_a_framework_is_one_file_and_a_row_of_the_list(checkpoint: Path, tmp_path: Path) -> None:
    convert(checkpoint, tmp_path / "out", formats=())

    verdict = verdict_on(tmp_path / "out", checkpoint)
    assert (verdict.outcome, verdict.runtime) == ("pass", "tests")
    assert 0 < verdict.worst("rms_ratio") < 4

    write_back(tmp_path / "out", tmp_path / "back.toy", "toy")
    stored = torch.load(checkpoint, weights_only=True)["net"]
    back = torch.load(tmp_path / "back.toy", weights_only=True)
    assert back.keys() == stored.keys()
    assert all(torch.equal(back[name], stored[name]) for name in stored)


@pytest.mark.usefixtures("row")
def test_its_keymap_is_proven_by_its_own_network(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = dict(toy.TOY.rows)
    rows["reduce.norm"], rows["grouped.norm"] = rows["grouped.norm"], rows["reduce.norm"]
    wrong = replace(toy.FAMILY, keymap=replace(toy.TOY, rows=rows))
    monkeypatch.setattr(toy, "FAMILY", wrong)
    convert(checkpoint, tmp_path / "out", formats=(), verify=False)

    assert verdict_on(tmp_path / "out", checkpoint).outcome == "FAIL"


def test_without_the_row_nobody_knows_it(checkpoint: Path) -> None:
    wanted = pytest.raises(InputError, match=r"is not a RegNet of a known framework")
    with wanted, inspected(checkpoint, SourceOptions()):
        pass
