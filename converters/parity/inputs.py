"""The images that artefacts are verified on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED = 20200330
_SMALLEST = 32


def verification_inputs(num_channels: int, image_size: int) -> dict[str, NDArray[np.float32]]:
    """Two batches of normalised pixels: one image at the native size, three at another.

    The second size is smaller, not square and odd, so that an artefact with a fixed size, a wrong
    padding or swapped axes cannot pass. Values have the spread of normalised photographs.

    Args:
        num_channels: Channels of the network's input.
        image_size: Native height and width, in pixels.

    Returns:
        Name to (N, num_channels, H, W), the same on every machine.
    """
    random = np.random.default_rng(_SEED)
    height = max(_SMALLEST, image_size * 3 // 7)
    width = height + 17
    shape = (num_channels, height, width)
    ramp = np.linspace(-2, 2, height * width).reshape(1, height, width)
    by_channel = np.linspace(1, -1, num_channels).reshape(-1, 1, 1)
    mixed = [random.standard_normal(shape), np.broadcast_to(ramp * by_channel, shape)]
    checkerboard = np.indices((height, width)).sum(axis=0) % 2 * 2.0 - 1
    mixed.append(np.broadcast_to(checkerboard + by_channel, shape))
    native = random.standard_normal((1, num_channels, image_size, image_size))
    return {
        "native": native.astype(np.float32),
        "mixed": np.stack(mixed).astype(np.float32),
    }
