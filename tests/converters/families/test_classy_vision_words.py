"""What ClassyVision's and torchvision's words say of evaluation, against their own transforms."""

from __future__ import annotations

import argparse
import json
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torchvision.transforms._presets import ImageClassification

from converters.families.classy_vision_config import ClassyVisionConfig
from converters.families.source import BILINEAR, NOT_UNDERSTOOD, EvalTransform, Preprocessing
from regnet import RegNetImageProcessor
from tests.converters.families.conversion import picture, source_of
from tests.oracles import classy_vision, torchvision

if TYPE_CHECKING:
    from PIL import Image

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
DEFAULT = EvalTransform(256, 224, BILINEAR)
OWN = Preprocessing(DEFAULT, "the framework's own")


def on_input(*steps: dict[str, Any]) -> list[dict[str, Any]]:
    """A test that treats the picture of a sample."""
    return [{"name": "apply_transform_to_key", "key": "input", "transforms": list(steps)}]


def normalised(mean: list[float] = MEAN, std: list[float] = STD) -> list[dict[str, Any]]:
    """The end of a test."""
    return [{"name": "ToTensor"}, {"name": "Normalize", "mean": mean, "std": std}]


TESTS: dict[str, list[dict[str, Any]]] = {
    "as published": on_input(
        {"name": "Resize", "size": 256}, {"name": "CenterCrop", "size": 224}, *normalised()
    ),
    "SEER's fine-tuning": on_input(
        {"name": "Resize", "size": 384, "interpolation": 3},
        {"name": "CenterCrop", "size": 384},
        *normalised(),
    ),
    "snake case, other numbers": on_input(
        {"name": "resize", "size": [80]},
        {"name": "center_crop", "size": [64, 64]},
        *normalised([0.5] * 3, [0.25] * 3),
    ),
    "squashed": on_input({"name": "Resize", "size": [96, 96]}, *normalised()),
    "not normalised": on_input(
        {"name": "Resize", "size": 80}, {"name": "CenterCrop", "size": 64}, {"name": "ToTensor"}
    ),
    "ImageNet's own": on_input({"name": "imagenet_no_augment", "resize": 80, "crop_size": 64}),
}


def theirs(transforms: list[dict[str, Any]], image: Image.Image) -> np.ndarray[Any, Any]:
    """What ClassyVision's own transforms make of a picture."""
    return np.asarray(classy_vision.tested(transforms, image))


@pytest.mark.parametrize("test", TESTS)
def test_a_picture_is_treated_as_classy_vision_s_own_test_treats_it(test: str) -> None:
    config = ClassyVisionConfig({"dataset": {"test": {"transforms": TESTS[test]}}})

    transform = config.preprocessing(OWN).transform
    processor = RegNetImageProcessor(**transform.preprocessor_fields(3))

    for image in (picture(400, 300), picture(300, 517)):
        ours = processor(image, return_tensors="np")["pixel_values"][0]
        assert np.allclose(ours, theirs(TESTS[test], image), atol=1e-5)
    assert not config.not_understood


def shipped() -> list[Path]:
    """The configurations for ImageNet in ClassyVision's wheel."""
    spec = find_spec("classy_vision")
    assert spec
    assert spec.origin
    return sorted((Path(spec.origin).parent / "configs" / "imagenet").glob("*.json"))


@pytest.mark.parametrize("path", shipped(), ids=lambda path: path.stem)
def test_a_shipped_configuration_is_understood(path: Path) -> None:
    values = json.loads(path.read_text())
    config = ClassyVisionConfig(values)
    transforms = values["dataset"]["test"]["transforms"]

    transform = config.preprocessing(OWN).transform
    processor = RegNetImageProcessor(**transform.preprocessor_fields(3))

    ours = processor(picture(), return_tensors="np")["pixel_values"][0]
    assert np.allclose(ours, theirs(transforms, picture()), atol=1e-5)
    if values["model"]["name"].startswith("regnet"):
        assert not config.not_understood


def test_the_default_of_a_data_set_is_imagenet_s() -> None:
    config = ClassyVisionConfig(
        {
            "dataset": {
                "test": {"transforms": [{"name": "generic_image_transform", "split": "test"}]}
            }
        }
    )

    assert not config.preprocessing(OWN).transform.differences(DEFAULT)
    assert not config.not_understood


def test_the_words_of_a_checkpoint_reach_its_folder(tmp_path: Path) -> None:
    network = classy_vision.build(
        classy_vision.TINY, {"trunk_output": [classy_vision.head("default_head", 40, 10)]}
    )
    test = {"name": "image_path", "transforms": TESTS["SEER's fine-tuning"]}
    config = {
        "name": "classification_task",
        "dataset": {"train": {}, "test": test},
        "model": {**classy_vision.TINY, "gates": 3},
        "dropout": 0.1,
    }
    tree = {
        "input_args": {"config": config},
        "classy_state_dict": {"base_model": network.get_classy_state()},
    }
    torch.save(tree, tmp_path / "checkpoint.torch")

    source = source_of(tmp_path / "checkpoint.torch")

    assert source.transform.in_words == "short side to 384, centre crop 384, bicubic"
    (said,) = [d.value for d in source.decisions if d.topic == NOT_UNDERSTOOD]
    assert said == "dropout, model.gates"


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"name": "FiveCrop", "size": 64}, "the transform fivecrop"),
        ({"name": "Resize", "size": [64, 96]}, "the transform resize"),
        ({"name": "Resize", "size": 80}, "the transform list, which crops nothing"),
        ({"name": "CenterCrop", "size": 64}, "the transform centercrop (a crop of 64 pixels)"),
    ],
)
def test_a_transform_that_cannot_be_followed_is_named(step: dict[str, Any], named: str) -> None:
    config = ClassyVisionConfig({"dataset": {"test": {"transforms": on_input(step)}}})

    (decision,) = config.not_understood

    assert decision.value.startswith(named)


OLD = {"data_path": "/data", "model": "regnet_y_400mf", "batch_size": 32, "epochs": 90, "lr": 0.1}


@pytest.mark.parametrize(
    ("arguments", "preset"),
    [
        ({}, {"resize_size": 256, "crop_size": 224}),
        ({"interpolation": "bicubic"}, {"resize_size": 256, "crop_size": 224}),
        ({"val_crop_size": 192, "val_resize_size": 200}, {"resize_size": 200, "crop_size": 192}),
    ],
)
def test_torchvision_s_trainers_evaluate_as_they_did_when_they_saved(
    arguments: dict[str, Any], preset: dict[str, int], tmp_path: Path
) -> None:
    args = argparse.Namespace(**OLD, **arguments)
    state = torchvision.build().state_dict()
    torch.save({"model": state, "epoch": 89, "args": args}, tmp_path / "model_89.pth")

    source = source_of(tmp_path / "model_89.pth")

    mode = torchvision.InterpolationMode(arguments.get("interpolation", "bilinear"))
    theirs = ImageClassification(**preset, interpolation=mode)(picture())
    processor = RegNetImageProcessor(**source.preprocessor_fields())
    ours = processor(picture(), return_tensors="np")["pixel_values"][0]
    assert np.allclose(ours, theirs.numpy(), atol=1e-5)
    assert not [d for d in source.decisions if d.topic == NOT_UNDERSTOOD]


def test_an_argument_that_torchvision_never_had_is_named(tmp_path: Path) -> None:
    args = argparse.Namespace(**OLD, attention=True)
    state = torchvision.build().state_dict()
    torch.save({"model": state, "args": args}, tmp_path / "model.pth")

    source = source_of(tmp_path / "model.pth")

    assert [d.value for d in source.decisions if d.topic == NOT_UNDERSTOOD] == ["attention"]
