"""OpenMMLab: a file as mmengine saves it, whose ``meta`` holds the configuration that builds it.

Source: mmpretrain ``models/backbones/regnet.py`` and ``configs/_base_/models/regnet/*.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any

from converters.families.openmmlab_keymap import OPENMMLAB
from converters.families.source import EvalTransform
from converters.families.target import Target

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.written import Network

_HEAD = "head."
_BACKBONE = "backbone."
_LEVELS = 255
"""mmpretrain normalises pixels of 0 to 255."""


def _write(path: Path, network: Network) -> None:
    state = OrderedDict(
        (name if name.startswith(_HEAD) else _BACKBONE + name, tensor)
        for name, tensor in network.state_dict().items()
    )
    network.save(path, {"meta": {"cfg": _config_text(network)}, "state_dict": state})


def _config_text(network: Network) -> str:
    """The model and its pixels, in the Python text of mmengine's configurations."""
    config, rule, transform = network.config, network.rule, network.transform
    stages = len(config.depths)
    arch = {
        "depth": rule.depth,
        "w0": rule.w_0,
        "wa": rule.w_a,
        "wm": rule.w_m,
        "group_w": rule.group_width,
        "bot_mul": 1.0,
    }
    backbone = {
        "type": "RegNet",
        "arch": arch,
        "in_channels": config.num_channels,
        "stem_channels": config.embedding_size,
        "strides": (2,) * stages,
        "dilations": (1,) * stages,
        "out_indices": (stages - 1,),
    }
    model = {
        "type": "ImageClassifier",
        "backbone": backbone,
        "neck": {"type": "GlobalAveragePooling"},
    }
    if network.folder.has_classifier:
        model["head"] = {
            "type": "LinearClsHead",
            "num_classes": config.num_labels,
            "in_channels": config.hidden_sizes[-1],
            "loss": {"type": "CrossEntropyLoss", "loss_weight": 1.0},
            "topk": (1, 5) if config.num_labels >= 5 else (1,),  # noqa: PLR2004
        }
    channels = config.num_channels
    mean, std = transform.mean or (0.0,) * channels, transform.std or (1.0,) * channels
    pixels = {
        "mean": [round(_LEVELS * value, 6) for value in reversed(mean)],
        "std": [round(_LEVELS * value, 6) for value in reversed(std)],
        "to_rgb": False,
    }
    test = {"dataset": {"type": "CustomDataset", "pipeline": _pipeline(transform)}}
    return f"model = {model!r}\ndata_preprocessor = {pixels!r}\ntest_dataloader = {test!r}\n"


def _pipeline(transform: EvalTransform) -> list[dict[str, Any]]:
    """The steps of the test, resized by Pillow as they are here."""
    how = {"backend": "pillow", "interpolation": transform.filter_name}
    if transform.squash:
        sizes: list[dict[str, Any]] = [
            {"type": "Resize", "scale": (transform.crop, transform.crop), **how}
        ]
    else:
        sizes = [
            {"type": "ResizeEdge", "scale": transform.resize, "edge": "short", **how},
            {"type": "CenterCrop", "crop_size": transform.crop},
        ]
    return [{"type": "LoadImageFromFile"}, *sizes, {"type": "PackInputs"}]


TARGET = Target(
    OPENMMLAB,
    _write,
    channel_order="bgr",
    shortcut_last=True,
    has_attention=False,
    any_channels=True,
    headless=True,
    stage_counts=range(1, 5),
    says=EvalTransform.fields(),
)
