"""pycls: a file as its ``core/checkpoint.py`` saves it, without the optimiser.

The ``cfg`` text builds the network: published networks by the linear rule, all others by their
stages, as an AnyNet.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from converters.families.pycls_keymap import PYCLS
from converters.families.target import Target
from regnet.design_space import NETWORKS, named_like

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.written import Network
    from regnet.config import RegNetConfig


def _write(path: Path, network: Network) -> None:
    text = yaml.safe_dump(_cfg(network), default_flow_style=None)
    network.save(path, {"epoch": 0, "model_state": network.state_dict(), "cfg": text})


def _cfg(network: Network) -> dict[str, Any]:
    """The settings that are not pycls' defaults, or that a reader looks for."""
    config = network.config
    model: dict[str, Any] = {"NUM_CLASSES": config.num_labels}
    if config.hidden_act != "relu":
        model["ACTIVATION_FUN"] = config.hidden_act  # a key that 0.1.1 does not have yet
    name = named_like(config) if config.downsample_in_first_stage else None
    stages = {"REGNET": _regnet(name)} if name else {"ANYNET": _anynet(network)}
    section = next(iter(stages.values()))
    section |= {"SE_ON": config.layer_type == "y", "STEM_W": config.embedding_size}
    return {
        "MODEL": model | {"TYPE": next(iter(stages)).lower()},
        "TRAIN": {"IM_SIZE": network.transform.crop},
        "TEST": {"IM_SIZE": network.transform.resize},
        **stages,
    }


def _regnet(name: str) -> dict[str, Any]:
    rule = NETWORKS[name]
    return {
        "DEPTH": rule.depth,
        "W0": rule.w_0,
        "WA": rule.w_a,
        "WM": rule.w_m,
        "GROUP_W": rule.group_width,
    }


def _anynet(network: Network) -> dict[str, Any]:
    config = network.config
    return {
        "DEPTHS": config.depths,
        "WIDTHS": config.hidden_sizes,
        "STRIDES": _strides(config),
        "BOT_MULS": [1.0] * len(config.depths),
        "GROUP_WS": network.group_widths,
    }


def _strides(config: RegNetConfig) -> list[int]:
    return [2 if config.downsample_in_first_stage else 1, *[2] * (len(config.depths) - 1)]


TARGET = Target(
    PYCLS,
    _write,
    channel_order="bgr",
    states_activation=True,
    says=frozenset({"resize", "crop"}),
)
