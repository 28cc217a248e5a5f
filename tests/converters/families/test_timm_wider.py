"""RegNetV, RegNetZ and group norm: what timm calls RegNet and transformers cannot express."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
import transformers

from converters.folder.folder import ConvertedFolder
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs
from regnet.config import RegNetConfig
from regnet.model import RegNetForImageClassification
from regnet.wider import WIDER_TYPE
from tests.converters.families.conversion import Converted, converted, noise
from tests.oracles.statistics import randomise
from tests.oracles.timm import WIDER, save_hub_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

QUICK = ("regnetz_005",)
"""The smallest; those of other kinds are slow."""

SIZE = (1, 3, 97, 128)
"""An odd one, where pooling and padding meet the edge."""


@dataclass(frozen=True)
class Pair:
    """A network of timm's, and its folder."""

    name: str
    theirs: nn.Module
    path: Path
    ours: Converted


@pytest.fixture(
    scope="module",
    params=[pytest.param(n, marks=[pytest.mark.slow] * (n not in QUICK)) for n in WIDER],
)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    root = tmp_path_factory.mktemp(request.param)
    theirs = randomise(timm.create_model(request.param, num_classes=7))
    torch.save(theirs.state_dict(), root / "net.pth")
    return Pair(request.param, theirs, root / "net.pth", converted(root / "net.pth"))


@torch.inference_mode()
def test_logits_are_those_of_timm(pair: Pair) -> None:
    pixels = noise(*SIZE)
    theirs = pair.theirs(pixels)

    error = (pair.ours.logits(pixels) - theirs).abs().max() / theirs.abs().max()

    assert error < 1e-5


@torch.no_grad()
def test_batch_statistics_are_those_of_timm_to_the_last_bit(pair: Pair) -> None:
    """In training mode, in which no running statistics hide what an image contributes."""
    ours = RegNetForImageClassification(pair.ours.config).train()
    ours.load_state_dict(
        {name: tensor.clone() for name, tensor in pair.ours.classifier.state_dict().items()}
    )
    pixels = noise(2, *SIZE[1:])

    assert torch.equal(ours(pixels).logits, deepcopy(pair.theirs).train()(pixels))


def test_transformers_is_not_let_near_the_folder(pair: Pair) -> None:
    stated = json.loads((pair.ours.out / "config.json").read_text("utf-8"))

    assert stated["model_type"] == WIDER_TYPE
    assert stated["architectures"] == ["AnyNetForImageClassification"]
    with pytest.raises(ValueError, match=WIDER_TYPE):
        transformers.AutoConfig.from_pretrained(pair.ours.out)


@torch.inference_mode()
def test_what_is_written_back_is_a_folder_that_timm_loads_with_the_same_bytes(
    pair: Pair, tmp_path: Path
) -> None:
    written = tmp_path / "written"
    write_back(pair.ours.out, written, "timm")

    loaded = timm.create_model(f"local-dir:{written}", pretrained=True).eval()

    theirs = pair.theirs.state_dict()
    assert loaded.state_dict().keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in loaded.state_dict().items())
    pixels = noise(*SIZE)
    assert torch.equal(loaded(pixels), pair.theirs(pixels))


def test_a_hub_folder_gives_the_same_folder(pair: Pair, tmp_path: Path) -> None:
    hub = save_hub_folder(tmp_path / "hub", pair.theirs)

    assert converted(hub).config == pair.ours.config


@pytest.mark.slow
def test_verify_runs_timms_own_network_beside_ours(pair: Pair) -> None:
    folder = ConvertedFolder(pair.ours.out)

    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), pair.path)

    assert verdict.passed, verdict.reason
    assert verdict.not_run is None


OTHER: dict[str, Any] = {
    "hidden_act": "relu",
    "se_act": "gelu",
    "output_act": True,
    "final_act": True,
    "norm_eps": 1e-2,
    "norm_group_size": 8,
    "stem_strides": [2, 2, 1],
    "strides": [2, 2, 2, 1],
    "padding": "same",
}
"""Another value of every field that shapes do not show."""


@torch.inference_mode()
@pytest.mark.parametrize("field", OTHER)
def test_a_wrong_field_that_no_shape_shows_is_seen_in_the_logits(pair: Pair, field: str) -> None:
    right = pair.ours.config.to_dict()
    value = OTHER[field] if field != "stem_strides" or pair.ours.config.stem_sizes else [1]
    wrong = right | {field: value}
    if RegNetConfig.from_dict(wrong) == pair.ours.config:
        pytest.skip("it is this network's")
    if field == "norm_group_size" and pair.ours.config.norm == "batch":
        pytest.skip("batch norms have no groups")
    if field == "final_act" and pair.ours.config.head_size:
        pytest.skip("behind a convolution with an activation of its own")
    if field == "output_act" and pair.ours.config.preactivation:
        pytest.skip("preactivated blocks end in none")
    if field == "hidden_act" and pair.ours.config.norm == "evonorm-s0a":
        pytest.skip("EvoNorm is its own activation")
    model = RegNetForImageClassification(RegNetConfig.from_dict(wrong)).eval()
    model.load_state_dict(pair.ours.classifier.state_dict())
    pixels = noise(*SIZE)
    theirs = pair.theirs(pixels)

    error = (model(pixels).logits - theirs).abs().max() / theirs.abs().max()

    assert error > 1e-4
