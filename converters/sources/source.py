"""What a framework's reader finds out about a checkpoint, before a weight is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from regnet.imagenet import IMAGENET_MEAN, IMAGENET_STD

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import StoredTensor
    from converters.keymaps.keymap import Keymap
    from regnet.config import RegNetConfig

ChannelOrder = Literal["rgb", "bgr"]
WeightsChoice = Literal["raw", "ema", "best"]

BILINEAR = 2
BICUBIC = 3
"""Pillow's numbers of the two filters that RegNets were evaluated with."""


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user decides; None leaves it to the checkpoint or the framework's default.

    Attributes:
        framework: Key of :data:`converters.sources.registry.FRAMEWORKS`; None recognises it.
        channel_order: Of the images the network was trained on.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
    """

    framework: str | None = None
    channel_order: ChannelOrder | None = None
    weights: WeightsChoice = "best"
    head: str | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """Something that the tensors cannot tell, what was assumed, and why."""

    topic: str
    value: str
    reason: str


@dataclass(frozen=True, slots=True)
class EvalTransform:
    """How the source evaluated: resize the short side, crop the centre, normalise.

    Attributes:
        resize: Short side after resizing, in pixels.
        crop: Side of the centre crop, in pixels.
        resample: Pillow's filter, 2 for bilinear and 3 for bicubic.
        mean: Per channel, RGB, for pixels in 0..1; empty if the source does not say.
        std: Likewise.
    """

    resize: int
    crop: int
    resample: int
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD

    @property
    def in_words(self) -> str:
        """For people: short side, crop, filter."""
        filters = {BILINEAR: "bilinear", BICUBIC: "bicubic"}
        name = filters.get(self.resample, f"Pillow filter {self.resample}")
        return f"short side to {self.resize}, centre crop {self.crop}, {name}"


@dataclass(frozen=True)
class Source:
    """A recognised checkpoint, ready to be planned.

    Attributes:
        framework: Who saved it.
        keymap: How it spells parameters.
        tensors: Its spelling to where the tensor lies, wrappers and prefixes removed.
        config: The architecture, from shapes.
        has_classifier: Whether it has a head, or is a trunk alone.
        channel_order: The order of the input channels that the stem was trained on.
        transform: The source's own evaluation transform.
        labels: Names of the classes, where the checkpoint says which they are.
        decisions: What was decided and why, to be printed.
        skipped: What else is in the file and is left out: name to reason.
    """

    framework: str
    keymap: Keymap
    tensors: Mapping[str, StoredTensor]
    config: RegNetConfig
    has_classifier: bool
    channel_order: ChannelOrder
    transform: EvalTransform
    labels: tuple[str, ...] | None = None
    decisions: tuple[Decision, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)

    @property
    def flips_stem(self) -> bool:
        """Whether the stem's input channels must be reversed to take RGB."""
        return self.channel_order == "bgr" and self.config.num_channels == len(IMAGENET_MEAN)

    def preprocessor_fields(self) -> dict[str, Any]:
        """Keyword arguments of `RegNetImageProcessor` for the source's evaluation transform."""
        from regnet.image_processor import SQUASH_FROM, crop_pct_for

        transform = self.transform
        fields: dict[str, Any] = {
            "size": transform.crop,
            "crop_pct": crop_pct_for(transform.resize, transform.crop),
            "resample": transform.resample,
        }
        if transform.crop >= SQUASH_FROM:
            fields["resize_mode"] = "shortest_edge_then_crop"
        if transform.mean:
            return fields | {"image_mean": list(transform.mean), "image_std": list(transform.std)}
        return fields | {"do_normalize": False}
