"""What torch loads and runs, whatever the file is: TorchScript, `.pt2`, AOTInductor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import release
from converters.formats.reference import torch_threads

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np
    import torch
    from numpy.typing import NDArray

    Program = Callable[[torch.Tensor], torch.Tensor | tuple[torch.Tensor, ...]]


class TorchRuntime:
    """Runs what takes a tensor and returns tensors.

    Attributes:
        name: Runtime and version.
        precision: In which it computes.
    """

    precision = "float32"

    def __init__(
        self, name: str, program: Program, output_names: Sequence[str], threads: int
    ) -> None:
        import torch

        self.name = f"{name} {release(torch.__version__)}"
        self._program = program
        self._output_names = tuple(output_names)
        self._threads = threads

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.

        Returns:
            The outputs by name.
        """
        import torch

        with torch.inference_mode(), torch_threads(self._threads):
            outputs = self._program(torch.tensor(pixel_values))
        tensors = (outputs,) if isinstance(outputs, torch.Tensor) else outputs
        arrays = (tensor.contiguous().numpy() for tensor in tensors)
        return dict(zip(self._output_names, arrays, strict=True))
