"""pytorchcv's files: recognised among its other networks, and what wraps them."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING

import pytest
import torch

from converters.errors import InputError
from converters.families.manifest import network_like
from regnet.config import IMAGENET_MEAN, IMAGENET_STD
from tests.converters.families.conversion import (
    converted,
    difference,
    noise,
    refusal,
    source_of,
    source_of_headers,
    theirs,
)
from tests.converters.stored import headers

pytest.importorskip("pytorchcv")

from converters.families.wrapping import find_state_dicts
from tests.oracles.pytorchcv import build, model, name_of

if TYPE_CHECKING:
    from pathlib import Path


def saved(folder: Path, **options: bool) -> Path:
    torch.save(build(**options).state_dict(), folder / "net.pth")
    return folder / "net.pth"


@pytest.mark.parametrize("attention", [False, True], ids=["x", "y"])
def test_a_flat_file_becomes_the_same_network(attention: bool, tmp_path: Path) -> None:
    network = build(attention=attention)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    done = converted(tmp_path / "net.pth")

    assert done.framework == "pytorchcv"
    assert difference(done.logits(noise(2, 3, 64, 64)), theirs(network, noise(2, 3, 64, 64))) < 1e-5


def test_images_are_made_as_pytorchcv_evaluates(tmp_path: Path) -> None:
    source = source_of(saved(tmp_path))

    transform = source.transform
    assert (transform.resize, transform.crop, transform.filter_name) == (256, 224, "bilinear")
    assert (transform.mean, transform.std) == (IMAGENET_MEAN, IMAGENET_STD)
    assert source.channel_order == "rgb"


@pytest.mark.parametrize("name", ["resnet50", "resnext50_32x4d", "seresnet50"])
def test_other_networks_with_blocks_of_the_same_names_are_none_of_its_regnets(name: str) -> None:
    from pytorchcv.model_provider import get_model

    with torch.device("meta"):
        tensors = headers(get_model(name))

    assert any(key.endswith("stage1.unit1.body.conv3.conv.weight") for key in tensors)
    assert find_state_dicts(tensors) == []


def test_a_zip_around_a_file_is_to_be_unpacked(tmp_path: Path) -> None:
    path = saved(tmp_path)
    with zipfile.ZipFile(tmp_path / "net.pth.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(path, "regnetx002-1066-e389d6ce.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth.zip"), "net.pth.zip")

    assert message == (
        "net.pth.zip: is a zip archive but no checkpoint, for it has no data.pkl; if the "
        "checkpoint is inside, unpack it."
    )


@pytest.mark.parametrize("name", ["RegNetX-200MF", "RegNetY-1.6GF", "RegNetX-32GF"])
def test_a_published_network_is_named(name: str) -> None:
    with torch.device("meta"):
        tensors = headers(model(name_of(name)))

    assert name_of("RegNetX-200MF") == "regnetx002"
    assert network_like(source_of_headers(tensors).config) == name


def test_a_squeeze_that_is_rounded_down_is_refused_with_both_numbers(tmp_path: Path) -> None:
    """A quarter is rounded down in pytorchcv, and half to even in the reference."""
    from pytorchcv.models.regnet import RegNet

    network = RegNet([[8], [16]], init_block_channels=7, groups=[8, 8], use_se=True)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    with pytest.raises(
        InputError, match=r"squeezes to 1 channels where .* of the block's input, 2"
    ):
        source_of(tmp_path / "net.pth")
