"""Folders laid out as DeepSpeed does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from converters.checkpoint import open_any
from converters.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

STATES = "mp_rank_00_model_states.pt"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run whose last step holds a whole network."""
    step = tmp_path / "run" / "global_step10"
    step.mkdir(parents=True)
    (tmp_path / "run" / "latest").write_text("global_step10\n")
    torch.save({"module": {"weight": torch.ones(3)}, "ds_version": "0.14.0"}, step / STATES)
    (step / "bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(b"not opened")
    return tmp_path / "run"


def test_the_file_that_holds_the_whole_network_is_read(run: Path) -> None:
    for folder in (run, run / "global_step10"):
        with open_any(folder) as checkpoint:
            assert list(checkpoint.tree) == ["module", "ds_version"]  # type: ignore[arg-type]
            assert [path.name for path in checkpoint.stamps] == [STATES]


def test_parts_are_named_with_the_tool_that_gathers_them(run: Path) -> None:
    step = run / "global_step10"
    (step / STATES).rename(step / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    (step / "zero_pp_rank_1_mp_rank_00_model_states.pt").touch()
    for folder in (run, step):
        with pytest.raises(InputError, match=r"the network in parts, .*zero_to_fp32\.py"):
            open_any(folder)


def test_a_step_that_is_named_and_missing_is_said(run: Path) -> None:
    (run / "latest").write_text("global_step20")
    with pytest.raises(InputError, match=r"is what DeepSpeed saves; .* mp_rank_00_model_states.pt"):
        open_any(run)


@pytest.mark.parametrize("name", ["../run/global_step10", "C:global_step10", "x\\global_step10"])
def test_a_step_is_beneath_its_run(run: Path, name: str) -> None:
    (run / "latest").write_text(name)
    if "/" not in name:
        (run / "global_step10").rename(run / name)
    with pytest.raises(InputError, match=r"is what DeepSpeed saves"):
        open_any(run)


def test_a_part_of_the_optimiser_is_no_network(run: Path) -> None:
    step = run / "global_step10"
    (optimiser,) = step.glob("*_optim_states.pt")
    with pytest.raises(InputError, match=r"a part of DeepSpeed's optimiser; .* global_step10\."):
        open_any(optimiser)

    (step / STATES).unlink()
    for path in (run, step, optimiser):
        with pytest.raises(InputError, match=r"global_step10: .*without .*; .* zero_to_fp32\.py"):
            open_any(path)

    (step / "zero_pp_rank_0_mp_rank_00_model_states.pt").touch()
    with pytest.raises(InputError, match=r"the network in parts, .*zero_to_fp32\.py"):
        open_any(optimiser)
