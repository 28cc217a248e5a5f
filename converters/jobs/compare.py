"""`regnet compare` and `converters.compare`: whether two networks are the same."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from converters.families.options import SourceOptions
from converters.folder.images import find_images
from converters.parity.compare import comparison
from converters.parity.compare.sides import opened
from converters.progress import SILENT
from converters.published.located import located

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.families.source import ChannelOrder, WeightsChoice
    from converters.progress import Progress
    from converters.published.located import Place


def compare(  # noqa: PLR0913 -- one keyword per option
    a: Place,
    b: Place,
    *,
    images: Place | Iterable[Place] = (),
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    progress: Progress = SILENT,
) -> comparison.Comparison:
    """Find out whether two networks are the same, whatever each is stored as.

    >>> compare("RegNetY-FashionMNIST.pyth", "out").same
    True

    Args:
        a: A converted folder, an ONNX or TorchScript file, a checkpoint of any framework, or the
            name of a published one.
        b: Likewise.
        images: Photographs to run as well: files, folders, patterns.
        framework: Of checkpoints; None recognises it.
        channel_order: Of the images that checkpoints were trained on; None as they say.
        weights: Which set, where a checkpoint has raw and averaged ones.
        head: Which head, where a checkpoint has several.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a side or a photograph cannot be used.
        UnsafeInputError: If one would run code.
        StorageError: If one cannot be read, or there is no room for its weights.
    """
    options = SourceOptions(framework, channel_order, weights, head)
    places = [located(side, options, progress) for side in (a, b)]
    with ExitStack() as stack:
        sides = []
        for path, decided in places:
            progress.step(f"opening {path.name}")
            sides.append(stack.enter_context(opened(path, decided)))
        first, second = sides
        return comparison.compare(first, second, find_images(images), progress)
