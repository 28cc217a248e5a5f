"""What the user decides about a source; everything else is recognised."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.families.manifest import Published
    from converters.families.source import ChannelOrder, WeightsChoice


@dataclass(frozen=True, slots=True)
class SourceOptions:
    """What the user decides; None leaves it to the checkpoint or the framework's default.

    Attributes:
        framework: Key of :data:`converters.families.known.FAMILIES`; None recognises it.
        channel_order: Of the images the network was trained on.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        published: The entry of the manifest that the checkpoint was fetched as.
    """

    framework: str | None = None
    channel_order: ChannelOrder | None = None
    weights: WeightsChoice = "best"
    head: str | None = None
    published: Published | None = None
