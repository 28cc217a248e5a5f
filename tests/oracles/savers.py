"""Small networks that the real frameworks build, and save as their own trainers do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from tests.oracles.loaders import mmpretrain_models
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

RULE: dict[str, Any] = {"depth": 6, "w0": 16, "wa": 12.0, "wm": 1.6}
"""Stages of 1, 1, 1 and 3 blocks with 16, 24, 40, 64 channels; timm's and mmpretrain's words."""

_IMAGE_SIZES: dict[str, Any] = {"TEST__IM_SIZE": 72, "TRAIN__IM_SIZE": 64}


def save(framework: str, folder: Path, layer_type: str, classes: int = 5) -> tuple[nn.Module, Path]:
    """Build a network with weights like a trained one's and save it in its framework's way.

    Args:
        framework: As `--to` has it.
        folder: Where the file goes.
        layer_type: ``x`` or ``y``.
        classes: Of the classifier.

    Returns:
        The network, in evaluation mode, and what it was saved as.
    """
    savers = {
        "timm": _timm,
        "torchvision": _torchvision,
        "pycls": _pycls,
        "classy-vision": _classy_vision,
        "mmpretrain": _mmpretrain,
        "pytorchcv": _pytorchcv,
        "vissl": _vissl,
    }
    network, path = savers[framework](folder, layer_type, classes)
    return network.eval(), path


def _timm(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    import timm
    from timm.models import save_for_hf

    arguments = RULE | {"group_size": 8}
    network = timm.create_model(f"regnet{layer_type}_002", num_classes=classes, **arguments)
    path = folder / "timm"
    save_for_hf(randomise(network), path, model_args=arguments)
    return network, path


def _torchvision(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    from torchvision.models.regnet import BlockParams, RegNet

    stages = BlockParams.from_init_params(
        RULE["depth"],
        RULE["w0"],
        RULE["wa"],
        RULE["wm"],
        group_width=8,
        se_ratio=0.25 if layer_type == "y" else None,
    )
    network = randomise(RegNet(stages, num_classes=classes))
    torch.save(network.state_dict(), folder / "torchvision.pth")
    return network, folder / "torchvision.pth"


def _pycls(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    from tests.oracles.pycls import build
    from tests.oracles.pycls import save as save_as_pycls

    regnet = {key.upper(): value for key, value in RULE.items()}
    regnet |= {"GROUP_W": 8, "SE_ON": layer_type == "y"}
    network = build(regnet, classes=classes, **_IMAGE_SIZES)
    path = folder / "pycls.pyth"
    return network, save_as_pycls(path, network, regnet, classes=classes, **_IMAGE_SIZES)


def _classy_vision(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    from tests.oracles.classy_vision import build, checkpoint, head

    config = {"name": "regnet", "group_width": 8, "use_se": layer_type == "y"}
    config |= {"depth": RULE["depth"], "w_0": RULE["w0"], "w_a": RULE["wa"], "w_m": RULE["wm"]}
    network = build(config, {"trunk_output": [head("default_head", 64, classes)]})
    torch.save(checkpoint(network, config), folder / "classy-vision.torch")
    return network, folder / "classy-vision.torch"


def _mmpretrain(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    models = mmpretrain_models()
    from mmengine.runner import save_checkpoint

    assert layer_type == "x"
    network = models.build(
        {
            "type": "ImageClassifier",
            "backbone": {"type": "RegNet", "arch": RULE | {"group_w": 8, "bot_mul": 1.0}},
            "neck": {"type": "GlobalAveragePooling"},
            "head": {"type": "LinearClsHead", "num_classes": classes, "in_channels": 64},
        }
    )
    save_checkpoint(
        {"meta": {"epoch": 100}, "state_dict": randomise(network).state_dict()},
        str(folder / "mmpretrain.pth"),
    )
    return network, folder / "mmpretrain.pth"


def _pytorchcv(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    from tests.oracles.pytorchcv import build

    network = build(attention=layer_type == "y", classes=classes)
    torch.save(network.state_dict(), folder / "pytorchcv.pth")
    return network, folder / "pytorchcv.pth"


def _vissl(folder: Path, layer_type: str, classes: int) -> tuple[nn.Module, Path]:
    from tests.oracles.vissl import consolidated, network

    regnet = {"group_width": 8, "use_se": layer_type == "y"}
    regnet |= {"depth": RULE["depth"], "w_0": RULE["w0"], "w_a": RULE["wa"], "w_m": RULE["wm"]}
    made = network(regnet, classes)
    content = consolidated(made.trunk.state_dict(), made.heads.state_dict())
    torch.save(content, folder / "vissl.torch")
    return made, folder / "vissl.torch"
