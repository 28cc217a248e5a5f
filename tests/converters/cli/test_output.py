"""What commands print, and where; and that they do what their options say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import torch
from pycls.core.builders import build_model
from torch._subclasses import FakeTensorMode

from tests.converters.cli.running import BIN, on_a_terminal, regnet, run, without_torch
from tests.converters.demo import CHECKPOINT, FILES, LABELS, WARNED, sample_images, snapshot
from tests.oracles import pycls

if TYPE_CHECKING:
    from pathlib import Path

ESCAPE = "\x1b"


def only_json(text: str) -> dict[str, Any]:
    """Parse stdout, which holds one object and a line end."""
    record, end = json.JSONDecoder().raw_decode(text)
    assert text[end:] == "\n"
    assert isinstance(record, dict)
    return record


def test_convert_prints_what_it_is_and_the_verdicts(tmp_path: Path) -> None:
    finished = run("convert-pycls", CHECKPOINT, "out", "--labels", LABELS, cwd=tmp_path)
    assert finished.status == 0
    assert finished.err == WARNED
    assert ESCAPE not in finished.out
    for text in ("pycls", "419,476 parameters", "BGR", "model.onnx", "model.torchscript.pt"):
        assert text in finished.out
    assert finished.out.count(" pass ") == 3
    assert "FAIL" not in finished.out
    last = "3 of 3 pass; out is ready, check it anywhere with: regnet verify out"
    assert finished.out.splitlines()[-1] == last
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(FILES)


def test_json_is_one_object_and_force_replaces_the_old_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "old").touch()
    finished = regnet("convert", CHECKPOINT, "out", "--force", "--json", cwd=tmp_path)
    assert (finished.status, finished.err) == (0, WARNED)
    record = only_json(finished.out)
    assert record == json.loads((tmp_path / "out" / "conversion.json").read_text())
    assert record["verification"]["passed"]
    assert sorted(snapshot(tmp_path / "out")) == sorted(FILES)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_quiet_prints_nothing_and_formats_choose_the_artefacts(tmp_path: Path) -> None:
    finished = regnet("convert", CHECKPOINT, "out", "-q", "--format", "onnx", cwd=tmp_path)
    assert (finished.status, finished.out, finished.err) == (0, "", "")
    assert set(FILES) - set(snapshot(tmp_path / "out")) == {"model.torchscript.pt"}


def test_an_exported_folder_is_verified_and_predicts(folder: Path) -> None:
    arguments = ("export", "moved", "--format", "onnx", "--share-weights", "--json")
    finished = regnet(*arguments, cwd=folder.parent)
    assert (finished.status, finished.err) == (0, "")
    record = only_json(finished.out)
    assert record["folder"] == "moved"
    assert record["formats"] == ["onnx"]
    assert record["verification"]["passed"]
    assert (folder / "model.onnx").stat().st_size < 100_000

    finished = regnet("verify", "moved", "--json", cwd=folder.parent)
    assert (finished.status, finished.err) == (0, "")
    report = only_json(finished.out)
    assert report["passed"]
    assert len(report["verdicts"]) == 4


@pytest.mark.parametrize("runtime", ["torch", "onnx", "torchscript"])
def test_predict_prints_labels_with_every_runtime(
    runtime: str, demo_folder: Path, tmp_path: Path
) -> None:
    (first, label), (second, _) = sample_images(tmp_path, 2)
    arguments = ("predict", demo_folder, first, second, "--runtime", runtime, "--top", "2")
    finished = regnet(*arguments, "--json", cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    predictions = only_json(finished.out)["predictions"]
    assert [len(prediction["classes"]) for prediction in predictions] == [2, 2]
    best = predictions[0]["classes"][0]
    assert best["label"] == label
    assert 0.5 < best["probability"] <= 1


def test_predict_prints_a_table(demo_folder: Path, tmp_path: Path) -> None:
    ((path, label),) = sample_images(tmp_path, 1)
    finished = regnet("predict", demo_folder, path, "--top", "1", cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert re.search(rf"0\.png +{re.escape(label)} +[01]\.\d{{4}}", finished.out)


@pytest.mark.parametrize(
    ("arguments", "topic", "value"),
    [
        ([], "channel order", "BGR, stem flipped to take RGB"),
        (["--channel-order", "rgb"], "channel order", "RGB, stem kept"),
        (["--weights", "raw"], "weights", "raw"),
        (["--weights", "ema"], "weights", "ema"),
        ([], "weights", "ema"),
        (["--dtype", "float16"], "dtype", "float16, cast from float32"),
    ],
    ids=["BGR", "RGB asked for", "raw asked for", "EMA asked for", "the better", "dtype"],
)
def test_options_reach_the_plan(
    arguments: list[str], topic: str, value: str, tmp_path: Path
) -> None:
    state = torch.load(CHECKPOINT, weights_only=False)
    state |= {"ema_state": state["model_state"], "test_err": 9.0, "ema_err": 8.0}
    torch.save(state, tmp_path / "model.pyth")
    before = snapshot(tmp_path)
    finished = regnet(
        *("convert", "model.pyth", "out", "--dry-run", "--json", *arguments), cwd=tmp_path
    )
    assert (finished.status, finished.err) == (0, WARNED)
    record = only_json(finished.out)
    assert {d["topic"]: d["value"] for d in record["decisions"]}[topic] == value
    kept = record["channel_order"] == "rgb"
    actions = [step["action"] for step in record["plan"]]
    assert sum(action.startswith("flip channels") for action in actions) == (0 if kept else 1)
    assert snapshot(tmp_path) == before


def test_a_dry_run_lists_every_tensor_and_leaves_an_existing_output_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    finished = run("convert-pycls", CHECKPOINT, "out", "--dry-run", cwd=tmp_path)
    assert (finished.status, finished.err) == (0, WARNED)
    tensors = re.findall(r"^\S+ +(?:regnet|classifier)\.\S+ +\S+ +\w+", finished.out, re.MULTILINE)
    assert len(tensors) == 208
    assert snapshot(tmp_path) == {"out": None}


@pytest.mark.parametrize("command", ["convert", "inspect", "export", "verify", "predict"])
def test_every_command_has_help_with_an_example(command: str, tmp_path: Path) -> None:
    finished = regnet(command, "--help", cwd=tmp_path, env={})  # the installed program
    assert (finished.status, finished.err) == (0, "")
    assert f"Usage: regnet {command}" in finished.out
    assert "Example: " in finished.out
    assert ESCAPE not in finished.out


def test_what_reads_no_weights_imports_no_torch(folder: Path) -> None:
    cwd, env = folder.parent, without_torch(folder.parent / "site")
    for arguments in (
        ["--help"],
        ["inspect", CHECKPOINT, "--json"],
        ["convert", CHECKPOINT, "out", "--dry-run"],
        ["export", folder, "--format", "onnx", "--no-verify"],
    ):
        finished = regnet(*arguments, cwd=cwd, env=env)
        warned = WARNED if CHECKPOINT in arguments else ""
        assert (finished.status, finished.err) == (0, warned)
    blocked = regnet("verify", folder, cwd=cwd, env=env)
    assert "torch" in blocked.err  # so the block works


def test_a_file_of_a_gigabyte_is_inspected_without_torch(tmp_path: Path) -> None:
    """Saved by pycls and torch, momentum included, with a hole where the numbers would be."""
    regnet_y = pycls.published("RegNetY-32GF")
    path = tmp_path / "RegNetY-32GF.pyth"
    with FakeTensorMode(), torch.serialization.skip_data(True):
        with pycls.settings(regnet_y):
            network = build_model()
        pycls.save(path, network, regnet_y, legacy=False)
    assert path.stat().st_size > 1_000_000_000
    assert path.stat().st_blocks * 512 < 20_000_000
    finished = regnet(
        "inspect", path.name, "--json", cwd=tmp_path, env=without_torch(tmp_path / "site")
    )
    assert (finished.status, finished.err) == (0, "")
    assert only_json(finished.out)["architecture"]["name"] == "RegNetY-32GF"


def test_what_the_encoding_of_stdout_has_no_signs_for_is_escaped(tmp_path: Path) -> None:
    shutil.copy(CHECKPOINT, tmp_path / "\u7db2.pyth")
    shown = regnet("inspect", "\u7db2.pyth", cwd=tmp_path, env={"PYTHONIOENCODING": "cp1252"})
    assert shown.status == 0, shown.err
    assert "\\u7db2.pyth, 3.4 MB" in shown.out


def test_colour_is_for_terminals_that_want_it(tmp_path: Path) -> None:
    plain = on_a_terminal("inspect", CHECKPOINT, cwd=tmp_path, env={"NO_COLOR": "1"})
    assert ESCAPE in on_a_terminal("inspect", CHECKPOINT, cwd=tmp_path).out
    assert plain.status == 0
    assert ESCAPE not in plain.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["inspect", CHECKPOINT, "--plan"], WARNED),
        (["inspect", CHECKPOINT, "--json"], WARNED),
        (["--help"], ""),
        (["verify", "--help"], ""),
    ],
    ids=["tables", "JSON", "commands", "help"],
)
def test_a_reader_that_has_gone_changes_no_exit_status(
    arguments: list[str | Path], said: str, tmp_path: Path
) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    process = subprocess.run(
        [BIN / "regnet", *arguments],
        cwd=tmp_path,
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (process.returncode, process.stderr.decode()) == (0, said)
