"""torchvision as oracle: its own RegNets, and its own presets of evaluation."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torchvision.models.regnet import BlockParams, RegNet
from torchvision.transforms import InterpolationMode
from torchvision.transforms._presets import ImageClassification

from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from PIL import Image
    from torch import Tensor, nn

V1: dict[str, Any] = {"resize_size": 256, "crop_size": 224}
V2: dict[str, Any] = {"resize_size": 232, "crop_size": 224}

BUILDERS = (
    *(f"regnet_x_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
    *(f"regnet_y_{size}" for size in ("400mf", "800mf", "1_6gf", "3_2gf", "8gf", "16gf", "32gf")),
)
"""Every builder but the one of 645 million parameters."""

Y_128GF: dict[str, Any] = {"depth": 27, "w_0": 456, "w_a": 160.83, "w_m": 2.52, "group_width": 264}
"""What `regnet_y_128gf` is built from."""


def shape_of(*, attention: bool = True, **arguments: Any) -> BlockParams:
    """A network's shape; the default is a small one of four stages."""
    small = {"depth": 5, "w_0": 16, "w_a": 12.0, "w_m": 1.6, "group_width": 8}
    return BlockParams.from_init_params(**small | arguments, se_ratio=0.25 if attention else None)


def build(*, attention: bool = True, seed: int = 0, classes: int = 10) -> nn.Module:
    """A small network of torchvision with weights like a trained one's."""
    network = RegNet(
        shape_of(attention=attention),
        num_classes=classes,
        norm_layer=partial(torch.nn.BatchNorm2d, eps=1e-5, momentum=0.1),
    )
    return randomise(network, seed=seed)


@torch.inference_mode()
def logits_of_picture(
    network: nn.Module,
    picture: Image.Image,
    interpolation: str = "bilinear",
    **preset: int,
) -> Tensor:
    """What torchvision computes of a picture, preprocessed by the presets of its weights."""
    preprocess = ImageClassification(interpolation=InterpolationMode(interpolation), **preset)
    logits: Tensor = network(preprocess(picture)[None])
    return logits
