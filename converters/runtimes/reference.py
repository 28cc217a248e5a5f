"""The reference model as a runtime: the oracle in float64, and eager PyTorch in float32."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from converters.folder import ConvertedFolder


class ReferenceRuntime:
    """The folder's own weights in the reference model.

    Args:
        folder: A converted folder.
        precision: ``float64`` for the oracle.
    """

    def __init__(
        self, folder: ConvertedFolder, precision: Literal["float32", "float64"] = "float32"
    ) -> None:
        import torch

        from regnet.model import RegNetForImageClassification, RegNetModel

        kind = RegNetForImageClassification if folder.has_classifier else RegNetModel
        self.name = f"torch {torch.__version__.split('+')[0]}"
        self.precision: str = precision
        self.output_names = folder.output_names
        self._dtype: torch.dtype = getattr(torch, precision)
        with single_thread():
            self._model = kind.from_pretrained(folder.path, dtype=self._dtype)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Run the model on (N, C, H, W); outputs by name, in the runtime's precision."""
        import torch

        with torch.inference_mode(), single_thread():
            outputs = self._model(torch.from_numpy(pixel_values).to(self._dtype))
        return {name: outputs[name].numpy() for name in self.output_names}


@contextmanager
def single_thread() -> Iterator[None]:
    """Compute with one torch thread, whatever is set.

    The order of additions depends on the number of threads, and with it the last bits: one thread
    gives the same bytes everywhere. It is also quicker on a busy machine, where waiting threads
    spin.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
