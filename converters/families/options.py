"""What the user decides about a source; everything else is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.families.source import ChannelOrder, EvalTransform, Source, WeightsChoice


class Entry(Protocol):
    """A published checkpoint, as `converters.published.manifest.Published` describes it."""

    @property
    def name(self) -> str:
        """What its publisher calls it."""
        ...

    @property
    def transform(self) -> EvalTransform:
        """How its publisher evaluates it."""
        ...

    @property
    def crop_pct(self) -> float | None:
        """timm's, from which the transform's short side follows."""
        ...

    @property
    def channel_order(self) -> ChannelOrder | None:
        """Of the images it was trained on, if not its framework's own."""
        ...

    def describe(self, source: Source, asked_order: ChannelOrder | None) -> Source:
        """Add to a recognised checkpoint what is known of it because it is this one."""
        ...


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user decides; None leaves it to the checkpoint or the framework's default.

    Attributes:
        framework: Key of :data:`converters.families.known.FAMILIES`; None recognises it.
        channel_order: Of the images the network was trained on.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        published: The entry of the manifest that the checkpoint was fetched as.
        meant_by: Gives the entry that timm means by a model's name, whose evaluation it then has;
            None where there is no manifest to look it up in.
    """

    framework: str | None = None
    channel_order: ChannelOrder | None = None
    weights: WeightsChoice = "best"
    head: str | None = None
    published: Entry | None = None
    meant_by: Callable[[str], Entry | None] | None = None
