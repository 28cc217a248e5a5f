"""The mean and deviation that a network carries in front of it, made those of its transform.

Such a network is given pixels of 0 to 1, or of 0 to 255, and subtracts and divides itself. The
reference does not; so the folder's image processor has to do it with the same numbers.
"""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from converters.errors import InputError, printable
from converters.families.source import Decision, Source

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.families.source import Normaliser

_BYTE = 255.0
"""The largest pixel of an image that is not scaled to 0..1."""

Numbers = tuple[float, ...]


def normalised(source: Source, checkpoint: Checkpoint) -> Source:
    """Take a network's own normalisation, if it has one, for its evaluation transform.

    Raises:
        InputError: If there are several that differ, the numbers cannot normalise pixels, or
            something else says how images are normalised.
    """
    if not source.normalisers:
        return source
    from regnet.images import PILLOW_MODES

    where = checkpoint.path.name
    channels = source.config.num_channels
    found = {_numbers(normaliser, channels, checkpoint) for normaliser in source.normalisers}
    name = printable(source.normalisers[0].name)
    if len(found) > 1:
        raise InputError(
            f"{where} normalises images in several ways (first {name}); save one network alone."
        )
    if source.processor or channels not in PILLOW_MODES:
        why = "its preprocessor_config.json does" if source.processor else "no picture can be"
        raise InputError(
            f"{where} normalises images of {channels} channels itself ({name}), where {why}; save "
            "the state_dict() of the network behind that alone."
        )
    ((mean, std),) = found
    usable = all(map(isfinite, mean + std)) and min(std) > 0 and min(mean) >= 0
    largest = _BYTE if max(mean + std) > 1 else 1.0
    if not usable or max(mean) > largest:
        raise InputError(
            f"{where}: {name} and its deviation are {_words(mean)} and {_words(std)}, with which "
            "no pixels are normalised; save the state_dict() of the network behind them alone."
        )
    mean, std = (tuple(value / largest for value in values) for values in (mean, std))
    if source.flips_stem:  # the numbers are in the order of the channels that the stem had
        mean, std = mean[::-1], std[::-1]
    reason = f"the network's own, {name}, for pixels of 0 to {largest:g}"
    decision = Decision("normalisation", f"mean {_words(mean)}, deviation {_words(std)}", reason)
    return replace(
        source,
        transform=replace(source.transform, mean=mean, std=std),
        decisions=(*source.decisions, decision),
    )


def _numbers(
    normaliser: Normaliser, channels: int, checkpoint: Checkpoint
) -> tuple[Numbers, Numbers]:
    mean, std = (_read(tensor, checkpoint) for tensor in (normaliser.mean, normaliser.std))
    return mean * (channels // len(mean)), std * (channels // len(std))


def _read(tensor: StoredTensor, checkpoint: Checkpoint) -> Numbers:
    """The numbers as somebody would write them down: 0.485, not 0.48500001430511475."""
    import numpy as np

    from regnet.files.dtypes import cast

    values = cast(checkpoint.array(tensor).reshape(-1), tensor.dtype, "float32")
    return tuple(float(str(np.float32(value))) for value in values)


def _words(values: Numbers) -> str:
    return " ".join(f"{value:.4g}" for value in values)
