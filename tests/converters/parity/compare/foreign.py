"""Artefacts that other tools made of the real timm network."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import timm
import torch

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

SIDE = 64
"""Height and width, in pixels, that a network is traced at."""


def network_of(folder: Path) -> nn.Module:
    """The network that timm itself loads from a folder of its own."""
    network: nn.Module = timm.create_model(f"local-dir:{folder}", pretrained=True)
    return network.eval()


def export_onnx(network: nn.Module, path: Path, *, batch: int = 1, **options: Any) -> Path:
    """By torch's exporter, with names of its own; the size is fixed unless ``dynamic_axes`` say."""
    with warnings.catch_warnings(action="ignore"):  # it is deprecated, and in use
        torch.onnx.export(
            network,
            (torch.randn(batch, 3, SIDE, SIDE),),
            path,
            dynamo=False,
            **{"input_names": ["picture"], "output_names": ["scores"]} | options,
        )
    return path


def export_torchscript(network: nn.Module, path: Path) -> Path:
    """By tracing."""
    with warnings.catch_warnings(action="ignore"):
        traced: Any = torch.jit.trace(network, torch.randn(1, 3, SIDE, SIDE), check_trace=False)
        traced.save(path)
    return path
