"""RegNetV, RegNetZ and group norm: what timm calls RegNet and transformers cannot express."""

from __future__ import annotations

import json
from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import pytest
import timm
import torch
import transformers

from converters.folder.folder import ConvertedFolder
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs
from regnet.model import RegNetForImageClassification
from regnet.wider import WIDER_TYPE
from tests.converters.families.conversion import LIMIT, Converted, converted, difference, noise
from tests.converters.families.wrong_fields import unseen
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


def limit_of(pair: Pair, dtype: torch.dtype) -> float:
    """How far ours may be from theirs, whose EvoNorm sums in float32 whatever it is given."""
    if dtype == torch.float32:
        return LIMIT
    return 1e-6 if pair.ours.config.norm == "evonorm-s0a" else 1e-12


@torch.inference_mode()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", ["native", "odd"])
def test_logits_are_those_of_timm(pair: Pair, size: str, dtype: torch.dtype) -> None:
    native = cast("dict[str, Any]", pair.theirs.pretrained_cfg)["input_size"]
    pixels = noise(1, *native) if size == "native" else noise(*SIZE)
    ours = RegNetForImageClassification.from_pretrained(pair.ours.out, dtype=dtype)
    theirs = deepcopy(pair.theirs).to(dtype)

    found = difference(ours(pixels.to(dtype)).logits, theirs(pixels.to(dtype)))

    assert found < limit_of(pair, dtype)


@torch.no_grad()
def test_batch_statistics_are_those_of_timm_to_the_last_bit(pair: Pair) -> None:
    """In training mode, in which no running statistics hide what an image contributes."""
    pixels = noise(2, *SIZE[1:])
    ours = pair.ours.in_training(torch.float32)(pixels).logits

    assert torch.equal(ours, deepcopy(pair.theirs).train()(pixels))


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


@torch.inference_mode()
def test_what_is_written_back_opens_in_transformers_with_the_same_logits(
    pair: Pair, tmp_path: Path
) -> None:
    write_back(pair.ours.out, tmp_path / "written", "timm")

    model = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "written")

    assert isinstance(model, transformers.TimmWrapperForImageClassification)
    theirs = pair.theirs.state_dict()
    assert model.timm_model.state_dict().keys() == theirs.keys()
    assert all(torch.equal(one, theirs[n]) for n, one in model.timm_model.state_dict().items())
    pixels = noise(*SIZE)
    assert difference(model.eval()(pixels).logits, pair.theirs(pixels)) < LIMIT


def test_a_hub_folder_gives_the_same_folder(pair: Pair, tmp_path: Path) -> None:
    hub = save_hub_folder(tmp_path / "hub", pair.theirs)

    assert converted(hub).config == pair.ours.config


@pytest.mark.slow
def test_verify_runs_timms_own_network_beside_ours(pair: Pair) -> None:
    folder = ConvertedFolder(pair.ours.out)

    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), pair.path)

    assert verdict.passed, verdict.reason
    assert verdict.not_run is None


@torch.inference_mode()
def test_each_field_wrong_on_purpose_is_refused_or_seen_in_the_logits(pair: Pair) -> None:
    pixels = noise(*SIZE)

    assert unseen(pair.ours.classifier, pixels, pair.theirs(pixels)) == []
