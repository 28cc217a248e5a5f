"""mmpretrain as oracle: its own RegNetX classifiers, saved by mmengine.

Its backbone has the names of mmdetection's. Import this module behind `pytest.importorskip`.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from tests.oracles.statistics import randomise

with warnings.catch_warnings():  # its libraries use what Python and NumPy deprecate
    warnings.simplefilter("ignore")
    import mmcv  # type: ignore[import-not-found]
    import mmpretrain.datasets
    import mmpretrain.models  # noqa: F401
    from mmengine.model import ExponentialMovingAverage
    from mmpretrain.models.backbones import RegNet
    from mmpretrain.registry import MODELS, TRANSFORMS

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image
    from torch import Tensor, nn

SMALL = {"w0": 16, "wa": 12.0, "wm": 1.6, "group_w": 8, "depth": 5, "bot_mul": 1.0}
ARCHITECTURES = tuple(RegNet.arch_settings)
BGR = {"mean": [103.53, 116.28, 123.675], "std": [57.375, 57.12, 58.395], "to_rgb": False}
"""The data preprocessor of its configs/regnet: pixels from 0 to 255, in BGR."""


def build(
    arch: str | None = None, *, classes: int = 10, seed: int = 0, **backbone: Any
) -> nn.Module:
    """An mmpretrain classifier with weights like a trained one's, small unless named.

    Args:
        arch: Its name.
        classes: How many.
        seed: Same seed, same weights.
        backbone: What else its backbone is built with.
    """
    return randomise(_classifier(arch or SMALL, classes, **backbone), seed=seed)


def build_on_meta(arch: str) -> nn.Module:
    """A published classifier without memory for weights."""
    with torch.device("meta"):
        return _classifier(arch, 1000)


def _classifier(arch: str | dict[str, Any], classes: int, **backbone: Any) -> nn.Module:
    shape = {"type": "RegNet", "arch": arch, **backbone}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        width = MODELS.build(shape).stage_widths[-1]
        network: nn.Module = MODELS.build(
            {
                "type": "ImageClassifier",
                "backbone": shape,
                "neck": {"type": "GlobalAveragePooling"},
                "head": {
                    "type": "LinearClsHead",
                    "num_classes": classes,
                    "in_channels": width,
                },
                "data_preprocessor": {"type": "ClsDataPreprocessor", "num_classes": classes, **BGR},
            }
        )
    return network


def averaged(network: nn.Module) -> nn.Module:
    """What mmengine's EMAHook keeps beside a network."""
    kept: nn.Module = ExponentialMovingAverage(network)
    return kept


@torch.inference_mode()
def logits_of_picture(network: nn.Module, picture: Image.Image) -> Tensor:
    """What mmpretrain computes of a picture: BGR, mmcv's resize by Pillow, its own normalising.

    Its configs resize with OpenCV, which no `preprocessor_config.json` can name.
    """
    bgr = np.ascontiguousarray(np.asarray(picture)[:, :, ::-1])
    height, width = bgr.shape[:2]
    scale = 256 / min(height, width)
    size = (int(width * scale), int(height * scale))
    image = mmcv.imresize(bgr, size, interpolation="bilinear", backend="pillow")
    left, top = (round((side - 224) / 2) for side in size)
    box = np.array([left, top, left + 223, top + 223])
    pixels = torch.from_numpy(mmcv.imcrop(image, box).copy()).permute(2, 0, 1)
    normalise: Any = network.data_preprocessor
    logits: Tensor = network(normalise({"inputs": [pixels]})["inputs"])
    return logits


def tested_pixels(config: Any, picture: Image.Image) -> NDArray[np.float32]:
    """What a network takes of a picture in the test of an mmengine configuration.

    Returns:
        (3, height, width), in the order of channels that the network takes.
    """
    dataset = config.test_dataloader.dataset
    rgb = np.array(picture)
    image = rgb if dataset.type.startswith("CIFAR") else np.ascontiguousarray(rgb[:, :, ::-1])
    data: Any = {"img": image, "img_shape": image.shape[:2], "ori_shape": image.shape[:2]}
    for step in dataset.pipeline:
        if step.type != "LoadImageFromFile":  # it is loaded already, as that step loads it
            data = TRANSFORMS.build(step)(data)
    normalise: Any = MODELS.build({"type": "ClsDataPreprocessor", **config.data_preprocessor})
    pixels: NDArray[np.float32] = normalise({"inputs": [data["inputs"]]})["inputs"][0].numpy()
    return pixels
