"""Transformers as oracle: its own RegNet with the configuration and weights of one of ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn
from transformers.activations import ACT2FN
from transformers.utils import logging

from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Sequence

logging.set_verbosity_error()
logging.disable_progress_bar()
ACT2FN.setdefault("selu", nn.SELU)  # documented for RegNet; transformers 5.23 has no entry for it

TINY: dict[str, Any] = {
    "embedding_size": 16,
    "hidden_sizes": [16, 24, 40, 48],
    "depths": [1, 2, 1, 1],
    "groups_width": 8,
}
"""Fields of a network of four stages that runs in milliseconds."""


def tiny(**fields: Any) -> RegNetConfig:
    """A small configuration; ``fields`` win over those of :data:`TINY`."""
    return RegNetConfig(**TINY | fields)


def classifier(seed: int = 0, **fields: Any) -> RegNetForImageClassification:
    """Our small classifier with weights like a trained one's, in evaluation mode."""
    model = RegNetForImageClassification(tiny(**fields))
    randomise(model, seed=seed)
    return model


def trunk(seed: int = 0, **fields: Any) -> RegNetModel:
    """Our small trunk with weights like a trained one's, in evaluation mode."""
    model = RegNetModel(tiny(**fields))
    randomise(model, seed=seed)
    return model


def twin(model: RegNetModel | RegNetForImageClassification) -> Any:
    """The transformers model of the same class, configuration, weights and mode."""
    fields = model.config.to_dict()
    del fields["model_type"]
    network = getattr(transformers, type(model).__name__)(transformers.RegNetConfig(**fields))
    network.load_state_dict(model.state_dict())
    return network.train(model.training)


def images(batch: int = 2, height: int = 64, width: int = 64, channels: int = 3) -> torch.Tensor:
    """Noise (batch, channels, height, width) of mean 0 and variance 1."""
    generator = torch.Generator().manual_seed(batch + height + width)
    return torch.randn(batch, channels, height, width, generator=generator)


def identical(ours: Any, theirs: Any) -> bool:
    """Whether tensors, or sequences and mappings of them, agree in dtype, shape and every bit."""
    if isinstance(ours, torch.Tensor):
        return ours.dtype == theirs.dtype and torch.equal(ours, theirs)
    if hasattr(ours, "keys"):
        return list(ours.keys()) == list(theirs.keys()) and _all_identical(
            list(ours.values()), list(theirs.values())
        )
    return _all_identical(ours, theirs)


def _all_identical(ours: Sequence[Any], theirs: Sequence[Any]) -> bool:
    return len(ours) == len(theirs) and all(map(identical, ours, theirs))
