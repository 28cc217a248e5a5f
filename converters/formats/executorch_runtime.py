"""ExecuTorch with XNNPACK, through its Python bindings."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from converters.errors import require_extra
from converters.formats.memory import require_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_COPIES = 2
"""How many times the file's size it takes: mapped, and packed for the processor."""


class ExecuTorchRuntime:
    """Runs a ``.pte``; larger batches than the program allows go through it in pieces.

    Args:
        path: The file.
        output_names: Of what it returns, in order.
        threads: How many compute; of all programs of the process, which share them.

    Attributes:
        name: Runtime and version, such as ``"executorch 1.5.1"``.
        precision: In which it computes.

    Raises:
        MemoryShortError: If the file would not fit into memory.
        StorageError: If ExecuTorch is not installed.
        RuntimeError: From ExecuTorch, if it cannot use the file.
    """

    precision = "float32"

    def __init__(
        self, path: Path, output_names: Sequence[str] = ("logits",), threads: int = 1
    ) -> None:
        self.name = f"executorch {require_extra('executorch', 'executorch')}"
        require_memory(_COPIES * path.stat().st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torchao's, of what torch 2.13 renames
            from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
            from executorch.runtime import Runtime

        _unsafe_reset_threadpool(threads)
        self._program = Runtime.get().load_program(path)  # which owns what the method points into
        self._method = self._program.load_method("forward")
        self._batch: int = self._method.metadata.input_tensor_meta(0).sizes()[0]
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.

        Returns:
            The outputs by name.
        """
        import numpy as np
        import torch

        pixels = torch.tensor(pixel_values)
        # The next piece is written where the last one was, so each is copied.
        pieces = [
            [output.numpy().copy() for output in self._method.execute([piece])]
            for piece in torch.split(pixels, self._batch)
        ]
        arrays = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
        return dict(zip(self._output_names, arrays, strict=True))
