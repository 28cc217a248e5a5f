"""The reference model as a runtime, whole in memory: for one batch, and to look into."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal

from converters.errors import release
from converters.formats.runtime import ArtefactRuntime

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from regnet.model import RegNetForImageClassification, RegNetModel


class ReferenceRuntime(ArtefactRuntime):
    """The folder's own weights in the reference model.

    Args:
        folder: A converted folder.
        precision: ``float64`` for the oracle.
        threads: How many compute.

    Attributes:
        name: torch, with version.
        precision: In which it computes.
        output_names: Of what it returns, in order.
        model: The reference model.
    """

    def __init__(
        self,
        folder: ConvertedFolder,
        precision: Literal["float32", "float64"] = "float32",
        threads: int = 1,
    ) -> None:
        import torch

        self.name = torch_name()
        self.precision: str = precision
        self.output_names = folder.output_names
        self._dtype: torch.dtype = getattr(torch, precision)
        self._threads = threads
        with torch_threads():
            self.model = reference_model(folder, self._dtype)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Compute every output, in the runtime's precision."""
        import torch

        with torch.inference_mode(), torch_threads(self._threads):
            pixels = torch.from_numpy(pixel_values).to(self._dtype)
            outputs = self.model(pixels)
        return {name: outputs[name].contiguous().numpy() for name in self.output_names}


def reference_model(
    folder: ConvertedFolder, dtype: torch.dtype | None = None
) -> RegNetModel | RegNetForImageClassification:
    """The reference model with a folder's weights.

    Args:
        folder: A converted folder.
        dtype: Of weights; by default they stay as they are stored, mapped from their file.

    Raises:
        InputError: If the weights are not those that ``config.json`` describes.
    """
    from regnet import model

    folder.tensors  # noqa: B018 -- headers alone, so that no network of any size is built in vain

    kind = model.RegNetForImageClassification if folder.has_classifier else model.RegNetModel
    return kind.from_pretrained(folder.path, dtype=dtype)


def torch_name() -> str:
    """What torch calls itself in verdicts, such as ``torch 2.13.0``."""
    import torch

    return f"torch {release(torch.__version__)}"


@contextmanager
def torch_threads(count: int = 1) -> Iterator[None]:
    """Compute with so many torch threads, whatever is set.

    The order of additions depends on the number of threads, and with it the last bits: one thread
    gives the same bytes everywhere. It is also quicker on a busy machine, where waiting threads
    spin.
    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
