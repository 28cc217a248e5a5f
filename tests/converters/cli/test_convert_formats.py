"""`regnet convert --format`: every artefact in the one command."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import CHECKPOINT, sample_images

if TYPE_CHECKING:
    from pathlib import Path

ARTEFACTS = (
    "model.onnx",
    "onnx/model.onnx",
    "onnx/model_fp16.onnx",
    "onnx/model_quantized.onnx",
    "model.pt2",
)


def test_a_conversion_writes_and_proves_any_artefact(tmp_path: Path) -> None:
    sample_images(tmp_path / "photos", 10)
    formats = ("--format", "onnx,onnx-web,onnx-fp16", "--format", "onnx-int8,pt2")
    options = (*formats, "--calibration-images", "photos", "-q")
    assert regnet("convert", CHECKPOINT, "out", *options, cwd=tmp_path).status == 0

    out = tmp_path / "out"
    record = json.loads((out / "conversion.json").read_text())
    assert not (out / "model.torchscript.pt").exists()
    assert {v["artefact"] for v in record["verification"]["verdicts"]} > set(ARTEFACTS)
    assert set(ARTEFACTS) < record["files"].keys()
    assert record["files"]["onnx/model_quantized.onnx"]["quantisation"]["calibration_images"] == 10
    assert (out / "model.onnx").samefile(out / "onnx/model.onnx")  # equal, so kept once
    assert regnet("verify", out, cwd=tmp_path).status == 0


def test_a_byte_of_an_artefact_in_its_own_folder_is_recorded_too(tmp_path: Path) -> None:
    options = ("--format", "onnx-fp16", "-q")
    assert regnet("convert", CHECKPOINT, "out", *options, cwd=tmp_path).status == 0
    artefact = tmp_path / "out/onnx/model_fp16.onnx"
    artefact.write_bytes(artefact.read_bytes() + b"\0")
    assert "onnx/model_fp16.onnx" in regnet("verify", "out", cwd=tmp_path).out


def test_int8_without_images_converts_nothing(tmp_path: Path) -> None:
    finished = regnet("convert", CHECKPOINT, "out", "--format", "onnx-int8", cwd=tmp_path)
    assert "--calibration-images" in assert_one_sentence(finished, 2)
    assert not list(tmp_path.iterdir())
