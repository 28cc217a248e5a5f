"""`regnet predict`, `regnet evaluate` and `regnet bench` as a user runs them."""

from __future__ import annotations

import csv
import json
import re
import shutil
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.cli.test_output import only_json
from tests.converters.demo import sample_images

if TYPE_CHECKING:
    from pathlib import Path


def by_class(root: Path, count: int) -> Path:
    for path, label in sample_images(root / "flat", count):
        target = root / "val" / label.replace("/", "_")
        target.mkdir(parents=True, exist_ok=True)
        path.rename(target / path.name)
    return root / "val"


def test_predict_takes_files_folders_and_patterns_and_writes_csv_and_a_picture(
    demo_folder: Path, tmp_path: Path
) -> None:
    sample_images(tmp_path / "photos", 12)
    places = ["photos/[01].png", "photos", "photos/5.png"]
    forms = ["--csv", "out/classes.csv", "--contact-sheet", "sheet.png", "--batch-size", "5"]
    finished = regnet("predict", demo_folder, *places, *forms, "--top", "2", cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.count(".png") == 12
    with (tmp_path / "out" / "classes.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["rank"] for row in rows] == ["1", "2"] * 12
    assert [row["image"] for row in rows[:4]] == ["photos/0.png"] * 2 + ["photos/1.png"] * 2
    assert float(rows[0]["probability"]) > float(rows[1]["probability"])
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 4 * 224
        assert len(sheet.crop((16, 16, 240, 240)).getcolors(1_000_000)) > 10
        assert len(sheet.crop((16, 240, 240, 320)).getcolors(1_000_000)) > 10


def test_csv_on_stdout_is_nothing_but_csv(demo_folder: Path, tmp_path: Path) -> None:
    ((path, label),) = sample_images(tmp_path, 1)
    finished = regnet("predict", demo_folder, path, "--csv", "-", "--top", "1", cwd=tmp_path)
    head, row = finished.out.splitlines()
    assert head == "image,rank,label,probability"
    assert re.fullmatch(rf"{re.escape(str(path))},1,{re.escape(label)},0\.\d{{6}}", row)
    both = regnet("predict", demo_folder, path, "--csv", "-", "--json", cwd=tmp_path)
    assert "--csv" in assert_one_sentence(both, 2)


def test_a_cell_of_csv_is_neither_computed_nor_obeyed(demo_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    shutil.copytree(demo_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    hostile = [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        " =1",
        "\x1b[2J\a",
        "a\u202eb",
        "\uff1d1",
    ]
    config["id2label"] = {str(number): label for number, label in enumerate(hostile)}
    config.pop("label2id")
    (folder / "config.json").write_text(json.dumps(config))
    ((path, _),) = sample_images(tmp_path, 1)
    finished = regnet("predict", folder, path, "--csv", "-", "--top", "10", cwd=tmp_path)
    assert finished.status == 0
    assert finished.out.replace("\n", "").isprintable()
    labels = {row["label"] for row in csv.DictReader(finished.out.splitlines())}
    expected = ["'=1+1", "'+1", "'-1", "'@SUM(A1)", "'\\t=1", "'\\r=1", "' =1"]
    assert labels == {*expected, "\\x1b[2J\\x07", "a\\u202eb", "'\uff1d1"}


def test_unreadable_images_end_in_a_sentence_each_and_the_rest_is_predicted(
    demo_folder: Path, tmp_path: Path
) -> None:
    sample_images(tmp_path / "photos", 2)
    (tmp_path / "photos" / "bad.png").write_text("no image")
    finished = regnet("predict", demo_folder, "absent.png", "photos", "--json", cwd=tmp_path)
    assert finished.status == 2
    record = only_json(finished.out)
    assert [p["image"] for p in record["predictions"]] == ["photos/0.png", "photos/1.png"]
    sentences = finished.err.splitlines()
    assert sentences == record["unreadable"]
    assert [sentence.split()[0] for sentence in sentences] == ["absent.png", "photos/bad.png"]


def test_evaluate_prints_accuracies_and_the_agreement_of_each_pair(
    demo_folder: Path, tmp_path: Path
) -> None:
    val = by_class(tmp_path, 20)
    finished = regnet("evaluate", demo_folder, val, cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert "matched by label" in finished.out
    assert "Accuracy on 20 images" in finished.out
    assert finished.out.count("100.00%") >= 3  # each pair agrees

    arguments = ("--runtime", "onnx", "--limit", "10", "--json")
    finished = regnet("evaluate", demo_folder, val, *arguments, cwd=tmp_path)
    record = only_json(finished.out)
    assert list(record["runtimes"]) == ["onnx"]
    assert record["images"] == 10
    assert record["agreement"] == []
    assert record["runtimes"]["onnx"]["top1"] >= 0.8


def test_evaluate_takes_the_names_of_class_folders(demo_folder: Path, tmp_path: Path) -> None:
    val = by_class(tmp_path, 10)
    for number, path in enumerate(sorted(val.iterdir())):
        path.rename(val / f"class {number}")
    finished = regnet("evaluate", demo_folder, val, cwd=tmp_path)
    assert "class 0 in " in assert_one_sentence(finished, 2)
    (tmp_path / "names.json").write_text(json.dumps([f"class {number}" for number in range(10)]))
    arguments = ("--labels", "names.json", "--runtime", "onnx", "--json")
    finished = regnet("evaluate", demo_folder, val, *arguments, cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert only_json(finished.out)["matched_by"] == "--labels"


def test_bench_prints_times_verdicts_and_what_to_deploy(demo_folder: Path, tmp_path: Path) -> None:
    arguments = ("--rounds", "2", "--batch-size", "1", "--batch", "2", "--threads", "1")
    finished = regnet("bench", demo_folder, *arguments, cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    assert finished.out.count(" pass ") == 3
    assert re.search(r"For one answer soon: \w+ on 1 thread, \d+\.\d\d ms", finished.out)
    assert re.search(r"For many images: \w+ on 1 thread, \d+ images/s", finished.out)

    more = ("--runtime", "onnx", "--json", "--plot", "times.svg")
    finished = regnet("bench", demo_folder, *arguments, *more, cwd=tmp_path)
    assert ">ONNX, 1 thread</text>" in (tmp_path / "times.svg").read_text("utf-8")
    record = only_json(finished.out)
    assert [contender["runtime"] for contender in record["contenders"]] == ["onnx"]
    assert [timing["batch"] for timing in record["contenders"][0]["timings"]] == [1, 2]
    assert [choice["goal"] for choice in record["deploy"]] == ["latency", "throughput"]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["evaluate", "absent", "absent"], "absent"),
        (["evaluate", "OUT", "absent"], "absent holds no class folders"),
        (["bench", "absent"], "absent"),
        (["bench", "OUT", "--runtime", "abacus"], "--runtime abacus .* torch, onnx"),
        (["predict", "OUT", "*.gif"], r"\*\.gif matches no file"),
    ],
)
def test_a_wrong_call_is_answered_in_one_sentence(
    arguments: list[str], reason: str, demo_folder: Path, tmp_path: Path
) -> None:
    called = [demo_folder if argument == "OUT" else argument for argument in arguments]
    assert re.search(reason, assert_one_sentence(regnet(*called, cwd=tmp_path), 2))
