"""Converted folders whose every tensor is alive, so that a tensor misplaced shows in the output."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from converters.folder import ConvertedFolder
from regnet.model import RegNetForImageClassification, RegNetModel

if TYPE_CHECKING:
    from pathlib import Path

    from regnet.config import RegNetConfig


def random_folder(
    path: Path, config: RegNetConfig, *, classifier: bool = True, seed: int = 0
) -> ConvertedFolder:
    """Save a random model of ``config``, as a trained one would look, and open its folder.

    Batch norms get statistics, scales and shifts of varied size, and a count of batches; the
    classifier gets weights large enough for logits that tell images apart.

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
    model.save_pretrained(path)
    return ConvertedFolder(path)


def _enliven(module: nn.Module) -> None:
    if isinstance(module, nn.BatchNorm2d):
        assert module.running_mean is not None
        assert module.running_var is not None
        assert module.num_batches_tracked is not None
        module.weight.uniform_(0.5, 1.5)
        module.bias.normal_(std=0.3)
        module.running_mean.normal_(std=0.3)
        module.running_var.log_normal_(std=0.5)
        module.num_batches_tracked.random_(1, 10**6)
    elif isinstance(module, nn.Linear):
        module.weight.normal_(std=0.3)
        module.bias.normal_()
