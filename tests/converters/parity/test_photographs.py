"""Real photographs, of those that scikit-image ships, through the folder's own processor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import photographs
from converters.parity.verify import verify_folder
from converters.testing import assert_parity
from tests.converters.cli.running import regnet
from tests.photographs import photograph

if TYPE_CHECKING:
    from pathlib import Path

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png")


def test_photographs_are_one_more_batch_of_every_verdict(folder: Path) -> None:
    paths = [photograph(name) for name in PICTURES]
    pixels = photographs(ConvertedFolder(folder), paths)
    side = ConvertedFolder(folder).image_size
    assert pixels.shape == (3, 3, side, side)
    assert len({image.tobytes() for image in pixels}) == 3
    report = verify_folder(ConvertedFolder(folder), images=paths)
    assert report.passed
    for verdict in report.verdicts[1:]:
        (found,) = [m for m in verdict.measurements if m.batch == "photographs"]
        assert found.top1
        assert found.top1.images == found.top1.agree == 3


def test_photographs_are_judged_from_the_command_line_and_in_tests(folder: Path) -> None:
    paths = [photograph(name) for name in PICTURES[:2]]
    finished = regnet("verify", folder, *(f"--image={p}" for p in paths), "--json", cwd=folder)
    assert finished.status == 0, finished.err
    batches = {m["batch"] for v in json.loads(finished.out)["verdicts"] for m in v["measurements"]}
    assert "photographs" in batches
    report = assert_parity(folder, images=paths)
    assert any(m.batch == "photographs" for m in report.verdicts[-1].measurements)


def test_what_is_no_picture_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "cat.jpg"
    path.write_bytes(np.random.default_rng(0).bytes(100))
    with pytest.raises(InputError, match=r"cat\.jpg is not an image of a known format"):
        verify_folder(ConvertedFolder(folder), images=[path])
