"""Converted folders whose every tensor is alive, so that a tensor misplaced shows in the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from converters.folder.folder import ConvertedFolder
from regnet.layers import EvoNormS0a
from regnet.model import RegNetForImageClassification, RegNetModel

if TYPE_CHECKING:
    from pathlib import Path

    from regnet.config import RegNetConfig

CONTRASTS = (0.5, 1.0, 2.0, 4.0)


def random_folder(
    path: Path, config: RegNetConfig, *, classifier: bool = True, seed: int = 0
) -> ConvertedFolder:
    """Save a random model of ``config``, as a trained one would look, and open its folder.

    Batch norms get random scales and shifts and a count of batches, and the statistics of a few
    images of noise, so that the signal survives to the end; the classifier gets weights large
    enough for logits that tell images apart.

    Args:
        path: Where to save; created if missing.
        config: The architecture.
        classifier: Whether to save `RegNetForImageClassification`, else `RegNetModel`.
        seed: Equal seeds give equal bytes; the global generator is left as it was.
    """
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = RegNetForImageClassification(config) if classifier else RegNetModel(config)
        model.apply(_enliven)
        contrasts = torch.tensor(CONTRASTS).reshape(-1, 1, 1, 1)
        model(torch.randn(len(CONTRASTS), config.num_channels, 64, 64) * contrasts)
        model.apply(_count_batches)
    model.save_pretrained(path)
    return ConvertedFolder(path)


def _enliven(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(std=0.3)
        module.momentum = 1.0  # the next batch's statistics replace those there
    elif isinstance(module, nn.GroupNorm | EvoNormS0a):
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(std=0.3)
        if isinstance(module, EvoNormS0a) and module.v is not None:
            module.v.uniform_(0.5, 1.5)
    elif isinstance(module, nn.Linear):
        module.weight.normal_(std=0.3)
        module.bias.normal_()


def _count_batches(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        assert module.num_batches_tracked is not None
        module.num_batches_tracked.random_(1, 10**6)
