"""`regnet inspect` and `converters.inspect`: what a checkpoint is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.options import SourceOptions
from converters.progress import SILENT
from converters.published.located import located
from converters.weights.inspection import inspected

if TYPE_CHECKING:
    from converters.families.source import ChannelOrder, WeightsChoice
    from converters.progress import Progress
    from converters.published.located import Place
    from converters.weights.inspection import Inspection


def inspect(  # noqa: PLR0913 -- one keyword per option
    checkpoint: Place,
    *,
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Recognise a checkpoint and plan its conversion, from headers alone; no weight is read.

    >>> found = inspect("RegNetY-FashionMNIST.pyth")
    >>> found.source.framework, found.source.config.num_labels
    ('pycls', 10)
    >>> found.plan.steps[0].target.name
    'regnet.embedder.embedder.convolution.weight'

    Args:
        checkpoint: A file or folder of any framework, or the name of a published checkpoint.
        framework: Whose checkpoint it is; None recognises it.
        channel_order: Of the images the network was trained on; None as the checkpoint says.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        progress: Who wants to know how far fetching is.

    Raises:
        InputError: If it cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    options = SourceOptions(framework, channel_order, weights, head)
    with inspected(*located(checkpoint, options, progress)) as (_, inspection):
        return inspection
