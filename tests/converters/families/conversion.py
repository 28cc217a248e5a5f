"""Converts a family's file and compares what comes out with the real network."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from PIL import Image

from converters.checkpoint.values import Beside
from converters.errors import InputError
from converters.families.family import Found
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.families.recognise import refusal as not_found
from converters.families.wrapping import find_state_dicts
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from regnet import RegNetConfig, RegNetForImageClassification, RegNetImageProcessor, RegNetModel

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.families.source import Source

LIMIT = 1e-5
"""Largest difference in float32, in units of the largest logit."""


@dataclass(frozen=True)
class Converted:
    """A folder that a conversion made."""

    out: Path

    @cached_property
    def record(self) -> dict[str, Any]:
        record: dict[str, Any] = json.loads((self.out / "conversion.json").read_text("utf-8"))
        return record

    @property
    def framework(self) -> str:
        return str(self.record["source"]["framework"])

    @cached_property
    def config(self) -> RegNetConfig:
        return RegNetConfig.from_pretrained(self.out)

    @cached_property
    def processor(self) -> RegNetImageProcessor:
        return RegNetImageProcessor.from_pretrained(self.out)

    @cached_property
    def classifier(self) -> RegNetForImageClassification:
        return RegNetForImageClassification.from_pretrained(self.out)

    @cached_property
    def trunk(self) -> RegNetModel:
        return RegNetModel.from_pretrained(self.out)

    def in_training(self, dtype: torch.dtype) -> RegNetForImageClassification:
        """The classifier in training mode, with weights of its own."""
        model = RegNetForImageClassification(self.config).to(dtype)
        model.load_state_dict(self.classifier.state_dict())
        return model.train()

    def decision(self, topic: str) -> tuple[str, str]:
        """Value and reason of the one decision on a topic."""
        (found,) = [d for d in self.record["decisions"] if d["topic"] == topic]
        return found["value"], found["reason"]

    @torch.inference_mode()
    def logits(self, pixels: Tensor) -> Tensor:
        logits: Tensor = self.classifier(pixels).logits
        return logits

    def logits_of_picture(self, picture: Image.Image) -> Tensor:
        return self.logits(self.processor(picture, return_tensors="pt")["pixel_values"])


def converted(path: Path, **options: Any) -> Converted:
    """Convert a checkpoint without being told what it is; ``options`` are `SourceOptions`'.

    Without the verdict on what was written, which takes most of a conversion's time and tells
    whether our network computes what the folder says; a family's tests hold it to the framework's.
    """
    out = path.with_name("out")
    convert(path, out, **options, formats=(), force=True, verify=False)
    return Converted(out)


def source_of(path: Path, **options: Any) -> Source:
    """What is known of a checkpoint before a weight is read."""
    with inspected(path, SourceOptions(**options)) as (_, inspection):
        return inspection.source


@dataclass(frozen=True)
class _Headers:
    """An open checkpoint without bytes."""

    tree: dict[str, StoredTensor]
    path: Path = Path("net")
    beside: Beside = field(default_factory=Beside)
    metadata: dict[str, str] = field(default_factory=dict)


def source_of_headers(tensors: dict[str, StoredTensor]) -> Source:
    """The same of names and shapes alone, for networks without memory for weights."""
    found = find_state_dicts(tensors)
    if not found:
        raise not_found(None, found, tensors, "net")
    family, headers = FAMILIES[found[0].framework].family, cast("Checkpoint", _Headers(tensors))
    return family.read(Found(family, headers, found, SourceOptions()))


def refusal(action: Callable[[], object], name: str) -> str:
    """The sentence that an action ends with, which starts with the file's name."""
    try:
        action()
    except InputError as error:
        message = str(error)
        assert message.startswith(name)
        assert message.endswith(".")
        assert ". " not in message
        return message
    raise AssertionError("nothing was refused")


def noise(*shape: int, seed: int = 3) -> Tensor:
    """Normalised images (N, C, H, W); the default is two of 3 x 224 x 224."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape or (2, 3, 224, 224), generator=generator)


def picture(width: int = 400, height: int = 300) -> Image.Image:
    """A picture with coarse and fine structure, larger than any crop."""
    values = np.random.default_rng(5)
    coarse = Image.fromarray(values.integers(0, 256, (30, 40, 3), np.uint8))
    fine = values.integers(-20, 20, (height, width, 3))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.int64)
    return Image.fromarray(np.clip(smooth + fine, 0, 255).astype(np.uint8))


@torch.inference_mode()
def theirs(network: Any, pixels: Tensor) -> Tensor:
    """What a real network makes of pixels, also where it names the logits in its output."""
    output = network(pixels)
    logits: Tensor = getattr(output, "logits", output)
    return logits


def difference(ours: Tensor, theirs: Tensor) -> float:
    """Largest difference, in units of the largest logit of theirs."""
    assert ours.shape == theirs.shape
    return float((ours - theirs).abs().max() / theirs.abs().max())
