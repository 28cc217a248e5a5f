"""The oracles are there: elsewhere a missing one only skips its tests, here it fails."""

from __future__ import annotations

from importlib import import_module

import pytest

ORACLES = (
    "ai_edge_litert.interpreter",
    "classy_vision.models",
    "fairscale.nn",
    "mmpretrain.models",
    "openvino",
    "pycls.models.regnet",
    "pytorchcv.models.regnet",
    "timm",
    "torchvision.models",
    "transformers",
    "vissl.models",
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("module", ORACLES)
def test_an_oracle_can_be_imported(module: str) -> None:
    assert import_module(module)
