"""Words that say of an entry that it cannot change what comes out of the network, and why."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.families.unnamed import LISTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.checkpoint import StoredTensor

OPTIMISER = "optimiser state, not needed to run the network"

_TRAINER = r"opt|optim\w*|\w*scheduler\w*|amp|scaler|rng|callbacks|loops"
"""Words in the keys of what a trainer saves in mappings of their own, beside the network's."""

_OF_TRAINING = "of another network, which only the training ran"

_HARMLESS = (
    (
        r"criterions?|loss(es)?|objective",
        "of the training's loss, behind what the network puts out",
    ),
    (
        r"metrics?|acc|accuracy|auroc|auc|confmat|meters?",
        "a measurement of the training, behind what the network puts out",
    ),
    (r"teacher|momentum", _OF_TRAINING),
)
"""Words in a name (between dots and underscores), and why what is called so can be left out."""

_TWIN = re.compile(r"(.*\.)?(\w+_ema|ema_\w+)\..*")
"""Averages of a network, such as ``model_ema.``; ``ema.`` alone may be a layer."""

_PROFILERS = {
    "total_ops": 1,
    "total_params": 1,
    "input_shape": 3,
    "output_shape": 3,
    "parameter_quantity": 1,
    "inference_memory": 1,
    "MAdd": 1,
    "Flops": 1,
    "ConvFlops": 1,
    "Memory": 2,
    "duration": 1,
}
"""Buffers that thop (the first two) and torchstat register in modules: name to elements, at most.

Source: thop ``profile.py``, torchstat ``model_hook.py``.
"""

COUNTED = "a counter, which nothing is computed with"

_UNNAMED = "weights without names, which are not the network's one by one"


def harmless(name: str, tensor: StoredTensor | None = None) -> str | None:
    """Why an entry cannot change what comes out of the network, or None if it may."""
    words = re.split(r"[._]", name.lower())
    for pattern, reason in _HARMLESS:
        if any(re.fullmatch(pattern, word) for word in words):
            return reason
    if _TWIN.fullmatch(name):
        return _OF_TRAINING
    counts = tensor is not None and tensor.numel == 1 and re.search("int|bool", tensor.dtype)
    return COUNTED if counts or is_profilers(name, tensor) else None


def is_profilers(name: str, tensor: StoredTensor | None) -> bool:
    """Whether an entry is a profiler's counter, by its name and size."""
    most = _PROFILERS.get(name.rpartition(".")[2], 0)
    return most > 0 and (tensor is None or tensor.numel <= most)


def harmless_elsewhere(path: Sequence[str]) -> str | None:
    """The same of what stands in another mapping, which may be the trainer's own."""
    if not LISTS.isdisjoint(path):
        return _UNNAMED
    words = re.split(r"[._]", ".".join(path).lower())
    if any(re.fullmatch(_TRAINER, word) for word in words):
        return OPTIMISER
    return harmless(".".join(path))
