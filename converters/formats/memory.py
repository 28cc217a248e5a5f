"""Whether there is memory for what a runtime is about to load."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from regnet.design_space import complexity

if TYPE_CHECKING:
    from regnet.config import RegNetConfig

_MEMINFO = Path("/proc/meminfo")
_CONTROL_GROUP = Path("/sys/fs/cgroup/memory.max")
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


def available_memory() -> int:
    """Bytes that can be taken without others having to go.

    On Linux what the kernel estimates (``MemAvailable`` of proc(5)), or a control group's limit if
    that is less; elsewhere all the machine has.
    """
    if not _MEMINFO.is_file():
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    lines = dict(line.split(":") for line in _MEMINFO.read_text(encoding="ascii").splitlines())
    available = int(lines["MemAvailable"].split()[0]) * 1024
    limit = _CONTROL_GROUP.read_text(encoding="ascii").strip() if _CONTROL_GROUP.is_file() else ""
    return min(available, int(limit)) if limit.isdecimal() else available


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
