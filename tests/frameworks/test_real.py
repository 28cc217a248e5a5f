"""Today's code against the real frameworks at published sizes; ``make test-frameworks``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters.families.known import FAMILIES
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from regnet import RegNetForImageClassification
from tests.frameworks.drawn import REAL, SMALL, Network
from tests.frameworks.environments import FRAMEWORKS, RECORDED, written
from tests.frameworks.test_recorded import (
    LIMIT,
    WIDER,
    difference,
    logits_of,
    logits_of_network,
    recorded_logits,
)
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

EXACT = 1e-12
"""Largest difference in float64, in units of the largest logit."""

NETWORKS = pytest.mark.parametrize("network", [*SMALL, *REAL])


def require(framework: str) -> None:
    if not FRAMEWORKS[framework].python.exists():
        pytest.skip(f"{framework} has no environment: make test-frameworks")


@NETWORKS
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_the_framework_saves_computes_what_it_computes(
    framework: str, network: str, tmp_path: Path
) -> None:
    require(framework)
    saved = tmp_path / f"net{FRAMEWORKS[framework].ending}"
    theirs = FRAMEWORKS[framework].act("record", network, saved)

    convert(saved, tmp_path / "out", formats=())

    assert difference(logits_of(tmp_path / "out"), theirs) < LIMIT


OTHERS = [(name, other) for name, one in FRAMEWORKS.items() for other in one.others]


@pytest.mark.parametrize(("framework", "other"), OTHERS)
def test_what_the_framework_saves_in_other_forms_computes_the_same(
    framework: str, other: str, tmp_path: Path
) -> None:
    require(framework)
    theirs = FRAMEWORKS[framework].act("record", "odd", tmp_path / other)

    convert(tmp_path / other, tmp_path / "out", formats=())

    assert difference(logits_of(tmp_path / "out"), theirs) < LIMIT


def folder_of(network: Network, framework: str, folder: Path) -> Path:
    """A converted folder with weights like a trained network's, padded as a framework does."""
    from regnet import RegNetConfig

    config = RegNetConfig(
        hidden_sizes=list(network.widths),
        depths=list(network.depths),
        groups_width=network.group_width,
        layer_type=network.layer_type,
        num_labels=network.classes,
        padding=FAMILIES[framework].family.padding,
    )
    randomise(RegNetForImageClassification(config)).save_pretrained(folder / "ours")
    convert(folder / "ours", folder / "out", formats=())
    return folder / "out"


@pytest.mark.parametrize(("framework", "network"), written(SMALL | REAL))
def test_what_is_written_back_loads_strictly_and_computes_what_ours_does(
    framework: str, network: str, tmp_path: Path
) -> None:
    require(framework)
    folder = folder_of((SMALL | REAL)[network], framework, tmp_path)
    back = tmp_path / f"back{FRAMEWORKS[framework].ending}"

    write_back(folder, back, framework)

    assert difference(FRAMEWORKS[framework].act("run", network, back), logits_of(folder)) < LIMIT


@pytest.mark.parametrize(("framework", "network"), WIDER)
def test_networks_of_its_own_are_written_back_strictly(
    framework: str, network: str, tmp_path: Path
) -> None:
    """From what it recorded, under a name by which its script knows which one it is."""
    require(framework)
    convert(RECORDED / framework / network, tmp_path / "out", formats=())
    back = (tmp_path / network).with_suffix(FRAMEWORKS[framework].ending)

    write_back(tmp_path / "out", back, framework)

    theirs = FRAMEWORKS[framework].act("run", "y", back)
    assert difference(theirs, logits_of(tmp_path / "out")) < LIMIT
    assert difference(theirs, recorded_logits(framework, network)) < LIMIT


@pytest.mark.parametrize("size", [(224, 224), (97, 128)], ids=["native", "odd"])
@pytest.mark.parametrize("network", SMALL)
def test_keras_agrees_in_float64_when_it_evaluates_and_when_it_trains(
    network: str, size: tuple[int, int], tmp_path: Path
) -> None:
    require("keras-applications")
    framework, saved = FRAMEWORKS["keras-applications"], tmp_path / "net.h5"
    pixels = np.random.default_rng(5).standard_normal((2, 3, *size))
    theirs = framework.act("record", network, saved, pixels)
    theirs_in_training = framework.act("train", network, saved, pixels)

    convert(saved, tmp_path / "out", formats=())

    ours = RegNetForImageClassification.from_pretrained(tmp_path / "out", dtype=torch.float64)
    assert difference(logits_of_network(ours, pixels), theirs) < EXACT
    again = RegNetForImageClassification(ours.config).double()
    again.load_state_dict(ours.state_dict())
    assert difference(logits_of_network(again.train(), pixels), theirs_in_training) < EXACT
    assert difference(theirs, theirs_in_training) > 100 * LIMIT
