"""From a checkpoint to our network by the converter's own way, without exports and verification."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file

from converters.families.family import Found
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.families.wrapping import find_state_dicts
from converters.weights.inspection import Inspection, inspected
from converters.weights.plan import Plan, make_plan
from converters.weights.stream import write_weights
from regnet.model import RegNetForImageClassification, RegNetModel

if TYPE_CHECKING:
    from converters.families.source import Source

TOLERANCES = {torch.float32: 1e-5, torch.float64: 1e-12}


@dataclass(frozen=True)
class Loaded:
    """What the converter found out about a checkpoint, and the network it made of it."""

    inspection: Inspection
    network: RegNetForImageClassification | RegNetModel

    @property
    def source(self) -> Source:
        return self.inspection.source

    def decision(self, topic: str) -> str:
        (value,) = [made.value for made in self.source.decisions if made.topic == topic]
        return value


def load(path: Path, folder: Path, **options: Any) -> Loaded:
    """Recognise, plan and stream a checkpoint, then load the written weights strictly.

    Args:
        path: The checkpoint.
        folder: Where the weights are written; made if it is missing.
        options: Of :class:`SourceOptions`.
    """
    folder.mkdir(exist_ok=True)
    with inspected(path, SourceOptions(**options)) as (checkpoint, inspection):
        write_weights(checkpoint, inspection.plan, folder)
    config = inspection.source.config
    kind = RegNetForImageClassification if inspection.source.has_classifier else RegNetModel
    network = kind(config)
    network.load_state_dict(load_file(folder / "model.safetensors"))
    return Loaded(inspection, network.eval())


def planned(tree: Any, **options: Any) -> tuple[Source, Plan]:
    """Recognise and plan what a checkpoint would hold, from headers that lie in no file."""
    checkpoint: Any = SimpleNamespace(tree=tree, path=Path("nowhere.torch"), config={})
    states = find_state_dicts(tree)
    family = FAMILIES[states[0].framework].family
    source = family.read(Found(family, checkpoint, states, SourceOptions(**options)))
    return source, make_plan(source, "nowhere.torch")


@torch.no_grad()
def relative_error(
    ours: torch.nn.Module, theirs: torch.nn.Module, dtype: torch.dtype, size: int = 64
) -> float:
    """The largest difference of two networks' outputs, relative to the largest output.

    Args:
        ours: Returns `RegNetOutput` or `ImageClassifierOutput`.
        theirs: Returns logits, or the last feature map.
        dtype: What to compute in; the networks are left as they are.
        size: Of the images, in pixels; float32 needs the native one in deep networks, whose
            rounding errors average out over few pixels no better than to 5e-5.
    """
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(3), dtype=dtype)
    output = deepcopy(ours).to(dtype)(images)
    found = output.logits if "logits" in output else output.last_hidden_state
    expected = deepcopy(theirs).to(dtype)(images)
    assert found.shape == expected.shape
    return float((found - expected).abs().max() / expected.abs().max())
