"""Whether there is memory for what a runtime is about to load."""

from __future__ import annotations

from typing import TYPE_CHECKING

from regnet.design_space import complexity
from regnet.files.system import available_memory

if TYPE_CHECKING:
    from regnet.config import RegNetConfig

_GB = 10**9

_BYTES_PER_WEIGHT = 32
"""Those of the file, three in ONNX Runtime, two in TorchScript, and those of the largest module."""

_BYTES_PER_VALUE = 100
"""Of all that convolutions make of one native image, though few of them are there at a time: small
ones come to as much again, and float64, float32 and several draws may be computed at once."""


class MemoryShortError(Exception):
    """Why an artefact is not run, as words that follow "not run: ".

    It says nothing against the artefact: the machine is too small. The words go into reports and
    records, so they hold what the artefact needs and not what this machine has.
    """


def require_memory(needed: int) -> None:
    """Do nothing if there is so much memory.

    Args:
        needed: In bytes.

    Raises:
        MemoryShortError: If there is less.
    """
    if needed > available_memory():
        raise MemoryShortError(
            f"it needs about {max(needed / _GB, 0.1):.1f} GB of memory, more than is free here"
        )


def memory_of_all(config: RegNetConfig, size: int) -> int:
    """Bytes that suffice to do everything at once that verifying a network takes.

    Args:
        config: Of the network.
        size: Of its images, in pixels.
    """
    cost = complexity(config, size)
    return cost.parameters * _BYTES_PER_WEIGHT + cost.activations * _BYTES_PER_VALUE
