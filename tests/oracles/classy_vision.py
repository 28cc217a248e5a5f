"""The real ClassyVision 0.7.0 as oracle: its own code builds networks and attaches heads."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from classy_vision.heads import build_head
from classy_vision.models import build_model

from tests.oracles.statistics import randomise

with warnings.catch_warnings(action="ignore"):  # of torchvision's, deprecated
    from classy_vision.dataset.transforms import build_transforms

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from PIL import Image
    from torch import Tensor

TINY: dict[str, Any] = {
    "name": "regnet",
    "depth": 4,
    "w_0": 16,
    "w_a": 8.0,
    "w_m": 1.6,
    "group_width": 8,
}
"""A network of three stages (16, 24, 40 channels) for tests that need no published one."""

TINY_X = TINY | {"use_se": False}

UNEVEN: dict[str, Any] = {
    "name": "anynet",
    "depths": [1, 2, 1],
    "widths": [16, 24, 48],
    "group_widths": [16, 24, 24],
    "bottleneck_multipliers": [1.0, 1.0, 1.0],
    "strides": [2, 2, 2],
}
"""Groups as in ``regnet_y_256gf``: the first stage is narrower than the group width, 24."""


def head(unique_id: str, width: int, classes: int, **options: Any) -> Any:
    """ClassyVision's linear head with weights like a trained one's."""
    made = build_head(
        {
            "name": "fully_connected",
            "unique_id": unique_id,
            "num_classes": classes,
            "in_plane": width,
            **options,
        }
    )
    torch.nn.init.normal_(made.fc.bias)
    return made.eval()


def build(
    config: Mapping[str, Any], heads: Mapping[str, Sequence[Any]] | None = None, seed: int = 0
) -> Any:
    """A network as ClassyVision builds it, in evaluation mode.

    Args:
        config: What its registry takes.
        heads: Block name to the heads attached to it.
        seed: Same seed, same weights.
    """
    network = build_model(dict(config))
    randomise(network, seed=seed)
    network.set_heads({name: list(made) for name, made in (heads or {}).items()})
    return network.eval()


def checkpoint(network: Any, config: Mapping[str, Any], **hooks: Any) -> dict[str, Any]:
    """What ClassyVision's checkpoint hook saves of a training run."""
    return {
        "input_args": {"config_file": "run.json", "config": {"model": dict(config)}},
        "classy_state_dict": {
            "train": False,
            "base_model": network.get_classy_state(),
            "meters": [{"name": "accuracy"}],
            "optimizer": {"optim": {"state": {}, "param_groups": [{"lr": 0.1}]}},
            "phase_idx": 199,
            "losses": [0.5, 0.4],
            "hooks": hooks,
        },
    }


def averaging_hook_state(raw: Any, averaged: Any) -> dict[str, Any]:
    """What the hook that averages weights adds to a checkpoint, having seen these two networks."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its package scripts functions with torch.jit
        from classy_vision.hooks import ExponentialMovingAverageModelHook

    hook = ExponentialMovingAverageModelHook(0.9, device="cpu")
    hook._save_current_model_state(raw, hook.state.model_state)
    hook._save_current_model_state(averaged, hook.state.ema_model_state)
    state: dict[str, Any] = hook.get_classy_state()
    return state


def tested(transforms: Sequence[Mapping[str, Any]], picture: Image.Image) -> Tensor:
    """What a test's transforms, as a configuration states them, make of a picture."""
    pixels: Tensor = build_transforms(transforms)({"input": picture})["input"]
    return pixels
