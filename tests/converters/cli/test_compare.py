"""`regnet compare` as a user runs it: exit status, tables, JSON, one sentence."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import onnx
import pytest
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file

from converters.folder.folder import ConvertedFolder
from converters.formats.torchscript import export_torchscript
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import CHECKPOINT, sample_images

if TYPE_CHECKING:
    from pathlib import Path

STEM = "regnet.embedder.embedder.convolution.weight"


@pytest.fixture
def other(demo_folder: Path, tmp_path: Path) -> Path:
    """The converted demo with one weight changed."""
    folder = shutil.copytree(demo_folder, tmp_path / "other")
    state = load_file(folder / "model.safetensors")
    state["classifier.1.bias"][0] += 1
    save_file(state, folder / "model.safetensors")
    return folder


def test_a_checkpoint_and_its_artefact_are_the_same_network(
    demo_folder: Path, tmp_path: Path
) -> None:
    finished = regnet("compare", CHECKPOINT, demo_folder / "model.onnx", cwd=tmp_path)

    assert (finished.status, finished.err) == (0, "")
    assert "RegNetY-FashionMNIST.pyth, checkpoint of pycls" in finished.out
    assert "the reference model with A's weights in float64" in finished.out
    assert "same network" in finished.out


def test_a_difference_ends_with_status_one_and_says_which(
    demo_folder: Path, other: Path, tmp_path: Path
) -> None:
    finished = regnet("compare", demo_folder, other, "--plot", "apart.svg", cwd=tmp_path)

    assert finished.status == 1
    assert ">A and B differ</text>" in (tmp_path / "apart.svg").read_text("utf-8")
    assert "DIFFERENT" in finished.out
    sentence = "A (out) and B (other) differ: classifier.1.bias differs in 1 of 10 values, first at"
    assert finished.err.startswith(sentence)

    quiet = regnet("compare", demo_folder, other, "-q", cwd=tmp_path)
    assert assert_one_sentence(quiet, 1) == finished.err.strip()


def test_json_is_one_object_that_says_everything(
    demo_folder: Path, other: Path, tmp_path: Path
) -> None:
    ((picture, _),) = sample_images(tmp_path / "pictures", 1)

    finished = regnet("compare", demo_folder, other, "--image", picture, "--json", cwd=tmp_path)

    record = json.loads(finished.out)
    assert record["schema"] == 1
    assert (record["a"]["name"], record["b"]["kind"]) == ("out", "folder")
    assert record["same"] is False
    assert len(record["weights"]["differences"]) == 1
    assert record["verdict"]["artefact"] == "B"
    assert {"native", "photographs"} <= {entry["batch"] for entry in record["distances"]}
    assert record["fields"] == []


def test_what_is_no_network_is_refused(demo_folder: Path, tmp_path: Path) -> None:
    for name in ("README.md", "nothing.onnx"):
        finished = regnet("compare", demo_folder, demo_folder / name, cwd=tmp_path)

        assert assert_one_sentence(finished, 2).startswith(f"{name}: ")


def test_nothing_is_left_in_the_folder_for_temporary_files(
    demo_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    env = {"TMPDIR": str(tmp_path / "temporary")}

    finished = regnet("compare", CHECKPOINT, demo_folder, "-q", cwd=tmp_path, env=env)

    assert (finished.status, finished.out, finished.err) == (0, "", "")
    left = {path.name for path in (tmp_path / "temporary").iterdir()}
    assert left <= {".ses"}, "which is ONNX Runtime's own"


def broken(demo_folder: Path, path: Path, name: str) -> Path:
    """The converted demo with an artefact that computes something else."""
    folder = shutil.copytree(demo_folder, path)
    model = onnx.load(folder / "model.onnx")
    kernel = next(t for t in model.graph.initializer if t.name.endswith("folded_weight"))
    kernel.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(kernel), kernel.name))
    if name == "model.onnx":
        onnx.save(model, folder / name)
    else:
        state = load_file(folder / "model.safetensors")
        other = ConvertedFolder(shutil.copytree(demo_folder, path.with_name("donor")))
        save_file({**state, STEM: -state[STEM]}, other.path / "model.safetensors")
        export_torchscript(other, folder / name)
    return folder


@pytest.mark.parametrize("name", ["model.onnx", "model.torchscript.pt"])
@pytest.mark.parametrize("other", ["a folder", "a checkpoint", "an artefact"])
def test_a_broken_artefact_in_a_folder_differs_whatever_the_folder_is_compared_with(
    other: str, name: str, demo_folder: Path, tmp_path: Path
) -> None:
    bad = broken(demo_folder, tmp_path / "bad", name)
    against = {
        "a folder": demo_folder,
        "a checkpoint": CHECKPOINT,
        "an artefact": demo_folder / "model.onnx",
    }
    finished = regnet("compare", bad, against[other], "--json", cwd=tmp_path)

    assert finished.status == 1
    record = json.loads(finished.out)
    assert record["weights"]["differences"] == []
    (difference,) = record["differences"]
    assert difference.startswith(f"A's {name} is not the network of its folder: ")
    outcomes = {
        each["artefact"]: each["outcome"] for each in record["artefacts"] if each["side"] == "A"
    }
    assert outcomes == {"model.onnx": "pass", "model.torchscript.pt": "pass"} | {name: "FAIL"}


def test_what_was_not_compared_is_said(demo_folder: Path, tmp_path: Path) -> None:
    one = shutil.copytree(demo_folder, tmp_path / "one")
    (one / "model.torchscript.pt").unlink()
    (one / "notes").mkdir()
    (one / "notes" / "a.txt").write_text("seen by nobody")
    hub = tmp_path / "hub"
    hub.mkdir()
    for name in ("config.json", "model.safetensors", "model.onnx"):
        shutil.copy(demo_folder / name, hub)

    finished = regnet("compare", one, hub, cwd=tmp_path)

    assert finished.status == 0
    said = " ".join(finished.out.split())
    assert "not compared A's README.md, conversion.json, golden.safetensors, notes/a.txt" in said
    assert "not compared B's model.onnx" in said
    assert "A's model.onnx pass: " in said
