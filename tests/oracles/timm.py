"""timm as oracle: its own RegNets, its own files, its own evaluation transform."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import timm
import torch
from timm.data import create_transform, resolve_data_config
from timm.models import save_for_hf
from timm.models._builder import build_model_with_cfg
from timm.models.regnet import RegNet, RegNetCfg

from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from pathlib import Path

    from PIL import Image
    from torch import Tensor, nn

EXPRESSIBLE = timm.list_models("regnet*")
"""Every entrypoint."""

WIDER = [name for name in EXPRESSIBLE if name[6] not in "xy" or name.endswith("_sgn")]
"""Those that transformers' configuration cannot express."""


def build(*, attention: bool = True, seed: int = 0, **arguments: Any) -> nn.Module:
    """A small network of timm with weights like a trained one's; it calls itself regnety_002."""
    shape = RegNetCfg(
        depth=5, w0=16, wa=12.0, wm=1.6, group_size=8, se_ratio=0.25 if attention else 0.0
    )
    network = build_model_with_cfg(
        RegNet, "regnety_002", False, model_cfg=shape, **{"num_classes": 10} | arguments
    )
    return randomise(network, seed=seed)


def save_hub_folder(folder: Path, network: nn.Module, *, safe: bool = True, **config: Any) -> Path:
    """Write what timm pushes to the Hub; ``config`` goes into ``config.json``."""
    save_for_hf(network, str(folder), model_config=config, safe_serialization=safe)
    return folder


@torch.inference_mode()
def logits_of_picture(network: nn.Module, picture: Image.Image, **data: Any) -> Tensor:
    """What timm computes of a picture, as its `validate.py` preprocesses it."""
    config = resolve_data_config(data, pretrained_cfg=network.pretrained_cfg)
    pixels = create_transform(**config, is_training=False)(picture)
    logits: Tensor = network(pixels[None])
    return logits
