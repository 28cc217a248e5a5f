"""Folding the batch norm before a classifier into it, the one quirk that computes weights.

VISSL's linear evaluation puts a batch norm between pooling and the linear layer; the reference has
none there. In evaluation a batch norm scales and shifts each feature, which a linear layer can do
itself: ``W (s x + t) + b = (W s) x + (W t + b)``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from regnet.architecture import NORM_EPS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from converters.checkpoint import StoredTensor

    Read = Callable[[StoredTensor], NDArray[np.float64]]


@dataclass(frozen=True, slots=True)
class Fold:
    """A batch norm and the weight of the linear layer behind it.

    Attributes:
        norm: ``weight``, ``bias``, ``running_mean`` and ``running_var``, each (features,).
        weight: (classes, features).
    """

    norm: Mapping[str, StoredTensor]
    weight: StoredTensor

    def apply(self, tensor: StoredTensor, read: Read) -> NDArray[np.float64]:
        """Compute the linear layer's weight or bias with the batch norm in it.

        Args:
            tensor: ``weight`` itself, or the bias (classes,).
            read: Returns a tensor's numbers in float64.

        Returns:
            Like ``tensor``, in float64, which is where all of it is computed.
        """
        import numpy as np

        norm = {leaf: read(stored) for leaf, stored in self.norm.items()}
        scale = norm["weight"] / np.sqrt(norm["running_var"] + NORM_EPS)
        weight = read(self.weight)
        if tensor is self.weight:
            return weight * scale
        shift = norm["bias"] - norm["running_mean"] * scale
        return read(tensor) + weight @ shift
