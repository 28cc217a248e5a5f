"""What an artefact takes and gives, where that is more than the network itself does.

Artefacts take normalised images and give logits, as the network does. Some can be written to take
pixels, whose normalisation is then inside, and to give probabilities. Such a one states it, and is
run and judged accordingly, wherever it lies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from converters.checkpoint.graph import INTERFACE
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

Largest = Literal[255, 1]

PIXEL_RANGES: tuple[Largest, ...] = get_args(Largest)
"""What white may be in an image that an artefact takes; black is 0."""

LARGEST_BYTE = 255


@dataclass(frozen=True, slots=True)
class Interface:
    """What an artefact takes and gives.

    Attributes:
        pixels: Which value white has in the RGB images that it takes and normalises itself; None if
            they are to be normalised.
        softmax: Whether it gives probabilities instead of logits.
    """

    pixels: Largest | None = None
    softmax: bool = False

    @classmethod
    def of(cls, fields: object) -> Interface:
        """Read what :meth:`to_dict` gives; whatever else is stated is the network's own."""
        if not isinstance(fields, dict):
            return NETWORK
        pixels, softmax = fields.get("normalize"), fields.get("softmax", False)
        known = pixels is None or (type(pixels) is int and pixels in PIXEL_RANGES)
        return cls(pixels, softmax) if known and isinstance(softmax, bool) else NETWORK

    @classmethod
    def stated(cls, texts: Mapping[str, str]) -> Interface:
        """Read it from an artefact's metadata."""
        try:
            return cls.of(parse_json(texts.get(INTERFACE, "{}")))
        except ValueError:
            return NETWORK

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, called like the options of the command line."""
        normalised = {} if self.pixels is None else {"normalize": self.pixels}
        return normalised | ({"softmax": True} if self.softmax else {})

    @property
    def settings(self) -> dict[str, Any]:
        """Those of an image processor that leaves to the artefact what it does itself."""
        if self.pixels is None:
            return {}
        return {
            "do_rescale": self.pixels != LARGEST_BYTE,
            "rescale_factor": self.pixels / LARGEST_BYTE,
            "do_normalize": False,
        }

    @property
    def takes(self) -> str:
        """What values the pixels have that it takes, for people."""
        return "normalised" if self.pixels is None else f"from 0 to {self.pixels}"

    @property
    def gives(self) -> str:
        """What a classifier gives, for people."""
        return "probabilities" if self.softmax else "logits"


NETWORK = Interface()
"""That of the network itself: normalised images to what its last layer gives."""


def unnormalised(
    pixels: NDArray[np.float32], statistics: tuple[tuple[float, ...], tuple[float, ...]] | None
) -> NDArray[np.float32]:
    """Images (N, C, H, W) that an artefact normalises to some, but for a rounding.

    Args:
        pixels: Normalised.
        statistics: Mean and deviation that it normalises with; None if it does not.
    """
    if statistics is None:
        return pixels
    import numpy as np

    mean, std = (np.array(each)[:, None, None] for each in statistics)
    taken: NDArray[np.float32] = (pixels * std + mean).astype(np.float32)
    return taken


def in_bytes(pixels: NDArray[np.float32]) -> NDArray[np.float32]:
    """Images as a picture can have them: whole numbers from 0 to 255."""
    return pixels.round().clip(0, LARGEST_BYTE)
