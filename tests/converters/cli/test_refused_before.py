"""What a conversion would refuse is refused by its dry run, and no option is ignored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.interface import Interface
from converters.formats.format import SPELLED, ExportOptions
from converters.formats.onnx.form import GraphForm
from converters.formats.registry import FORMATS
from converters.jobs.conversion import ConvertOptions
from converters.jobs.convert import convert
from converters.jobs.export import export
from converters.jobs.writeback import write_back
from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import CHECKPOINT, snapshot

if TYPE_CHECKING:
    from collections.abc import Sequence

REFUSED: dict[str, tuple[Sequence[str], int]] = {
    "a format that is none": (["--format", "nonsense"], 2),
    "labels that are not there": (["--labels", "nowhere.txt"], 2),
    "too few labels": (["--labels", "labels.txt"], 2),
    "a size that is none": (["--max-shard-size", "x"], 2),
    "a framework without such networks": (["--to", "mmpretrain"], 2),
    "what only folders have": (["--to", "pycls", "--format", "onnx"], 2),
    "labels for another framework": (["--to", "pycls", "--labels", "labels.txt"], 2),
    "no images to calibrate on": (["--format", "onnx-int8"], 2),
    "images that are not there": (
        ["--format", "onnx-int8", "--calibration-images", "nowhere/*.png"],
        2,
    ),
    "images for no format": (["--calibration-images", "."], 2),
    "sharing without ONNX": (["--format", "torchscript", "--share-weights"], 2),
    "a head that is not there": (["--head", "other"], 2),
    "averaged weights that are not there": (["--weights", "ema"], 2),
    "another framework's file": (["--from", "timm"], 2),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_dry_run_refuses_what_the_conversion_refuses(case: str, tmp_path: Path) -> None:
    options, status = REFUSED[case]
    (tmp_path / "labels.txt").write_text("one\ntwo\n")
    before = snapshot(tmp_path)

    said = [
        assert_one_sentence(
            regnet("convert", CHECKPOINT, "out", *options, *dry, cwd=tmp_path), status
        )
        for dry in ([], ["--dry-run"])
    ]

    assert said[0] == said[1]
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize("to", [[], ["--to", "pycls"]], ids=str)
@pytest.mark.parametrize("kind", ["a folder", "a file", "no folder above it"])
def test_a_dry_run_refuses_a_place_that_is_taken(kind: str, to: list[str], tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "a folder":
        out.mkdir()
        (out / "mine").touch()
    else:
        out.touch()
    place = out / "more" if kind == "no folder above it" else out
    status = 4 if kind == "no folder above it" and to != ["--to", "pycls"] else 2

    for dry in ([], ["--dry-run"]):
        finished = regnet("convert", CHECKPOINT, place, "--no-verify", *to, *dry, cwd=tmp_path)
        assert_one_sentence(finished, status)


@pytest.mark.parametrize("to", [[], ["--to", "timm"], ["--to", "pycls"]], ids=str)
def test_a_dry_run_of_what_can_be_done_prints_the_plan(to: list[str], tmp_path: Path) -> None:
    finished = regnet("convert", CHECKPOINT, "out", "--dry-run", *to, cwd=tmp_path)

    assert finished.status == 0
    assert all(line.startswith("warning: ") for line in finished.err.splitlines())
    assert "classifier.1.weight" in finished.out
    assert not list(tmp_path.iterdir())


# Options that nothing heeds.

SET = {
    "share_weights": ExportOptions(share_weights=True),
    "opset": ExportOptions(form=GraphForm(opset=19)),
    "sizes": ExportOptions(form=GraphForm(batch=1)),
    "io_float16": ExportOptions(io_float16=True),
    "external_data": ExportOptions(external_data=True),
    "calibration_images": ExportOptions(calibration_images=[Path("a.png")]),
    "largest_loss": ExportOptions(largest_loss=0.1),
    "symmetric": ExportOptions(symmetric=True),
    "normalize": ExportOptions(interface=Interface(255)),
    "softmax": ExportOptions(interface=Interface(softmax=True)),
    "image_input": ExportOptions(image_input=True),
    "block": ExportOptions(block=16),
}
GIVEN: dict[str, dict[str, Any]] = {
    "share_weights": {"share_weights": True},
    "opset": {"opset": 19},
    "sizes": {"dynamic": ["height", "width"]},
    "io_float16": {"io_float16": True},
    "external_data": {"external_data": True},
    "calibration_images": {"calibration_images": "a.png"},
    "largest_loss": {"largest_loss": 0.1},
    "symmetric": {"symmetric": True},
    "normalize": {"normalize": 255},
    "softmax": {"softmax": True},
    "image_input": {"image_input": True},
    "block": {"block": 16},
}


@pytest.mark.parametrize("option", SET)
@pytest.mark.parametrize("format_name", [name for name, kind in FORMATS.items() if not kind.extra])
def test_an_option_that_a_format_does_not_take_is_refused_by_name(
    option: str, format_name: str, folder: Path
) -> None:
    if option in FORMATS[format_name].options:
        return
    before = snapshot(folder)
    with pytest.raises(InputError, match=SPELLED[option]):
        export(folder, [format_name], verify=False, **GIVEN[option])
    assert snapshot(folder) == before


def test_every_option_has_a_name_and_a_format_that_takes_it() -> None:
    assert {name for options in SET.values() for name in options.given} == SET.keys()
    assert GIVEN.keys() == SET.keys() == SPELLED.keys()
    assert {option for kind in FORMATS.values() for option in kind.options} == SPELLED.keys()


def test_an_option_that_a_format_takes_changes_its_file(folder: Path) -> None:
    named = {"share_weights", "opset", "sizes", "io_float16", "external_data"}
    for name, kind in FORMATS.items():
        for option in kind.options & named:
            if "calibration_images" in kind.options or kind.members:
                continue  # takes images; is a folder, which its own tests open
            plain, changed = folder / "plain", folder / option
            block = 16 if "block" in kind.options else None  # or it would be timed each time
            kind.export(ConvertedFolder(folder), plain, ExportOptions(block=block))
            kind.export(ConvertedFolder(folder), changed, replace(SET[option], block=block))
            assert plain.read_bytes() != changed.read_bytes(), (name, option)


@pytest.mark.parametrize(
    "options",
    [
        ["--io-fp16"],
        ["--opset", "17"],
        ["--shape", "1,1,28,28"],
    ],
    ids=lambda options: options[0],
)
def test_export_ignores_nothing(options: list[str], folder: Path) -> None:
    finished = regnet("export", folder, "--format", "torchscript", *options, cwd=folder.parent)

    assert options[0] in assert_one_sentence(finished, 2)


def test_options_of_the_python_interface_are_not_ignored_either(
    folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="--share-weights"):
        convert(CHECKPOINT, tmp_path / "out", formats=(), share_weights=True)
    with pytest.raises(InputError, match="--format nonsense"):
        convert(CHECKPOINT, tmp_path / "out", formats=("nonsense",))
    for options in (
        ConvertOptions(channel_order="rgb"),
        ConvertOptions(head="head.fc"),
        ConvertOptions(labels=["a"]),
    ):
        with pytest.raises(InputError, match="leave out"):
            write_back(folder, tmp_path / "net.pth", "pycls", options)
    assert not (tmp_path / "net.pth").exists()
