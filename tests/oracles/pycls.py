"""The real pycls 0.1.1 as oracle: its own code builds the networks and saves the checkpoints."""

from __future__ import annotations

from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pycls.core.builders as pycls_builders
import pycls.core.checkpoint as pycls_checkpoint
import pycls.core.optimizer as pycls_optimizer
import torch
from pycls.core.config import cfg, reset_cfg

from regnet.design_space import NETWORKS
from tests.oracles.statistics import _calibrate, randomise

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

TINY = {"DEPTH": 4, "W0": 16, "WA": 8.0, "WM": 1.6, "GROUP_W": 8, "SE_ON": True}
"""A network of three stages (16, 24, 40 channels) for tests that need no published one."""

TINY_X = TINY | {"SE_ON": False}


def published(name: str) -> dict[str, Any]:
    """Give the REGNET settings of a published network, as pycls' yaml files have them."""
    network = NETWORKS[name]
    return {
        "DEPTH": network.depth,
        "W0": network.w_0,
        "WA": network.w_a,
        "WM": network.w_m,
        "GROUP_W": network.group_width,
        "SE_ON": network.layer_type == "y",
    }


@contextmanager
def settings(regnet: dict[str, Any], classes: int = 1000, **others: Any) -> Iterator[None]:
    """Set pycls' global cfg to a RegNet; ``others`` are full keys, with ``__`` for the dot."""
    reset_cfg()
    pairs: list[Any] = ["MODEL.TYPE", "regnet", "MODEL.NUM_CLASSES", classes, "OUT_DIR", "out"]
    pairs += ["OPTIM.BASE_LR", 0.1, "OPTIM.NESTEROV", True, "OPTIM.WEIGHT_DECAY", 5e-5]
    for key, value in regnet.items():
        pairs += [f"REGNET.{key}", value]
    for key, value in others.items():
        pairs += [key.replace("__", "."), value]
    cfg.merge_from_list(pairs)
    try:
        yield
    finally:
        reset_cfg()


def build(
    regnet: dict[str, Any], *, classes: int = 1000, seed: int = 0, **others: Any
) -> nn.Module:
    """A pycls network with weights and statistics like a trained one's, in evaluation mode."""
    with settings(regnet, classes, **others):
        return randomise(pycls_builders.build_model(), seed=seed)


@torch.no_grad()
def halve_branches(network: nn.Module, ends: tuple[str, ...] = (".c_bn",)) -> nn.Module:
    """Let every block add half as much to its input, with statistics measured anew.

    Up to 27 branches that are drawn independently amplify each other, and rounding errors with
    them. Over eight draws of RegNetY-1.6GF, logits of a picture with its channels added in another
    order change by 6e-6 to 7e-5 of the largest in float32, in float64 by less than 3e-12. With half
    of each branch it is 1e-6 to 3e-6 over six draws.

    Args:
        network: From :func:`build`; changed in place, and left in evaluation mode.
        ends: What the names of the modules end with that blocks end with.
    """
    for name, module in network.named_modules():
        if name.endswith(ends):
            for parameter in module.parameters(recurse=False):
                parameter.div_(2)
    _calibrate(network, 64, torch.Generator().manual_seed(0))
    return network.eval()


def save(  # noqa: PLR0913 -- what a checkpoint depends on
    path: Path,
    network: nn.Module,
    regnet: dict[str, Any],
    *,
    classes: int = 1000,
    legacy: bool = True,
    optimiser: bool = True,
    **others: Any,
) -> Path:
    """Save a checkpoint with pycls' own function, with momentum buffers in the optimiser state.

    Args:
        path: Where the file ends up.
        network: From :func:`build`.
        regnet: The settings it was built with.
        classes: Likewise.
        legacy: The container of torch before 1.6, as in the model zoo, or the zip of today.
        optimiser: Whether to take an optimiser step first, so that there is momentum to save.
        others: Further cfg settings.
    """
    with settings(regnet, classes, **others):
        optimizer = pycls_optimizer.construct_optimizer(network)
        if optimiser:
            for parameter in network.parameters():
                optimizer.state[parameter]["momentum_buffer"] = torch.full_like(parameter, 0.01)
        cfg.OUT_DIR = str(path.parent)
        save_now = partial(torch.save, _use_new_zipfile_serialization=not legacy)
        with patch.object(torch, "save", save_now):
            written = pycls_checkpoint.save_checkpoint(network, optimizer, 99)
    Path(written).rename(path)
    return path
