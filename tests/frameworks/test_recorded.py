"""What the real frameworks saved converts to networks that compute what they computed."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters.errors import InputError
from converters.families.known import FAMILIES
from converters.families.tensor_layout import TORCH, TensorLayout
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from regnet import RegNetForImageClassification
from regnet.design_space import fit_widths_to_groups, stage_widths_and_depths
from tests.converters.checkpoint.keras_files import read_here
from tests.converters.families.wrong_fields import unseen
from tests.frameworks.drawn import NETWORKS, SMALL, images
from tests.frameworks.environments import FRAMEWORKS, RECORDED, written

if TYPE_CHECKING:
    from pathlib import Path

LIMIT = 1e-5
"""Largest difference in float32, in units of the largest logit."""

EVERY_NETWORK = pytest.mark.parametrize("network", SMALL)
EVERY_FRAMEWORK = pytest.mark.parametrize("framework", FRAMEWORKS)


def recorded(framework: str, network: str) -> Path:
    return RECORDED / framework / (network + FRAMEWORKS[framework].ending)


@cache
def recorded_logits(framework: str, network: str) -> np.ndarray:
    content = json.loads((RECORDED / framework / "logits.json").read_text("utf-8"))
    return np.array(content["logits"][network], np.float32)


def logits_of(folder: Path) -> np.ndarray:
    return logits_of_network(RegNetForImageClassification.from_pretrained(folder), images())


@torch.inference_mode()
def logits_of_network(network: RegNetForImageClassification, pixels: np.ndarray) -> np.ndarray:
    logits: np.ndarray = network(torch.from_numpy(pixels)).logits.numpy()
    return logits


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_s_stages_are_those_of_its_rule(name: str) -> None:
    network = NETWORKS[name]
    rule = stage_widths_and_depths(network.depth, network.w_0, network.w_a, network.w_m)
    widths = fit_widths_to_groups(rule[0], network.group_width)

    assert (tuple(widths), tuple(rule[1])) == (network.widths, network.depths)


@EVERY_NETWORK
@EVERY_FRAMEWORK
def test_a_recorded_file_computes_what_its_framework_computed(
    framework: str, network: str, tmp_path: Path
) -> None:
    done = convert(recorded(framework, network), tmp_path / "out", formats=())

    assert done.inspection.source.framework == framework
    assert difference(logits_of(tmp_path / "out"), recorded_logits(framework, network)) < LIMIT


OTHERS = [(name, other) for name, one in FRAMEWORKS.items() for other in one.others]


@pytest.mark.parametrize(("framework", "other"), OTHERS)
def test_other_forms_compute_the_same(framework: str, other: str, tmp_path: Path) -> None:
    done = convert(RECORDED / framework / other, tmp_path / "out", formats=(), verify=False)

    assert done.inspection.source.framework == framework
    assert difference(logits_of(tmp_path / "out"), recorded_logits(framework, "y")) < LIMIT


WIDER = [(name, other) for name, one in FRAMEWORKS.items() for other in one.wider]


@pytest.mark.parametrize(("framework", "network"), WIDER)
def test_networks_of_its_own_compute_what_their_framework_computed(
    framework: str, network: str, tmp_path: Path
) -> None:
    done = convert(RECORDED / framework / network, tmp_path / "out", formats=())

    assert done.inspection.source.framework == framework
    theirs = recorded_logits(framework, network)
    assert difference(logits_of(tmp_path / "out"), theirs) < LIMIT
    assert difference(theirs[:1], theirs[1:]) > 100 * LIMIT


def file_of(framework: str, network: str) -> Path:
    return RECORDED / framework / network if "." in network else recorded(framework, network)


OF_KERAS = [*(("keras-applications", network) for network in SMALL), *WIDER]


@pytest.mark.parametrize(("framework", "network"), OF_KERAS)
def test_each_field_wrong_on_purpose_is_refused_or_seen_in_the_logits(
    framework: str, network: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read_here(monkeypatch)
    convert(file_of(framework, network), tmp_path / "out", formats=())
    ours = RegNetForImageClassification.from_pretrained(tmp_path / "out")
    theirs = torch.from_numpy(recorded_logits(framework, network))

    assert unseen(ours, torch.from_numpy(images()), theirs) == []


@EVERY_NETWORK
@EVERY_FRAMEWORK
def test_recorded_logits_tell_images_and_classes_apart(framework: str, network: str) -> None:
    logits = recorded_logits(framework, network)

    assert logits.shape == (2, SMALL[network].classes)
    assert difference(logits[:1], logits[1:]) > 0.02
    assert np.ptp(logits[0]) > 0.1


LAYOUTS = [
    (name, layout)
    for name in FRAMEWORKS
    for layout in (
        TORCH,
        TensorLayout("HWIO", "IO"),
        TensorLayout("OHWI"),
        TensorLayout("OWHI"),
        TensorLayout("HWIO"),
        TensorLayout("WHIO", "IO"),
        TensorLayout(matrix="IO"),
    )
    if layout != FAMILIES[name].family.layout
]


@pytest.mark.parametrize(("framework", "layout"), LAYOUTS)
@EVERY_NETWORK
def test_another_layout_is_seen(
    framework: str,
    layout: TensorLayout,
    network: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By shapes, or where none tells, as with height and width, by what comes out."""
    read_here(monkeypatch)
    known = FAMILIES[framework]
    monkeypatch.setattr(f"{known.module}.FAMILY", replace(known.family, layout=layout))

    try:
        convert(recorded(framework, network), tmp_path / "out", formats=(), verify=False)
    except InputError:
        return
    assert (
        difference(logits_of(tmp_path / "out"), recorded_logits(framework, network)) > 100 * LIMIT
    )


WRITTEN = [*written(SMALL), *WIDER]


@pytest.mark.parametrize(("framework", "network"), WRITTEN)
def test_a_recorded_network_is_written_back_as_it_was(
    framework: str, network: str, tmp_path: Path
) -> None:
    convert(file_of(framework, network), tmp_path / "out", formats=(), verify=False)
    back = tmp_path / f"back{FRAMEWORKS[framework].ending}"
    write_back(tmp_path / "out", back, framework)
    convert(back, tmp_path / "again", formats=(), verify=False)

    ours, again = ((tmp_path / out / "model.safetensors").read_bytes() for out in ("out", "again"))
    assert ours == again
