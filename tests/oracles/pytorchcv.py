"""pytorchcv as oracle: its own RegNets, which are the 24 of the paper."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from torch import nn

SMALL: dict[str, Any] = {
    "channels_init": 16,
    "channels_slope": 12.0,
    "channels_mult": 1.6,
    "depth": 6,
    "groups": 8,
}
"""Stages of 1, 1, 1 and 3 blocks with 16, 24, 40, 64 channels."""


def name_of(network: str) -> str:
    """Its name of a published network: ``regnetx002`` of RegNetX-200MF."""
    layer_type, size = network.removeprefix("RegNet").lower().split("-")
    hundreds = float(size[:-2]) * {"mf": 0.01, "gf": 10}[size[-2:]]
    return f"regnet{layer_type}{round(hundreds):03}"


def model(name: str, **options: Any) -> nn.Module:
    """One of its own networks."""
    from pytorchcv.models import regnet

    network: nn.Module = getattr(regnet, name)(**options)
    return network


def build(*, attention: bool = True, seed: int = 0, classes: int = 10) -> nn.Module:
    """A small network with weights like a trained one's."""
    from pytorchcv.models.regnet import get_regnet

    network = get_regnet(**SMALL, use_se=attention, num_classes=classes)
    return randomise(network, seed=seed)
