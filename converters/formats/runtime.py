"""What every runtime offers, and how sure its outputs are."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray


class Runtime(Protocol):
    """Something that runs a network.

    Attributes:
        name: The runtime and its version, for example ``onnxruntime 1.32.0``.
        precision: The type it computes in, for example ``float32``.
    """

    name: str
    precision: str

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Run the network.

        Args:
            pixel_values: (N, C, H, W), normalised.

        Returns:
            The outputs by name: ``logits``, (N, classes), or ``last_hidden_state``, (N, width,
            H', W'), and ``pooler_output``, (N, width, 1, 1); float32, except where the runtime
            says otherwise.
        """
        ...


class ArtefactRuntime(Runtime, Protocol):
    """Something that runs what a folder holds, which may have been written for certain sizes alone.

    Attributes:
        sizes: (batch, height, width) that it says it fixes; None is open.
        not_run: Of what cannot be run here and is only evaluated: why, as words that follow
            "not run: "; None of everything that is run.
        takes_bytes: Whether pixels can be nothing but whole numbers from 0 to 255.
    """

    precision: str = "float32"
    sizes: Sequence[int | None] = (None, None, None)
    not_run: str | None = None
    takes_bytes: bool = False

    def seconds(self, pixel_values: NDArray[np.float32], calls: int) -> list[float]:
        """Time calls, after one that is not timed.

        Args:
            pixel_values: (N, C, H, W), normalised.
            calls: How many are timed.
        """
        self(pixel_values)
        seconds = []
        for _ in range(calls):
            begin = time.perf_counter()
            self(pixel_values)
            seconds.append(time.perf_counter() - begin)
        return seconds


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (N, classes) of logits (N, classes)."""
    import numpy as np

    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities
