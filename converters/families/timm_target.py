"""timm: a hub folder, which ``timm.create_model("local-dir:FOLDER", pretrained=True)`` loads.

Source: timm ``models/_hub.py`` (``save_config_for_hf``) and ``models/regnet.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.families.source import EvalTransform
from converters.families.target import Target
from converters.families.timm_keymap import TIMM
from converters.folder.record import write_json
from regnet.config import CONFIG_NAME
from regnet.design_space import named_like
from regnet.files.safetensors_file import (
    WEIGHTS_NAME,
    TensorSpec,
    write_file,
)
from regnet.image_processor import crop_pct_for
from regnet.imagenet import IMAGENET_MEAN

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.written import Network
    from regnet.config import RegNetConfig

_STEM_WIDTH = 32
_HUNDREDS = {"MF": 0.01, "GF": 10}
"""From a published network's size to the number in timm's name for it."""

_UNPUBLISHED = {
    "regnetx_004_tv": ([1, 2, 7, 12], [32, 64, 160, 400], 16, "x"),
    "regnety_008_tv": ([1, 3, 8, 2], [64, 144, 320, 784], 16, "y"),
    "regnety_080_tv": ([2, 4, 10, 1], [224, 448, 896, 2016], 56, "y"),
    "regnety_640": ([2, 5, 12, 1], [328, 984, 1968, 4920], 328, "y"),
    "regnety_1280": ([2, 7, 17, 1], [528, 1056, 2904, 7392], 264, "y"),
    "regnety_2560": ([2, 7, 17, 1], [746, 1492, 4103, 10444], 373, "y"),
}
"""timm's other networks: depths, widths, group width, type."""


def _write(path: Path, network: Network) -> None:
    path.mkdir(exist_ok=True)
    write_json(path / CONFIG_NAME, _config(network))
    specs = [
        TensorSpec(name, tensor.dtype, tensor.shape) for name, tensor in network.tensors.items()
    ]
    write_file(path / WEIGHTS_NAME, specs, lambda spec: network.chunks(spec.name))


def _config(network: Network) -> dict[str, Any]:
    config = network.config
    classes = config.num_labels if network.folder.has_classifier else 0
    architecture, arguments = _architecture(network)
    return {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": config.hidden_sizes[-1],
        "global_pool": "avg",
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": _pretrained_cfg(config, network.transform, classes),
    }


def _architecture(network: Network) -> tuple[str, dict[str, Any]]:
    """An entrypoint of timm and the arguments that make it this network."""
    config = network.config
    arguments: dict[str, Any] = {}
    if config.num_channels != len(IMAGENET_MEAN):
        arguments["in_chans"] = config.num_channels
    if config.embedding_size != _STEM_WIDTH:
        arguments["stem_width"] = config.embedding_size
    name = entrypoint(config)
    if name:
        return name, arguments
    rule = network.rule
    arguments |= {"depth": rule.depth, "w0": rule.w_0, "wa": rule.w_a, "wm": rule.w_m}
    return f"regnet{config.layer_type}_002", arguments | {"group_size": rule.group_width}


def entrypoint(config: RegNetConfig) -> str | None:
    """Give timm's name of a network with this architecture, or None if it has none."""
    published = named_like(config)
    if published:
        size = published.partition("-")[2]
        number = round(float(size[:-2]) * _HUNDREDS[size[-2:]])
        return f"regnet{config.layer_type}_{number:03}"
    stages = (config.depths, config.hidden_sizes, config.groups_width, config.layer_type)
    return next((name for name, other in _UNPUBLISHED.items() if other == stages), None)


def _pretrained_cfg(config: RegNetConfig, transform: EvalTransform, classes: int) -> dict[str, Any]:
    """How it was evaluated; ``first_conv`` only where timm may adapt it to other channels."""
    channels = config.num_channels
    side = -(-transform.crop // 2 ** (len(config.depths) + 1))
    return {
        "tag": "",
        "custom_load": False,
        "input_size": [channels, transform.crop, transform.crop],
        "fixed_input_size": False,
        "interpolation": transform.filter_name,
        "crop_pct": crop_pct_for(transform.resize, transform.crop),
        "crop_mode": "squash" if transform.squash else "center",
        "mean": list(transform.mean or [0.0] * channels),
        "std": list(transform.std or [1.0] * channels),
        "num_classes": classes,
        "pool_size": [side, side],
        "first_conv": "stem.conv" if channels == len(IMAGENET_MEAN) else None,
        "classifier": "head.fc",
    }


TARGET = Target(
    TIMM,
    _write,
    is_folder=True,
    shortcut_last=True,
    any_channels=True,
    headless=True,
    says=EvalTransform.fields(),
    stage_counts=range(4, 5),
    knows=entrypoint,
)
