"""SWAG's flat files: ClassyVision's trunk with a head of its own, as SWAG's class names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from tests.converters.loading import TOLERANCES, load, planned, relative_error
from tests.converters.stored import headers

pytest.importorskip("classy_vision")

from classy_vision.models import build_model

from tests.oracles.classy_vision import TINY, build, head

if TYPE_CHECKING:
    from pathlib import Path

BOTH_PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
PUBLISHED = pytest.mark.parametrize("size", ["16gf", "32gf", "128gf"])


class Swag(nn.Module):
    """SWAG's class: the parts of ClassyVision's network, then its head, all under one roof."""

    def __init__(self, trunk: Any, top: Any) -> None:
        super().__init__()
        self.stem, self.trunk_output, self.head = trunk.stem, trunk.trunk_output, top

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.trunk_output(self.stem(images))
        return features if self.head is None else self.head(features)


@BOTH_PRECISIONS
def test_a_fine_tuned_file_computes_the_same_and_was_evaluated_at_384(
    tmp_path: Path, dtype: torch.dtype
) -> None:
    network = Swag(build(TINY), head("unused", 40, 10))
    torch.save(network.state_dict(), tmp_path / "regnety_in1k.torch")

    loaded = load(tmp_path / "regnety_in1k.torch", tmp_path / "out")

    assert loaded.source.framework == "swag"
    assert loaded.source.channel_order == "rgb"
    assert loaded.source.preprocessor_fields()["resize_mode"] == "shortest_edge_then_crop"
    assert loaded.source.transform.in_words == "short side to 384, centre crop 384, bicubic"
    assert relative_error(loaded.network, network, dtype) <= TOLERANCES[dtype]


@BOTH_PRECISIONS
def test_a_file_without_head_becomes_a_trunk_at_224(tmp_path: Path, dtype: torch.dtype) -> None:
    network = Swag(build(TINY), None)
    torch.save(network.state_dict(), tmp_path / "regnety.torch")

    loaded = load(tmp_path / "regnety.torch", tmp_path / "out")

    assert not loaded.source.has_classifier
    assert loaded.source.transform.crop == 224
    assert relative_error(loaded.network, network, dtype) <= TOLERANCES[dtype]


@PUBLISHED
@pytest.mark.parametrize("classes", [0, 1000])
def test_every_published_file_is_planned_from_its_names_and_shapes(size: str, classes: int) -> None:
    with torch.device("meta"):
        trunk = build_model({"name": f"regnet_y_{size}"})
        width = trunk.trunk_output[-1][-1].f.c.out_channels
        network = Swag(trunk, head("unused", width, classes) if classes else None)

    source, plan = planned(headers(network))

    assert source.config.num_labels == (classes or 2)
    assert source.has_classifier == bool(classes)
    assert len(plan.steps) == len(network.state_dict())
