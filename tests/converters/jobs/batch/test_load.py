"""A thousand checkpoints in one batch, one in twenty of them broken: `make load`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.converters.jobs.batch.files import MANY, Made, make_batch
from tests.converters.jobs.batch.running import require_right, run_batch

if TYPE_CHECKING:
    from pathlib import Path

COUNT, BROKEN = 1000, 50
VERIFIED = 20

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture(scope="module")
def thousand(workspace: Path) -> list[Made]:
    return make_batch(workspace / "in", COUNT, frameworks=MANY, broken=BROKEN)


@pytest.mark.parametrize("engine", ["processes", "ray"])
def test_a_thousand_checkpoints_have_the_outcomes_they_must_have(
    engine: str, thousand: list[Made], workspace: Path
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    out = workspace / engine
    ran = run_batch(thousand, out, "--engine", engine, "--jobs", "2", "--no-verify")
    require_right(thousand, ran, out)
    grown = {folders: size for folders, size in ran.resident.items() if folders >= COUNT // 10}
    assert max(grown.values()) - min(grown.values()) < 16
    again = run_batch(thousand, out, "--engine", engine, "--jobs", "2", "--no-verify")
    require_right(thousand, again, out, "already converted")


def test_some_of_them_are_verified(thousand: list[Made], workspace: Path) -> None:
    some = thousand[:VERIFIED]
    ran = run_batch(some, workspace / "verified", "--jobs", "2")
    require_right(some, ran, workspace / "verified")
