"""The images that artefacts are verified on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SEED = 20200330
_SMALLEST = 32
_PATCH = 8


def verification_inputs(num_channels: int, image_size: int) -> dict[str, NDArray[np.float32]]:
    """Two batches of normalised pixels: one image at the native size, three at another.

    The second size is smaller, not square and odd, so that an artefact with a fixed size, a wrong
    padding or swapped axes cannot pass. Values have the spread of normalised photographs.

    Every image holds noise. On a strictly periodic one, such as a checkerboard, all pixels of a
    feature map are equal; their rounding errors add up instead of averaging out, and right
    artefacts differ from the oracle by ten times what float32 PyTorch does.

    Args:
        num_channels: Channels of the network's input.
        image_size: Native height and width, in pixels.

    Returns:
        Name to (N, num_channels, H, W), the same on every machine.
    """
    random = np.random.default_rng(_SEED)
    height = max(_SMALLEST, image_size * 3 // 7)
    width = height + 17
    fine, grain, dust = random.standard_normal((3, num_channels, height, width))
    ramp = np.linspace(-2, 2, height * width).reshape(1, height, width)
    by_channel = np.linspace(1, -1, num_channels).reshape(-1, 1, 1)
    patches = random.standard_normal((num_channels, height // _PATCH + 1, width // _PATCH + 1))
    coarse = patches.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)[:, :height, :width]
    mixed = [fine, ramp * by_channel + grain / 2, coarse + dust / 2]
    native = random.standard_normal((1, num_channels, image_size, image_size))
    return {
        "native": native.astype(np.float32),
        "mixed": np.stack(mixed).astype(np.float32),
    }
