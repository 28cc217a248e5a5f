"""mlx-image's files beyond what :mod:`tests.frameworks.test_recorded` tells of each framework."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from converters.errors import InputError
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from tests.converters.families.conversion import converted, source_of
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

FILE = RECORDED / "mlx-image" / "y.safetensors"


def test_a_folder_as_on_the_hub_is_read(tmp_path: Path) -> None:
    (tmp_path / "regnet_y-mlxim").mkdir()
    shutil.copy(FILE, tmp_path / "regnet_y-mlxim" / "model.safetensors")
    (tmp_path / "regnet_y-mlxim" / "README.md").write_text("---\nlicense: apache-2.0\n---\n")

    source = source_of(tmp_path / "regnet_y-mlxim")

    assert source.framework == "mlx-image"
    assert (source.transform.resize, source.transform.crop) == (232, 224)


def test_what_is_written_is_said_to_be_for_mlx_and_counts_no_batches(tmp_path: Path) -> None:
    convert(FILE, tmp_path / "out", formats=(), verify=False)
    write_back(tmp_path / "out", tmp_path / "back.safetensors", "mlx-image")

    with safe_open(tmp_path / "back.safetensors", "pt") as back, safe_open(FILE, "pt") as theirs:
        assert back.metadata() == theirs.metadata() == {"format": "mlx"}
        assert set(back.keys()) == set(theirs.keys())
        for name in set(back.keys()):
            assert torch.equal(back.get_tensor(name), theirs.get_tensor(name))


def test_counters_are_made_of_zeros(tmp_path: Path) -> None:
    convert(FILE, tmp_path / "out", formats=(), verify=False)
    state = load_file(tmp_path / "out" / "model.safetensors")

    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert counters
    assert all(state[name] == 0 for name in counters)


def test_a_trunk_is_a_trunk_here_and_there(tmp_path: Path) -> None:
    state = {name: t for name, t in load_file(FILE).items() if not name.startswith("fc.")}
    save_file(state, tmp_path / "trunk.safetensors")

    done = converted(tmp_path / "trunk.safetensors")
    write_back(done.out, tmp_path / "back.safetensors", "mlx-image")

    assert json.loads((done.out / "config.json").read_text())["architectures"] == ["RegNetModel"]
    assert load_file(tmp_path / "back.safetensors").keys() == state.keys()


def test_weights_in_half_stay_in_half(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in load_file(FILE).items()}
    save_file(halves, tmp_path / "half.safetensors")

    options = ConvertOptions(dtype="bfloat16", formats=(), verify=False)
    write_back(tmp_path / "half.safetensors", tmp_path / "back.safetensors", "mlx-image", options)

    back = load_file(tmp_path / "back.safetensors")
    assert all(torch.equal(back[name], tensor) for name, tensor in halves.items())


def test_kernels_of_torch_under_these_names_are_refused(tmp_path: Path) -> None:
    moved = {
        name: tensor.permute(0, 3, 1, 2).contiguous() if tensor.ndim == 4 else tensor
        for name, tensor in load_file(FILE).items()
    }
    save_file(moved, tmp_path / "net.safetensors")

    with pytest.raises(InputError, match=r"^net\.safetensors"):
        source_of(tmp_path / "net.safetensors")
