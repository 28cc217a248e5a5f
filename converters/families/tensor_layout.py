"""The order of a weight's axes in a framework, where that is not torch's.

TensorFlow, Flax and MLX keep the channels of images last, and their kernels follow. Axes are
permuted in headers (:meth:`~converters.checkpoint.StoredTensor.permuted`), so that everything
behind :func:`converters.families.reading.choose_state` sees torch's order and no byte is moved.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.checkpoint import StoredTensor
    from converters.families.source import StateDict


@dataclass(frozen=True, slots=True)
class TensorLayout:
    """What the axes of weights stand for, in the order that a framework stores them.

    ``O`` is output channels or classes, ``I`` is input channels (of a group, where there are
    several) or features, ``H`` and ``W`` are the kernel's height and width. Tensors of another
    number of axes than these have only one order.

    Attributes:
        kernel: Of a convolution's weight.
        matrix: Of a linear layer's weight.
    """

    kernel: str = "OIHW"
    matrix: str = "OI"

    def ours(self, tensor: StoredTensor) -> StoredTensor:
        """A tensor of the framework, its axes in torch's order."""
        return _reordered(tensor, {4: (self.kernel, TORCH.kernel), 2: (self.matrix, TORCH.matrix)})

    def theirs(self, tensor: StoredTensor) -> StoredTensor:
        """A tensor of torch's, its axes in the framework's order."""
        return _reordered(tensor, {4: (TORCH.kernel, self.kernel), 2: (TORCH.matrix, self.matrix)})

    @property
    def input_axis(self) -> int:
        """Which axis of a convolution's weight is that of the input channels."""
        return self.kernel.index("I")

    def of_state(self, state: StateDict) -> StateDict:
        """A state dict of the framework, the axes of all its tensors in torch's order."""
        if self == TORCH:
            return state
        return replace(
            state,
            tensors={name: self.ours(tensor) for name, tensor in state.tensors.items()},
            beside={name: self.ours(tensor) for name, tensor in state.beside.items()},
            elsewhere={path: self.ours(tensor) for path, tensor in state.elsewhere.items()},
        )


TORCH = TensorLayout()
"""The reference's own."""

CHANNELS_LAST = TensorLayout(kernel="HWIO", matrix="IO")
"""TensorFlow's and Flax's: channels last, and a linear layer's inputs first."""


def _reordered(tensor: StoredTensor, orders: dict[int, tuple[str, str]]) -> StoredTensor:
    """A tensor with its axes in another order, if one is stated for as many axes."""
    before, after = orders.get(len(tensor.shape), ("", ""))
    if before == after:
        return tensor
    return tensor.permuted([before.index(axis) for axis in after])
