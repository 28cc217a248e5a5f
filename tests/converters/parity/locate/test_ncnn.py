"""Faults in ncnn's files are found where they are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.formats.ncnn import export_ncnn
from converters.formats.registry import FORMATS
from converters.parity.locate.location import Location, locate
from regnet.config import RegNetConfig
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import _SMALL, NETWORKS, WIDER

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

PARAM, BIN = FORMATS["ncnn"].files
QUICK = ("Y", "V, averaged shortcut", "Z of EvoNorm", "three stems")

FAULTS = {
    "sigmoid lost": (r"Sigmoid ", "ReLU ", "layers.0.layer.2.attention.3"),
    "gate added": ("mul 0=2", "mul 0=0", "layers.0.layer.2.mul"),
    "difference for a sum": ("add 0=0", "add 0=1", "layers.0.add"),
    "largest value": ("pooler 0=1 4=1", "pooler 0=0 4=1", "layers.0.layer.2.pooler"),
}


def made(path: Path, name: str, *, classifier: bool = True) -> ConvertedFolder:
    config = RegNetConfig(**_SMALL | {**NETWORKS, **WIDER}[name])
    folder = random_folder(path, config, classifier=classifier)
    export_ncnn(folder, path / PARAM)
    return folder


def located(folder: ConvertedFolder) -> Location:
    pixels = np.random.default_rng(11).standard_normal((2, 3, 33, 40)).astype(np.float32)
    return locate(folder, "ncnn", folder.path / PARAM, pixels)


def at_fault(location: Location) -> list[str]:
    return [module.module for module in location.modules if module.at_fault]


@pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK))
        for name in (*NETWORKS, *WIDER)
        if name != "grey"  # whose images are others
    ],
)
def test_nothing_is_found_in_a_right_artefact(name: str, classifier: bool, tmp_path: Path) -> None:
    location = located(made(tmp_path, name, classifier=classifier))
    assert (location.culprit, at_fault(location)) == (None, [])
    assert all(module.local is not None for module in location.modules)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_wrong_operation_is_found(fault: str, tmp_path: Path) -> None:
    folder = made(tmp_path, "Y")
    old, new, module = FAULTS[fault]
    text = (tmp_path / PARAM).read_text()
    (tmp_path / PARAM).write_text(re.sub(old, new, text, count=1))
    location = located(folder)
    assert location.culprit == f"regnet.encoder.stages.0.{module}"
    assert at_fault(location) == [location.culprit]
    assert re.fullmatch(r"it is .* where .* belongs", location.why)


def test_a_wrong_tensor_is_found_with_its_channel(tmp_path: Path) -> None:
    folder = made(tmp_path, "Y")
    weights = np.fromfile(tmp_path / BIN, np.float32)
    weights[1 + 3 * 27 : 1 + 4 * 27] *= 1.5  # behind the flag, channel 3 of 3x3x3 numbers each
    weights.tofile(tmp_path / BIN)
    location = located(folder)
    stem = "regnet.embedder.embedder"
    assert (location.culprit, location.tensor) == (stem, f"{stem}.folded_weight")
    assert location.channel == 3


def test_what_cannot_be_run_is_found_by_its_words(tmp_path: Path) -> None:
    folder = made(tmp_path, "Y")
    text = (tmp_path / PARAM).read_text()
    name = "regnet.encoder.stages.0.layers.0.add"
    (tmp_path / PARAM).write_text(
        text.replace(f"BinaryOp                 {name} ", f"ReLU {name} ")
    )
    location = located(folder)
    assert location.culprit == name
    assert "it is relu where a sum belongs" in location.why
