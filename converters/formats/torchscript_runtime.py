"""TorchScript, in torch on one CPU thread."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from converters.checkpoint.torch_places import loadable
from converters.formats.memory import require_memory
from converters.formats.torch_runtime import TorchRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_COPIES = 1.25
"""How many times the file's size it takes: torch reads it whole, and packs a tensor at a time."""


class TorchScriptRuntime(TorchRuntime):
    """Runs a TorchScript file.

    Args:
        path: The file.
        output_names: Of what it returns, in order: ``logits``, or ``last_hidden_state`` and
            ``pooler_output``.
        threads: How many compute.

    Attributes:
        name: Runtime and version, such as ``"torch.jit 2.13.0"``.
        precision: In which it computes.
        module: The loaded module.

    Raises:
        MemoryShortError: If the file would not fit into memory.
        UnsafeInputError: If programs may find other entries in it, or it inflates.
        RuntimeError: If it is damaged; from torch, if the file is none of TorchScript.
    """

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        import torch

        require_memory(round(_COPIES * path.stat().st_size))
        with loadable(path), warnings.catch_warnings():
            # TorchScript is deprecated, and written nevertheless because users' runtimes want it.
            for category in (DeprecationWarning, FutureWarning):
                warnings.filterwarnings("ignore", r"`torch\.jit\.load` is", category)
            module = torch.jit.load(path, map_location="cpu")  # type: ignore[no-untyped-call]
        self.module = module.eval()
        super().__init__("torch.jit", self.module, output_names, threads)
