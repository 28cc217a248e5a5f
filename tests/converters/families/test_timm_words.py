"""What timm's words say of evaluation and pooling, against timm's own reading of them."""

from __future__ import annotations

import argparse
import math
from typing import TYPE_CHECKING, Any, cast

import pytest
import timm
import torch
from timm.data import resolve_data_config
from timm.models import get_pretrained_cfg
from timm.utils import CheckpointSaver

from converters.checkpoint import open_any
from converters.checkpoint.values import Beside
from converters.families.manifest import manifest, timm_default
from converters.families.source import FILTERS, NOT_UNDERSTOOD, EvalTransform
from converters.families.timm import FAMILY as TIMM
from converters.families.timm_config import TimmConfig
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    refusal,
    source_of,
    theirs,
)
from tests.oracles.timm import EXPRESSIBLE, build, save_hub_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

TAGS = [p.name for p in manifest() if p.publisher == "timm"]


def train(path: Path, network: nn.Module, **arguments: Any) -> Path:
    """Save with timm's own saver what its `train.py` would with these arguments."""
    args = argparse.Namespace(**{"model": "regnety_002", "img_size": None} | arguments)
    CheckpointSaver(network, torch.optim.SGD(network.parameters(), 0.1), args)._save(path, 3)
    return path


def ours(arguments: dict[str, Any], folder: dict[str, Any] | None = None) -> EvalTransform:
    """The transform that we read from arguments."""
    model = arguments.get("model_kwargs", {})
    return TimmConfig("net", folder or {}, arguments, model).preprocessing.transform


def timms(arguments: dict[str, Any], name: str) -> EvalTransform:
    """The transform that timm's trainer evaluates with, given the model that the name makes."""
    cfg: dict[str, Any] = get_pretrained_cfg(name).to_dict()
    cfg |= arguments.get("model_kwargs", {}).get("pretrained_cfg_overlay", {})
    data = resolve_data_config(arguments, pretrained_cfg=cfg)
    size = data["input_size"][1]
    return EvalTransform(
        math.floor(size / data["crop_pct"]),
        size,
        FILTERS[data["interpolation"]],
        tuple(data["mean"]),
        tuple(data["std"]),
        data["crop_mode"] == "squash",
    )


ARGUMENTS: list[dict[str, Any]] = [
    {},
    {"img_size": None, "input_size": None, "crop_pct": None, "interpolation": "", "mean": None},
    {"img_size": 256},
    {"input_size": (3, 192, 192), "interpolation": "bilinear"},
    {"crop_pct": 1.0, "mean": (0.5, 0.4, 0.3), "std": (0.2,)},
    {"model_kwargs": {"pretrained_cfg_overlay": {"crop_pct": 0.9, "mean": (0.5, 0.5, 0.5)}}},
    {"crop_pct": 1.0, "crop_mode": "squash", "img_size": 160},
]


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=str)
def test_arguments_that_name_a_model_mean_its_pretrained_cfg(arguments: dict[str, Any]) -> None:
    for name in (*filter(timm_default, EXPRESSIBLE), *TAGS):
        expected = timms(arguments, name)
        assert not ours({"model": name, **arguments}).differences(expected), name
        hub = f"hf-hub:timm/{name}"
        assert name not in TAGS or ours({"model": hub, **arguments}) == ours(
            {"model": name, **arguments}
        )


def test_a_number_as_input_size_is_of_deit_s_trainer() -> None:
    transform = ours({"model": "regnety_160", "input_size": 240, "eval_crop_ratio": 0.875})

    assert transform.in_words == "short side to 274, centre crop 240, bicubic"


def test_an_image_squashed_below_384_is_kept_to_the_pixel(tmp_path: Path) -> None:
    path = train(tmp_path / "net.pth.tar", build(), crop_pct=1.0, crop_mode="squash", img_size=96)

    assert converted(path).processor.squashes


@pytest.mark.parametrize("pooling", ["max", "avgmax", "fastmax", "MAX"])
@pytest.mark.parametrize("place", ["gp", "model_kwargs"])
def test_a_training_that_pooled_otherwise_is_refused_by_the_pooling(
    tmp_path: Path, pooling: str, place: str
) -> None:
    stated = {"gp": pooling} if place == "gp" else {"model_kwargs": {"global_pool": pooling}}
    path = train(tmp_path / "net.pth.tar", build(), **stated)

    message = refusal(lambda: source_of(path), "net.pth.tar")
    assert f"global pooling {pooling.lower()!r}" in message


def test_a_hub_folder_that_pooled_otherwise_is_refused_by_the_pooling(tmp_path: Path) -> None:
    folder = save_hub_folder(tmp_path / "net", build(global_pool="avgmax"))

    assert "global pooling 'avgmax'" in refusal(lambda: source_of(folder), "net")


def test_pooling_that_averages_under_another_name_is_computed(tmp_path: Path) -> None:
    network = build(global_pool="fast")
    path = train(tmp_path / "net.pth.tar", network, gp="fast")

    assert difference(converted(path).logits(noise()), theirs(network, noise())) < LIMIT


def test_a_trunk_may_leave_its_features_unpooled(tmp_path: Path) -> None:
    folder = save_hub_folder(tmp_path / "net", build(num_classes=0, global_pool=""))

    assert not source_of(folder).has_classifier


def test_the_network_to_compare_with_pools_as_the_file_says(tmp_path: Path) -> None:
    network = build(global_pool="max")
    source = source_of(train(tmp_path / "average.pth.tar", network))
    path = train(tmp_path / "maximum.pth.tar", network, gp="max")

    with open_any(path) as checkpoint:
        assert TIMM.build is not None
        real = TIMM.build(source, checkpoint)
    real.module.load_state_dict(network.state_dict())
    real.module.eval()

    assert difference(theirs(real.module, noise()), theirs(network, noise())) < LIMIT


def test_a_word_that_nobody_understands_is_named_and_no_other(tmp_path: Path) -> None:
    known = {"epochs": 300, "lr": 0.1, "aa": "rand-m9", "model_ema": True, "split_bn": False}
    unknown = {"frozen_stem": True, "model_kwargs": {"blur": "hamming"}, "label_noise": None}
    path = train(tmp_path / "net.pth.tar", build(), **known, **unknown)

    (said,) = [d for d in source_of(path).decisions if d.topic == NOT_UNDERSTOOD]

    assert said.value == "frozen_stem, model_kwargs.blur"


def test_a_model_that_timm_has_not_is_named(tmp_path: Path) -> None:
    path = train(tmp_path / "net.pth.tar", build(), model="my_regnet")

    (said,) = [d for d in source_of(path).decisions if d.topic == NOT_UNDERSTOOD]

    assert said.value == "model my_regnet"


@pytest.mark.parametrize("name", ["regnety_004.tv2_in1k", "regnetx_016.pycls_in1k"])
def test_a_folder_of_before_2023_says_the_same(name: str, tmp_path: Path) -> None:
    cfg = {key: value for key, value in get_pretrained_cfg(name).to_dict().items() if value}
    legacy = cast("Any", type("Legacy", (), {"path": tmp_path, "tree": {}}))
    legacy.beside = Beside({"architecture": name.split(".", maxsplit=1)[0], **cfg})

    config = TimmConfig.of(legacy)

    assert config.preprocessing.transform == timms({}, name)
    assert config.not_understood == ()
    assert timm.is_model(config.folder["architecture"])
