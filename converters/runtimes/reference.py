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

    Attributes:
        name: torch, with version.
        precision: In which it computes.
        output_names: Of what it returns, in order.
        model: The reference model.
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
        with torch_threads():
            self.model = kind.from_pretrained(folder.path, dtype=self._dtype)

    def __call__(
        self, pixel_values: NDArray[np.float32], *, channels_last: bool = False
    ) -> dict[str, NDArray[np.floating]]:
        """Run the model.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.
            channels_last: Whether memory runs over channels first: the same sums in another order.

        Returns:
            Outputs by name, in the runtime's precision.
        """
        import torch

        order = torch.channels_last if channels_last else torch.contiguous_format
        with torch.inference_mode(), torch_threads():
            pixels = torch.from_numpy(pixel_values).to(self._dtype, memory_format=order)
            outputs = self.model(pixels)
        return {name: outputs[name].contiguous().numpy() for name in self.output_names}

    def fold_norms(self) -> None:
        """Take every batch norm into its convolution; the outputs stay what they are.

        Every deployment runtime does this, so its rounding is part of an honest computation.
        """
        import torch
        from torch.nn.utils.fusion import fuse_conv_bn_eval

        from regnet.model import RegNetConvLayer

        for module in self.model.modules():
            if isinstance(module, RegNetConvLayer):
                folded = fuse_conv_bn_eval(module.convolution, module.normalization)
                module.convolution = folded
                module.normalization = torch.nn.Identity()  # type: ignore[assignment]


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
