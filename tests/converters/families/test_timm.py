"""Networks that the real timm builds and saves: hub folders, files, training checkpoints."""

from __future__ import annotations

import argparse
import json
import re
from copy import deepcopy
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from timm.utils import CheckpointSaver, ModelEmaV3

from converters.families.labels import imagenet_labels
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
from tests.oracles.timm import EXPRESSIBLE, WIDER, build, logits_of_picture, save_hub_folder

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


@pytest.fixture(scope="module")
def network() -> nn.Module:
    return build()


@pytest.mark.parametrize("safe", [True, False], ids=["safetensors", "bin"])
def test_a_hub_folder_sees_a_picture_as_timm_does(
    tmp_path: Path, network: nn.Module, safe: bool
) -> None:
    ours = converted(save_hub_folder(tmp_path / "net", network, safe=safe))

    assert ours.framework == "timm"
    assert (
        difference(ours.logits_of_picture(picture()), logits_of_picture(network, picture())) < LIMIT
    )


@pytest.mark.parametrize("attention", [True, False], ids=["Y", "X"])
@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
        lambda state: {f"_orig_mod.{name}": t for name, t in state.items()},
        lambda state: {"state_dict": {f"model.{name}": t for name, t in state.items()}, "epoch": 1},
    ],
    ids=["flat", "DeiT", "DDP", "compiled", "Lightning"],
)
def test_a_file_computes_what_timm_computes(tmp_path: Path, wrap: Any, attention: bool) -> None:
    network = build(attention=attention)
    path = tmp_path / "net.pth"
    torch.save(wrap(network.state_dict()), path)

    ours = converted(path)

    assert ours.framework == "timm"
    assert ours.config.layer_type == ("y" if attention else "x")
    assert ours.decision("evaluation transform") == (
        "short side to 256, centre crop 224, bicubic",
        "timm's default; the file does not say",
    )
    assert difference(ours.logits(noise()), theirs(network, noise())) < LIMIT


def train(path: Path, network: nn.Module, *, ema: bool = True, **arguments: Any) -> ModelEmaV3:
    """Save with timm's own saver, as its `train.py` does; return the averaged model."""
    averaged = ModelEmaV3(build(seed=1))
    args = argparse.Namespace(**{"model": "regnety_002", "img_size": None} | arguments)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    CheckpointSaver(network, optimizer, args, averaged if ema else None)._save(path, 3)
    return averaged


@pytest.mark.parametrize(
    ("choice", "taken", "reason"),
    [
        ("best", "ema", "what timm itself takes"),
        ("raw", "raw", "as asked for"),
        ("ema", "ema", "as asked for"),
    ],
)
def test_a_training_checkpoint_gives_raw_or_averaged_weights(
    tmp_path: Path, network: nn.Module, choice: str, taken: str, reason: str
) -> None:
    averaged = train(tmp_path / "net.pth.tar", network)

    ours = converted(tmp_path / "net.pth.tar", weights=choice)

    expected = averaged.module if taken == "ema" else network
    assert ours.decision("weights")[0] == taken
    assert reason in ours.decision("weights")[1]
    assert difference(ours.logits(noise()), theirs(expected, noise())) < LIMIT


def test_a_training_checkpoint_sees_a_picture_as_its_arguments_say(
    tmp_path: Path, network: nn.Module
) -> None:
    data = {
        "img_size": 192,
        "crop_pct": 0.9,
        "interpolation": "bilinear",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2,),
    }
    train(tmp_path / "net.pth.tar", network, ema=False, **data)

    ours = converted(tmp_path / "net.pth.tar")

    assert (
        ours.decision("evaluation transform")[0] == "short side to 213, centre crop 192, bilinear"
    )
    expected = logits_of_picture(network, picture(), **data)
    assert difference(ours.logits_of_picture(picture()), expected) < LIMIT


@pytest.mark.parametrize(
    ("stated", "words"),
    [
        ({"crop_pct": 0.875}, "short side to 256, centre crop 224, bicubic"),
        ({"crop_pct": 0.95}, "short side to 235, centre crop 224, bicubic"),
        ({"crop_pct": 0.965}, "short side to 232, centre crop 224, bicubic"),
        (
            {"crop_pct": 1.0, "input_size": (3, 384, 384)},
            "short side to 384, centre crop 384, bicubic",
        ),
        ({"interpolation": "lanczos"}, "short side to 256, centre crop 224, lanczos"),
        (
            {"crop_pct": 1.0, "input_size": (3, 384, 384), "crop_mode": "squash"},
            "squashed to 384 x 384, bicubic",
        ),
    ],
)
def test_the_transform_of_a_hub_folder_is_computed_to_the_pixel(
    tmp_path: Path, network: nn.Module, stated: dict[str, Any], words: str
) -> None:
    stating = deepcopy(network)
    stating.__dict__["pretrained_cfg"] = {**vars(network)["pretrained_cfg"], **stated}
    ours = converted(save_hub_folder(tmp_path / "net", stating))

    value, reason = ours.decision("evaluation transform")
    assert (value, reason.split(",")[0]) == (words, "the folder's pretrained_cfg")
    big = picture(600, 500)
    assert difference(ours.logits_of_picture(big), logits_of_picture(stating, big)) < LIMIT


def edit_config(folder: Path, **changes: Any) -> Path:
    """Change ``config.json``; a dict is merged."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    for key, value in changes.items():
        config[key] = {**config.get(key, {}), **value} if isinstance(value, dict) else value
    path.write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model_args": {"act_layer": "mish"}}, "act_layer 'mish'; .* relu, silu or gelu"),
        ({"model_args": {"norm_layer": "groupnorm"}}, "norm_layer 'groupnorm'; .* batch norms"),
        ({"model_args": {"output_stride": 16}}, "output_stride 16; .* stride 32"),
        ({"pretrained_cfg": {"crop_mode": "border"}}, "crop_mode border"),
        ({"pretrained_cfg": {"crop_mode": "squash"}}, "crop_mode squash"),
        ({"pretrained_cfg": {"crop_pct": 1.1}}, "crop_pct 1.1"),
        ({"pretrained_cfg": {"interpolation": "random"}}, "and random, which"),
        ({"pretrained_cfg": {"input_size": [3, 224, 256]}}, "224 x 256 pixels"),
        ({"pretrained_cfg": {"input_size": [3, 0, 0]}}, "not channels, height and width"),
    ],
)
def test_a_hub_folder_that_cannot_be_kept_is_refused_by_the_setting(
    tmp_path: Path, network: nn.Module, changes: dict[str, Any], words: str
) -> None:
    folder = edit_config(save_hub_folder(tmp_path / "net", network), **changes)

    assert re.search(words, refusal(lambda: source_of(folder), "net"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bn_eps": 1e-3}, "bn_eps 0.001; .* 1e-05"),
        ({"model_kwargs": {"act_layer": "mish"}}, "act_layer 'mish'"),
    ],
)
def test_a_training_checkpoint_of_another_network_is_refused_by_the_argument(
    tmp_path: Path, network: nn.Module, arguments: dict[str, Any], words: str
) -> None:
    train(tmp_path / "net.pth.tar", network, **arguments)

    assert re.search(words, refusal(lambda: source_of(tmp_path / "net.pth.tar"), "net.pth.tar"))


@pytest.mark.parametrize("attention", [True, False], ids=["Y", "X"])
def test_an_activation_that_only_the_configuration_tells_is_computed(
    tmp_path: Path, attention: bool
) -> None:
    network = build(attention=attention, act_layer="silu")
    folder = edit_config(
        save_hub_folder(tmp_path / "net", network), model_args={"act_layer": "silu"}
    )

    ours = converted(folder)

    assert ours.config.hidden_act == "silu"
    assert ours.config.se_act == ("silu" if attention else "relu")
    assert difference(ours.logits(noise()), theirs(network, noise())) < LIMIT


NAMES = [f"class {index}" for index in range(10)]


@pytest.mark.parametrize("place", ["beside pretrained_cfg", "in pretrained_cfg"])
def test_the_labels_of_a_hub_folder_are_kept(
    tmp_path: Path, network: nn.Module, place: str
) -> None:
    changes: dict[str, Any] = {"label_names": NAMES}
    changes = changes if place.startswith("beside") else {"pretrained_cfg": changes}
    folder = edit_config(save_hub_folder(tmp_path / "net", network), **changes)

    ours = converted(folder)

    assert list(ours.config.id2label.values()) == NAMES
    assert ours.decision("labels") == ("10 names", "the folder's label_names")


@pytest.mark.parametrize(
    ("tag", "classes", "named"),
    [("pycls_in1k", 1000, True), ("sw_in12k_ft_in1k", 1000, True), ("sw_in12k", 1000, False)],
)
def test_the_classes_are_imagenets_only_if_the_tag_says_so(
    tmp_path: Path, tag: str, classes: int, named: bool
) -> None:
    folder = save_hub_folder(tmp_path / "net", build(num_classes=classes))
    source = source_of(edit_config(folder, pretrained_cfg={"tag": tag}))

    assert source.labels == (imagenet_labels() if named else None)


def test_a_list_that_does_not_name_every_class_is_left_out(
    tmp_path: Path, network: nn.Module
) -> None:
    folder = save_hub_folder(tmp_path / "net", network, label_names=NAMES[:-1])

    assert source_of(folder).labels is None


@pytest.mark.parametrize(("channels", "normalised"), [(1, [0.5]), (4, [0.5] * 4), (2, None)])
def test_other_input_channels_are_kept(
    tmp_path: Path, channels: int, normalised: list[float] | None
) -> None:
    network = build(in_chans=channels)
    folder = edit_config(
        save_hub_folder(tmp_path / "net", network),
        pretrained_cfg={"mean": [0.5], "std": [0.5], "input_size": [channels, 224, 224]},
    )

    ours = converted(folder)

    pixels = noise(2, channels, 96, 96)
    assert ours.decision("channel order") == ("kept", f"{channels} input channels")
    assert difference(ours.logits(pixels), theirs(network, pixels)) < LIMIT
    if normalised:
        assert list(ours.processor.image_mean) == normalised


@pytest.mark.parametrize("name", EXPRESSIBLE)
def test_every_entrypoint_is_read_whole(name: str) -> None:
    with torch.device("meta"):
        network = timm.create_model(name)
    source = source_of_headers(headers(network))

    plan = make_plan(source, name)

    assert len(plan.steps) == len(network.state_dict())
    assert not plan.skipped
    assert source.config.num_labels == 1000
    assert source.config.layer_type == ("x" if name[6] == "x" else "y")
    assert bool(source.config.wider_fields()) == (name in WIDER)
