"""Anybody's TorchScript file, in float32 or in float64."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError, InputError, in_words
from converters.formats.reference import torch_threads
from converters.formats.torchscript import TorchScriptRuntime
from converters.parity.compare.foreign import IMAGE_AXES, by, named
from regnet.config import TRUNK_OUTPUTS

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from converters.parity.compare.foreign import Layout
    from converters.parity.metrics import Outputs


class ForeignTorchScript:
    """Runs a TorchScript file on one thread, in float32 or in float64.

    Args:
        path: The file.

    Attributes:
        name: torch, with version.
        precision: float32.
        layout: The axes of its input that are fixed: as far as weights tell, the channels.
        producer: Empty, as is ``metadata``.
        metadata: Empty.

    Raises:
        InputError: If it cannot be loaded.
        UnsafeInputError: If programs may find other entries in it, or it inflates.
    """

    precision = "float32"
    evaluator = "torch"
    noise = precision

    def __init__(self, path: Path) -> None:
        try:
            runtime = TorchScriptRuntime(path)
        except ConversionError:
            raise
        except Exception as error:
            raise InputError(
                f"{path.name} cannot be loaded by torch.jit ({in_words(error, path)}); check that "
                "the file is whole."
            ) from error
        self._path = path
        self.name = runtime.name
        self.producer = ""
        self.metadata: dict[str, str] = {}
        self._module: Any = runtime.module
        kernels = (p.shape[1] for p in self._module.parameters() if p.ndim == IMAGE_AXES)
        self.layout: Layout = (None, next(kernels, None), None, None)

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs.

        Args:
            pixel_values: (N, C, H, W), normalised.

        Raises:
            InputError: If the module does not take them.
        """
        import torch

        return self._run(torch.tensor(pixel_values))

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same with memory running over channels first; see `Foreign`."""
        import torch

        return self._run(torch.tensor(pixel_values).to(memory_format=torch.channels_last))

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The outputs of the same module with all floats doubled; see `Foreign`."""
        import torch

        self._module.double()
        try:
            return self._run(torch.tensor(pixel_values).double())
        finally:
            self._module.float()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Parameters and buffers, by name."""
        return {name: tensor.numpy() for name, tensor in self._module.state_dict().items()}

    def _run(self, images: Any) -> Outputs:
        import torch

        try:
            with torch.inference_mode(), torch_threads():
                results = self._module(images)
        except Exception as error:
            raise InputError(
                f"{self._path.name} cannot be run on images {by(images.shape)} in {images.dtype} "
                f"({in_words(error, self._path)}); compare it with a checkpoint or a converted "
                "folder."
            ) from error
        if isinstance(results, torch.Tensor):
            results = (results,)
        if not isinstance(results, dict):
            names = TRUNK_OUTPUTS if len(results) == len(TRUNK_OUTPUTS) else range(len(results))
            results = dict(zip(map(str, names), results, strict=False))
        return named(self._path.name, {name: t.numpy() for name, t in results.items()})
