"""The mean and deviation that a network carries in front of it, made those of its transform.

Such a network is given pixels of 0 to 1, or of 0 to 255, and subtracts and divides itself. The
reference does not; so the folder's image processor has to do it with the same numbers. Whatever
else may change images before the network sees them is refused.
"""

from __future__ import annotations

import re
from dataclasses import replace
from math import isfinite
from typing import TYPE_CHECKING

from converters.errors import InputError, printable
from converters.families.harmless import harmless
from converters.families.source import Decision, Normaliser, Source
from regnet.files.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.families.keymap import Keymap
    from converters.families.source import StateDict

_BYTE = 255.0
"""The largest pixel of an image that is not scaled to 0..1."""

_STATISTIC = re.compile(
    r"(?P<before>_?(?:[a-z0-9]+_)*?)(?P<word>means?|mu|stds?|stdev|stddev|sds?|sigma)"
    r"(?P<after>(?:_[a-z0-9]+)?_?)"
)
"""A mean's or deviation's name behind its last dot, such as ``pixel_mean`` or ``new_std``."""

_MEANS = {"mean", "means", "mu"}
_OF_OUTPUTS = {"running", "target", "targets", "label", "labels", "output", "y", "bbox", "feature"}
"""Words before a mean that is not one of images."""

_OF_IMAGES = re.compile(r".*(norm|pixel|image|img|input|preproc|transform).*")

_FEW = 16
"""Fewer channels than this an image may have; more than this only a feature map."""

Numbers = tuple[float, ...]


def channels_of(state: StateDict, keymap: Keymap) -> int:
    """How many channels the stem takes; 0 if there is no stem."""
    for name, tensor in {**state.tensors, **state.beside}.items():
        role, _ = keymap.parse(name) or ("", {})
        if role == "stem.conv" and len(tensor.shape) > 1:
            return tensor.shape[1]
    return 0


def without_normalisers(state: StateDict, channels: int) -> StateDict:
    """A state dict whose means and deviations of images are its normalisers."""
    pairs: dict[tuple[str, ...], dict[bool, str]] = {}
    candidates = {
        **state.tensors,
        **state.beside,
        **{".".join(path): tensor for path, tensor in state.elsewhere.items()},
    }
    for name, tensor in candidates.items():
        module, _, leaf = name.rpartition(".")
        match = _STATISTIC.fullmatch(leaf.lower())
        if match is None or _OF_OUTPUTS & set(re.split("[_.]", f"{module}_{match['before']}")):
            continue
        of_all = tensor.numel == 1 and bool(_OF_IMAGES.fullmatch(name.lower()))
        if tensor.dtype not in DTYPES or not (tensor.numel == channels or of_all):
            continue
        if not harmless(module):
            key = module, match["before"], match["after"]
            pairs.setdefault(key, {})[match["word"] in _MEANS] = name
    whole = [(pair[True], pair[False]) for pair in pairs.values() if len(pair) == 2]  # noqa: PLR2004
    taken = {name for pair in whole for name in pair}
    return replace(
        state,
        tensors={n: t for n, t in state.tensors.items() if n not in taken},
        beside={n: t for n, t in state.beside.items() if n not in taken},
        elsewhere={p: t for p, t in state.elsewhere.items() if ".".join(p) not in taken},
        normalisers=tuple(
            Normaliser(mean, candidates[mean], candidates[std]) for mean, std in whole
        ),
    )


def require_nothing_in_front(
    state: StateDict, keymap: Keymap, beside: Mapping[str, StoredTensor], where: str
) -> None:
    """Refuse what may change the images before the network sees them.

    A module's own parameters stand before those of its children in a state dict, and children in
    the order in which they were made, which is nearly always that of computation.
    """
    channels = channels_of(state, keymap)
    first = next((i for i, name in enumerate(state.order) if name in state.tensors), 0)
    before = set(state.order[:first])
    matrices = {n.rpartition(".")[0] for n, t in beside.items() if len(t.shape) > 1}
    for name, tensor in beside.items():
        module, _, leaf = name.rpartition(".")
        if harmless(name, tensor) or (leaf == "bias" and module in matrices):
            continue
        if _may_be_in_front(tensor, channels, before=name in before, is_weight=leaf == "weight"):
            raise InputError(
                f"{where}: {printable(name)}, of shape {tensor.shape}, may stand in front of the "
                "network and change the images that it is given, for which the reference has no "
                "place; save the state_dict() of the network alone."
            )


def _may_be_in_front(tensor: StoredTensor, channels: int, *, before: bool, is_weight: bool) -> bool:
    shape = tensor.shape
    if tensor.dtype not in DTYPES:
        return False
    per_channel = tuple(size for size in shape if size != 1) == (channels,)
    if per_channel:
        return before
    if len(shape) == 4 and is_weight:  # noqa: PLR2004
        return shape[0] == channels and (before or shape[1] < _FEW)
    picture = len(shape) in {3, 4} and shape[-3] == channels and min(shape[-2:]) > 1
    return picture and set(shape[:-3]) <= {1}


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
