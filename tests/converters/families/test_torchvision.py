"""Networks that the real torchvision builds: its flat files, and its trainer's checkpoints."""

from __future__ import annotations

import argparse
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
import torchvision
from torch.optim.swa_utils import AveragedModel

from converters.weights.plan import make_plan
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    picture,
    refusal,
    source_of,
    source_of_headers,
    theirs,
)
from tests.converters.stored import headers
from tests.oracles.torchvision import (
    BUILDERS,
    V1,
    V2,
    Y_128GF,
    build,
    logits_of_picture,
    shape_of,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


@pytest.mark.parametrize("attention", [True, False], ids=["Y", "X"])
def test_a_flat_file_sees_a_picture_as_torchvision_does(tmp_path: Path, attention: bool) -> None:
    network = build(attention=attention)
    torch.save(network.state_dict(), tmp_path / "regnet.pth")

    ours = converted(tmp_path / "regnet.pth")

    assert ours.framework == "torchvision"
    assert ours.config.layer_type == ("y" if attention else "x")
    for image in (picture(400, 300), picture(300, 517)):
        expected = logits_of_picture(network, image, **V2)
        assert difference(ours.logits_of_picture(image), expected) < LIMIT


def test_the_recipe_that_no_tensor_tells_is_a_printed_decision(tmp_path: Path) -> None:
    torch.save(build().state_dict(), tmp_path / "regnet.pth")

    value, reason = converted(tmp_path / "regnet.pth").decision("evaluation transform")

    assert value == "short side to 232, centre crop 224, bilinear"
    assert reason == "torchvision's IMAGENET1K_V2; its V1 files were evaluated at 256"


def train(path: Path, network: nn.Module, **arguments: Any) -> AveragedModel:
    """Save what `references/classification/train.py` saves; return the averaged model."""
    averaged = AveragedModel(build(seed=1))
    args = argparse.Namespace(model="regnet_y_400mf", **arguments)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    checkpoint = {
        "model": network.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 1).state_dict(),
        "epoch": 3,
        "args": args,
        "model_ema": averaged.state_dict(),
    }
    torch.save(checkpoint, path)
    return averaged


@pytest.mark.parametrize(("choice", "taken"), [("best", "ema"), ("raw", "raw"), ("ema", "ema")])
def test_the_trainers_checkpoint_gives_raw_or_averaged_weights(
    tmp_path: Path, choice: str, taken: str
) -> None:
    network = build()
    averaged = train(tmp_path / "model_9.pth", network)

    ours = converted(tmp_path / "model_9.pth", weights=choice)

    expected = averaged.module.eval() if taken == "ema" else network
    assert ours.decision("weights")[0] == taken
    assert difference(ours.logits(noise()), theirs(expected, noise())) < LIMIT
    left_out = {"model", "n_averaged"} if taken == "ema" else {"model_ema.module"}
    assert set(ours.record["skipped"]) == left_out


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ({"val_resize_size": 256, "val_crop_size": 224}, V1),
        (
            {"val_resize_size": 250, "val_crop_size": 192, "interpolation": "bicubic"},
            {"resize_size": 250, "crop_size": 192, "interpolation": "bicubic"},
        ),
    ],
)
def test_the_trainers_arguments_tell_the_recipe(
    tmp_path: Path, arguments: dict[str, Any], preset: dict[str, Any]
) -> None:
    network = build()
    train(tmp_path / "model_9.pth", network, **arguments)

    ours = converted(tmp_path / "model_9.pth", weights="raw")

    assert ours.decision("evaluation transform")[1] == "the training run's args"
    expected = logits_of_picture(network, picture(), **preset)
    assert difference(ours.logits_of_picture(picture()), expected) < LIMIT


@pytest.mark.parametrize(
    "arguments",
    [
        {"val_resize_size": 200, "val_crop_size": 224},
        {"val_resize_size": None, "val_crop_size": 224},
        {"val_resize_size": 256, "val_crop_size": 0},
        {"val_resize_size": 256, "val_crop_size": 224, "interpolation": "area"},
    ],
)
def test_arguments_that_evaluate_nothing_are_refused(
    tmp_path: Path, arguments: dict[str, Any]
) -> None:
    train(tmp_path / "model_9.pth", build(), **arguments)

    message = refusal(lambda: source_of(tmp_path / "model_9.pth"), "model_9.pth")

    assert re.search("args evaluate with val_resize_size .* no larger than the image", message)


@pytest.mark.parametrize(
    "name",
    [
        *(
            pytest.param(name, marks=pytest.mark.slow if name.endswith(("16gf", "32gf")) else ())
            for name in BUILDERS
        ),
        "regnet_y_128gf",
    ],
)
def test_every_builder_is_read_whole(name: str) -> None:
    if name == "regnet_y_128gf":  # a builder computes its widths with tensors, so not on meta
        shape = shape_of(**Y_128GF)
        with torch.device("meta"):
            network = torchvision.models.RegNet(shape)
    else:
        network = torchvision.models.get_model(name)
    source = source_of_headers(headers(network))

    plan = make_plan(source, name)

    assert len(plan.steps) == len(network.state_dict())
    assert source.config.layer_type == name[7]
