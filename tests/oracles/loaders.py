"""The real frameworks load what was written for them: strictly, and from the file alone.

Each builds the network from the configuration in its own file; only those of torchvision,
pytorchcv and VISSL hold none.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from regnet.config import RegNetConfig


def load(framework: str, path: Path, config: RegNetConfig) -> nn.Module:
    """Build and load the network behind a file or folder, in evaluation mode.

    Args:
        framework: As `--to` has it.
        path: What was written.
        config: The network, for those whose files do not say it.
    """
    loaders: dict[str, Callable[[Path], nn.Module]] = {
        "timm": _timm,
        "torchvision": lambda file: _torchvision(file, config),
        "pycls": _pycls,
        "classy-vision": _classy_vision,
        "mmpretrain": _mmpretrain,
        "pytorchcv": lambda file: _pytorchcv(file, config),
        "vissl": lambda file: _vissl(file, config),
    }
    return loaders[framework](path).eval()


def torchvision_network(config: RegNetConfig) -> nn.Module:
    """Torchvision's network with the same stages."""
    from torchvision.models.regnet import BlockParams, RegNet

    widths = config.hidden_sizes
    stages = BlockParams(
        depths=config.depths,
        widths=widths,
        group_widths=[width // max(1, width // config.groups_width) for width in widths],
        bottleneck_multipliers=[1.0] * len(widths),
        strides=[2] * len(widths),
        se_ratio=0.25 if config.layer_type == "y" else None,
    )
    network: nn.Module = RegNet(stages, config.num_labels, config.embedding_size)
    return network


def _torchvision(path: Path, config: RegNetConfig) -> nn.Module:
    network = torchvision_network(config)
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def _timm(path: Path) -> nn.Module:
    import timm

    network: nn.Module = timm.create_model(f"local-dir:{path}", pretrained=True)
    return network


def _pycls(path: Path) -> nn.Module:
    from pycls.core import builders, checkpoint
    from pycls.core.config import cfg, reset_cfg
    from yacs.config import CfgNode

    reset_cfg()
    try:
        cfg.merge_from_other_cfg(CfgNode.load_cfg(torch.load(path, weights_only=True)["cfg"]))
        network: nn.Module = builders.build_model()
    finally:
        reset_cfg()
    assert checkpoint.load_checkpoint(path, network) == 0
    return network


def _classy_vision(path: Path) -> nn.Module:
    from classy_vision.models import build_model  # type: ignore[import-not-found]

    tree: dict[str, Any] = torch.load(path, weights_only=True)
    network: nn.Module = build_model(tree["input_args"]["config"]["model"])
    network.set_classy_state(tree["classy_state_dict"]["base_model"])  # type: ignore[operator]
    return network


def mmpretrain_models() -> Any:
    """OpenMMLab's registry of models, filled."""
    with warnings.catch_warnings(action="ignore"):  # of operators that need compiling
        import mmpretrain.models  # type: ignore[import-not-found]

    return mmpretrain.models.MODELS


def _mmpretrain(path: Path) -> nn.Module:
    models = mmpretrain_models()
    from mmengine.config import Config
    from mmengine.runner import load_checkpoint

    text = torch.load(path, weights_only=True)["meta"]["cfg"]
    network: nn.Module = models.build(Config.fromstring(text, ".py").model)
    load_checkpoint(network, str(path), strict=True)
    return network


def _pytorchcv(path: Path, config: RegNetConfig) -> nn.Module:
    from pytorchcv.models.regnet import RegNet

    widths = config.hidden_sizes
    network: nn.Module = RegNet(
        channels=[[width] * depth for width, depth in zip(widths, config.depths, strict=True)],
        init_block_channels=config.embedding_size,
        groups=[width // max(1, width // config.groups_width) for width in widths],
        use_se=config.layer_type == "y",
        in_channels=config.num_channels,
        num_classes=config.num_labels,
    )
    network.load_state_dict(torch.load(path, weights_only=True))
    return network


def _vissl(path: Path, config: RegNetConfig) -> nn.Module:
    from tests.oracles.vissl import loaded

    widths = config.hidden_sizes
    regnet = {
        "name": "anynet",
        "depths": config.depths,
        "widths": widths,
        "group_widths": [width // max(1, width // config.groups_width) for width in widths],
        "bottleneck_multipliers": [1.0] * len(widths),
        "strides": [2] * len(widths),
        "stem_width": config.embedding_size,
        "use_se": config.layer_type == "y",
    }
    tree: dict[str, Any] = torch.load(path, weights_only=True)
    has_head = bool(tree["classy_state_dict"]["base_model"]["model"]["heads"])
    return loaded(path, regnet, *([widths[-1], config.num_labels] if has_head else []))
