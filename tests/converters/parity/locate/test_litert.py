"""Faults in a ``.tflite`` are found where they are, and nobody else is blamed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.parity.locate.location import locate
from tests.converters.parity.contents import test_litert as tampering
from tests.converters.parity.contents.test_litert import BLOCK, Opened, written

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.parity.locate.location import Location

NAMES = ("Y", "all at once")

CULPRITS: dict[Callable[[Opened], None], tuple[str, str]] = {
    tampering._stride: (f"{BLOCK}.shortcut", "the file cannot be run"),
    tampering._no_activation: (f"{BLOCK}.layer.0", "it has the activation 0 where 1 belongs"),
    tampering._zeros_elsewhere: ("regnet.embedder.embedder", "is other than it should be"),
    tampering._sum_for_product: (f"{BLOCK}.layer.2.mul", "it is made by ADD where MUL belongs"),
    tampering._flipped: (f"{BLOCK}.layer.1", "differs from the fold recomputed"),
}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ConvertedFolder]:
    root = tmp_path_factory.mktemp("located")
    return {name: written(root / name, name) for name in NAMES}


def located(folder: ConvertedFolder, path: Path) -> Location:
    shape = (1, folder.config.num_channels, 64, 64)
    pixels = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    return locate(folder, "litert", path, pixels)


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_a_right_file_is_had_and_right(
    folders: dict[str, ConvertedFolder], name: str
) -> None:
    found = located(folders[name], folders[name].path / "model.tflite")
    assert found.why == "every module is right, given its own input"
    assert max(module.local or 0 for module in found.modules) < 8


@pytest.mark.parametrize("plant", CULPRITS, ids=[plant.__name__[1:] for plant in CULPRITS])
def test_the_first_wrong_operation_is_named(
    folders: dict[str, ConvertedFolder], tmp_path: Path, plant: Callable[[Opened], None]
) -> None:
    folder = folders["Y"]
    file = Opened(folder.path / "model.tflite")
    plant(file)
    found = located(folder, file.saved(tmp_path / "model.tflite"))
    culprit, why = CULPRITS[plant]
    assert found.culprit == culprit
    assert why in found.why


def test_a_wrong_weight_that_shows_is_found_by_its_value_alone(
    folders: dict[str, ConvertedFolder], tmp_path: Path
) -> None:
    folder = folders["Y"]
    file = Opened(folder.path / "model.tflite")
    file.data(f"{BLOCK}.layer.3.folded_bias")[5] += 0.5
    found = located(folder, file.saved(tmp_path / "model.tflite"))
    assert (found.culprit, found.channel) == (f"{BLOCK}.layer.3", 5)
    wrong = [module.module for module in found.modules if module.at_fault]
    assert wrong == [f"{BLOCK}.layer.3"]
