"""Anybody's TorchScript file, in float32 or in float64."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_container import ZipArchive
from converters.formats.reference import torch_threads
from converters.formats.torchscript import TorchScriptRuntime
from converters.parity.compare.foreign import IMAGE_AXES, by, in_a_sentence, named
from regnet.config import TRUNK_OUTPUTS
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from converters.parity.metrics import Outputs


class ForeignTorchScript:
    """What stands in the process of a `ConfinedForeign`; of sizes it states only the channels.

    Raises:
        InputError: If it cannot be loaded.
        UnsafeInputError: If programs may find other entries in it, or it inflates.
    """

    precision = noise = COMPUTED
    evaluator = "torch"
    producer = ""

    def __init__(self, file: Path | str) -> None:
        self._path = path = Path(file)
        with in_a_sentence(path, "loaded by torch.jit", "check that the file is whole"):
            runtime = TorchScriptRuntime(path)
        self.name = runtime.name
        with SourceFile(path) as opened:
            self.metadata = ZipArchive(opened).stated()
        self._module: Any = runtime.program
        kernels = (p.shape[1] for p in self._module.parameters() if p.ndim == IMAGE_AXES)
        self.layout = (None, next(kernels, None), None, None)

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs."""
        return self._run(torch.tensor(pixel_values))

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same with memory running over channels first."""
        return self._run(torch.tensor(pixel_values).to(memory_format=torch.channels_last))

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The outputs of the same module with all floats doubled."""
        self._module.double()
        try:
            return self._run(torch.tensor(pixel_values).double())
        finally:
            self._module.float()

    def tensors(self) -> dict[str, NDArray[Any]]:
        """Parameters and buffers, by name."""
        return {name: tensor.numpy() for name, tensor in self._module.state_dict().items()}

    def _run(self, images: Any) -> Outputs:
        what = f"run on images {by(images.shape)} in {images.dtype}"
        remedy = "compare it with a checkpoint or a converted folder"
        with (
            in_a_sentence(self._path, what, remedy),
            torch.inference_mode(),
            torch_threads(),
        ):
            results = self._module(images)
        if isinstance(results, torch.Tensor):
            results = (results,)
        if not isinstance(results, dict):
            names = TRUNK_OUTPUTS if len(results) == len(TRUNK_OUTPUTS) else range(len(results))
            results = dict(zip(map(str, names), results, strict=False))
        return named(self._path.name, {name: t.numpy() for name, t in results.items()})
