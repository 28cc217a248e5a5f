"""The evaluation transforms of the real frameworks: their own code and settings.

Each function gives the normalised pixels (3, height, width) in RGB that a framework feeds its
network; where it feeds BGR, its own result is flipped here. OpenCV's bilinear filter, which pycls
and OpenMMLab resize with, has no name in a ``preprocessor_config.json``: show them pictures of
short side 256, which they crop without resizing.
"""

from __future__ import annotations

import json
import sys
import warnings
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from PIL import Image
    from torch import Tensor


@contextmanager
def stand_in(name: str, module: ModuleType) -> Iterator[None]:
    """Let a framework import something that it does not come to use and that is not installed."""
    added = sys.modules.setdefault(name, module) is module
    try:
        yield
    finally:
        if added:
            del sys.modules[name]


def pycls(picture: Image.Image) -> Tensor:
    """As ``pycls.datasets.imagenet`` prepares for testing, with the sizes of its defaults."""
    with stand_in("simplejson", json):  # its logging, and nothing else, needs it
        from pycls.datasets.imagenet import ImageNet

    bgr = np.asarray(picture)[:, :, ::-1].astype(np.float32)
    prepared = ImageNet._prepare_im(SimpleNamespace(_split="val"), bgr)
    return torch.from_numpy(prepared).flip(0)


def timm(picture: Image.Image, stated: Mapping[str, Any], **arguments: Any) -> Tensor:
    """As timm's ``validate.py`` evaluates with a ``pretrained_cfg`` and arguments."""
    from timm.data import create_transform, resolve_data_config

    given = {"img_size": None, **arguments}  # none at all is refused
    transform = create_transform(**resolve_data_config(given, dict(stated)), is_training=False)
    pixels: Tensor = transform(picture)
    return pixels


def torchvision(picture: Image.Image, builder: str, weights: str) -> Tensor:
    """As the weights of one of torchvision's builders say."""
    from torchvision.models import get_model_weights

    pixels: Tensor = get_model_weights(builder)[weights].transforms()(picture)
    return pixels


def resized_and_cropped(picture: Image.Image, resize: int, crop: int) -> Tensor:
    """By torchvision's preset, for frameworks that state sizes and have no code of their own."""
    from torchvision.transforms._presets import ImageClassification

    pixels: Tensor = ImageClassification(resize_size=resize, crop_size=crop)(picture)
    return pixels


def classy_vision(picture: Image.Image) -> Tensor:
    """As ClassyVision's default without augmentation."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from classy_vision.dataset.transforms.util import ImagenetNoAugmentTransform

    pixels: Tensor = ImagenetNoAugmentTransform()(picture)
    return pixels


def vissl(picture: Image.Image, crop: int, **resize: Any) -> Tensor:
    """As VISSL builds the transforms of its configurations; ``resize`` are settings of Resize."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from vissl.data.ssl_transforms import get_transform

    steps: list[dict[str, Any]] = [
        {"name": "Resize", **resize},
        {"name": "CenterCrop", "size": crop},
        {"name": "ToTensor"},
        {"name": "Normalize", "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]},
    ]
    pixels: Tensor = get_transform(steps)({"data": [picture]})["data"][0]
    return pixels


def openmmlab(picture: Image.Image) -> Tensor:
    """As the pipeline and the preprocessor of mmpretrain's own configuration."""
    image = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
    sample: Any = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
    steps, normalise = _openmmlab_pipeline()
    for step in steps:
        sample = step(sample)
    pixels: Tensor = normalise({"inputs": [sample["inputs"]]})["inputs"][0]
    return pixels.flip(0)


@cache
def _openmmlab_pipeline() -> tuple[list[Any], Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unused = ModuleType("mat4py")  # of a data set of cars
        unused.__dict__["loadmat"] = None
        with stand_in("mat4py", unused):
            import mmpretrain.datasets.transforms
        import mmpretrain.models  # noqa: F401
        from mmengine.config import Config
        from mmpretrain.registry import MODELS, TRANSFORMS

        folder = Path(sys.modules["mmpretrain"].__path__[0]) / ".mim/configs/regnet"
        config = Config.fromfile(folder / "regnetx-400mf_8xb128_in1k.py")
        pipeline = config.test_dataloader.dataset.pipeline[1:]  # the first reads a file
        normalise = MODELS.build({"type": "ClsDataPreprocessor", **config.data_preprocessor})
        return [TRANSFORMS.build(step) for step in pipeline], normalise


def transformers(picture: Image.Image, folder: Path) -> Tensor:
    """As the processor in a folder, by Pillow."""
    from transformers import ConvNextImageProcessorPil

    processor = ConvNextImageProcessorPil.from_pretrained(folder)
    pixels: Tensor = processor(picture, return_tensors="pt")["pixel_values"][0]
    return pixels
