"""`regnet convert --to`, as a user runs it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
import torch

from tests.converters.cli.running import assert_one_sentence, regnet, without_torch
from tests.converters.demo import CHECKPOINT, WARNED

if TYPE_CHECKING:
    from pathlib import Path


def test_a_checkpoint_becomes_another_frameworks_file_with_proof(tmp_path: Path) -> None:
    done = regnet("convert", CHECKPOINT, "net.pth", "--to", "torchvision", cwd=tmp_path)

    assert (done.status, done.err) == (0, WARNED)
    assert "pass" in done.out
    assert "net.pth is ready for torchvision; read back, its 208 tensors are those" in done.out
    assert "stem.0.weight" in torch.load(tmp_path / "net.pth", weights_only=True)
    assert [path.name for path in tmp_path.iterdir()] == ["net.pth"]


def test_a_converted_folder_is_written_back_without_torch(folder: Path, tmp_path: Path) -> None:
    blocked = without_torch(tmp_path / "blocked")
    options = ("--to", "pycls", "--json")

    done = regnet("convert", folder, "net.pyth", *options, cwd=tmp_path, env=blocked)

    assert (done.status, done.err) == (0, "")
    record = {"schema": 1, "path": "net.pyth", "framework": "pycls", "tensors": 208}
    assert json.loads(done.out) == record


def test_a_framework_gets_the_dtype_that_is_asked_for(tmp_path: Path) -> None:
    options = ("--to", "torchvision", "--dtype", "float16")

    done = regnet("convert", CHECKPOINT, "net.pth", *options, cwd=tmp_path)

    assert (done.status, done.err) == (0, WARNED)
    assert "float16, cast from float32 (as asked for with --dtype)" in done.out
    state = torch.load(tmp_path / "net.pth", weights_only=True)
    assert state["stem.0.weight"].dtype == torch.float16


@pytest.mark.parametrize(
    "options", [["--format", "onnx"], ["--share-weights"], ["--max-shard-size", "1MB"]]
)
def test_what_makes_a_converted_folder_has_no_place_beside_it(
    options: list[str], tmp_path: Path
) -> None:
    arguments = ["convert", str(CHECKPOINT), "net.pth", "--to", "torchvision", *options]

    sentence = assert_one_sentence(regnet(*arguments, cwd=tmp_path), 2)

    assert sentence.startswith("--to writes files of another framework; leave out --format")
    assert list(tmp_path.iterdir()) == []
