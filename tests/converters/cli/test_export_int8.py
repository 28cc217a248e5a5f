"""`regnet export --format onnx-int8`, as a user calls it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tests.converters.cli.running import assert_one_sentence, regnet
from tests.converters.demo import sample_images

if TYPE_CHECKING:
    from pathlib import Path


def test_it_says_what_it_was_calibrated_on_and_what_stays_in_float(
    folder: Path, tmp_path: Path
) -> None:
    sample_images(tmp_path / "photos", 10)
    arguments = ("export", folder, "--format", "onnx-int8", "--calibration-images", "photos/*.png")
    finished = regnet(*arguments, cwd=tmp_path)
    assert (finished.status, finished.err) == (0, "")
    words = " ".join(finished.out.split())
    assert "int8, calibrated on 10 images: 100.0% keep their best class" in words
    assert "no layer had to stay in float32" in words
    details = json.loads(regnet(*arguments, "--no-verify", "--json", cwd=tmp_path).out)["details"]
    assert details["onnx-int8"]["quantisation"]["calibration_images"] == 10


def test_without_images_it_says_how_to_name_some(folder: Path, tmp_path: Path) -> None:
    finished = regnet("export", folder, "--format", "onnx-int8", cwd=tmp_path)
    assert "--calibration-images" in assert_one_sentence(finished, 2)
