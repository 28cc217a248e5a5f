"""Headers without files: what a reader would say of a state dict, for tests that need no bytes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converters.checkpoint import Storage, StoredTensor
from converters.checkpoint.values import contiguous_stride
from converters.families.pycls import PYCLS
from regnet.architecture import Architecture

if TYPE_CHECKING:
    from torch import nn

    from regnet.config import RegNetConfig

_NOWHERE = Storage(Path("nowhere"), 0, 0, None, "nothing")


def stored(shape: tuple[int, ...], dtype: str = "float32") -> StoredTensor:
    return StoredTensor(dtype, shape, contiguous_stride(shape), _NOWHERE, 0)


def headers(network: nn.Module) -> dict[str, StoredTensor]:
    """Return what a checkpoint of a real network would hold."""
    return {
        name: stored(tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        for name, tensor in network.state_dict().items()
    }


def in_pycls_words(config: RegNetConfig) -> dict[str, tuple[int, ...]]:
    """Return names and shapes of a network as pycls would save it, without building it."""
    slots = Architecture.of(config).slots
    return {PYCLS.spell(slot.role, slot.fields): slot.shape for slot in slots}
