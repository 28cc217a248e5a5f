"""The images that artefacts are verified on: each batch finds a kind of fault."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

SEED = 20200330
"""Of everything that is drawn, so that every run draws the same."""
_SMALLEST, _LARGEST = 32, 1024
_PATCH = 8
_GRAIN = 0.05
_IMPULSE = 10.0
_EXTREME = 1e6
_DENORMAL = 1e-40

PHOTOGRAPHS = "photographs"
EXTREMES = "extremes"

TILES = "tiles"
_TOGETHER = ("checkerboards", "impulses", "constant", "denormals")
"""Small batches, which find what they are there for in any part of an image."""

NATURAL = ("native", "odd", PHOTOGRAPHS)
"""Batches with the spread of normalised photographs."""


def verification_inputs(num_channels: int, image_size: int) -> dict[str, NDArray[np.float32]]:
    """Batches of normalised pixels.

    - ``native``: one image of noise at the network's own size.
    - ``odd``: seven images, odd and not square (a fixed batch or size, a wrong padding or swapped
      axes cannot pass): noise, smooth ramps that differ by channel, coarse patches.
    - ``checkerboards``: two, fine and coarse; a shift by a pixel shows.
    - ``impulses``: one bright pixel of one channel each; mixed channels and shifts show.
    - ``constant``: one grey image; what is left of it at the borders is the padding.
    - ``extremes``: two, a million times brighter; a clipped activation shows.
    - ``denormals``: half of the pixels; processors may flush them to zero, which must not matter.

    All but the first are small: the same weights are used however large the image. Every image
    holds some noise. Without it all pixels of a feature map are equal; their rounding errors add up
    instead of averaging out, and right artefacts differ by ten times what float32 PyTorch does.

    Args:
        num_channels: Channels of the network's input.
        image_size: Native height and width, in pixels; of more than 1024, 1024 are taken, since
            what passes between layers would take more memory than there is.

    Returns:
        Name to (N, num_channels, H, W), the same on every machine.
    """
    random = np.random.default_rng(SEED)
    image_size = min(image_size, _LARGEST)
    height = max(_SMALLEST, image_size * 2 // 9)
    width = height + 17
    shape = (num_channels, height, width)
    batches = {
        "native": random.standard_normal((1, num_channels, image_size, image_size)),
        "odd": np.stack([*random.standard_normal((3, *shape)), *_structured(random, shape)]),
        "checkerboards": np.stack([_checkerboard(shape, 1), _checkerboard(shape, 5)]),
        "impulses": _impulses(shape),
        "constant": np.full((1, *shape), 0.5),
        EXTREMES: random.standard_normal((2, *shape)) * _EXTREME,
    }
    for name in ("checkerboards", "impulses", "constant"):
        batches[name] = batches[name] + random.standard_normal(batches[name].shape) * _GRAIN
    noise = random.standard_normal((1, *shape))
    batches["denormals"] = noise * random.choice([_DENORMAL, 1], size=shape)
    return {name: batch.astype(np.float32) for name, batch in batches.items()}


def fitted_batches(
    inputs: Mapping[str, NDArray[np.float32]], sizes: Sequence[int | None]
) -> dict[str, NDArray[np.float32]]:
    """Every batch for an artefact that fixes sizes.

    Where it fixes all of them, those of :data:`_TOGETHER` are one batch, their images side by side:
    each by itself, repeated to the size of the others, would cost as much as they all and show no
    more.

    Args:
        inputs: Batch to (N, num_channels, H, W).
        sizes: As of :func:`fitted`.
    """
    small = {name: inputs[name] for name in _TOGETHER if name in inputs}
    images = [image for batch in small.values() for image in batch]
    shapes = {image.shape for image in images}
    if None in sizes or len(shapes) != 1:
        return {name: fitted(pixels, sizes) for name, pixels in inputs.items()}
    count, height, width = (size or 0 for size in sizes)
    ((_, rows, columns),) = shapes
    if (height // rows) * (width // columns) < len(images):
        return {name: fitted(pixels, sizes) for name, pixels in inputs.items()}
    down, across = -(-height // rows), -(-width // columns)
    made = []
    for first in range(count):  # so that no two are equal
        order = itertools.cycle(images[first % len(images) :] + images[: first % len(images)])
        tiled = np.block([[next(order) for _ in range(across)] for _ in range(down)])
        made.append(np.roll(tiled[:, :height, :width], first // len(images), axis=-1))
    others = {name: fitted(each, sizes) for name, each in inputs.items() if name not in small}
    return others | {TILES: np.stack(made)}


def fitted(pixels: NDArray[np.float32], sizes: Sequence[int | None]) -> NDArray[np.float32]:
    """Cut a batch, or repeat it, to sizes that an artefact fixes.

    Args:
        pixels: (N, num_channels, H, W); never written into.
        sizes: N, H and W as wanted; None is as it is.

    Returns:
        ``pixels`` itself, if nothing has to be done; else a copy.
    """
    images = len(pixels)
    for axis, size in zip((0, 2, 3), sizes, strict=True):
        if size is not None and size != pixels.shape[axis]:
            pixels = pixels.take(np.arange(size), axis, mode="wrap")
    for image in range(images, len(pixels)):  # added by `take`, which has made a copy then
        # Repeated images, on which agreement would prove nothing, become others.
        pixels[image] = np.roll(pixels[image], image, axis=-1)
    return pixels


def photographs(folder: ConvertedFolder, paths: Sequence[Path]) -> NDArray[np.float32]:
    """Pictures as the folder's own image processor prepares them, (N, num_channels, H, W).

    Raises:
        InputError: If a file is no picture, the folder has no image processor that can be used, or
            the processor leaves pictures as they are and these have several sizes.
    """
    from converters.folder.images import prepared

    pixels = [prepared(path, folder.processor) for path in paths]
    if len({image.shape for image in pixels}) > 1:
        raise InputError("Images of several sizes make no batch; give some of one size.")
    return np.stack(pixels)


def _structured(random: np.random.Generator, shape: tuple[int, ...]) -> list[NDArray[np.float64]]:
    """Two ramps and two images of patches, with noise over them."""
    num_channels, height, width = shape
    ramp = np.linspace(-2, 2, height * width).reshape(1, height, width)
    by_channel = np.linspace(1, -1, num_channels).reshape(-1, 1, 1)
    grid = (2, num_channels, height // _PATCH + 1, width // _PATCH + 1)
    patches = random.standard_normal(grid).repeat(_PATCH, axis=2).repeat(_PATCH, axis=3)
    coarse = patches[:, :, :height, :width]
    grain = random.standard_normal((4, *shape)) / 2
    smooth = [ramp * by_channel, ramp[:, ::-1, ::-1] * by_channel]
    return [image + noise for image, noise in zip([*smooth, *coarse], grain, strict=True)]


def _checkerboard(shape: tuple[int, ...], side: int) -> NDArray[np.float64]:
    num_channels, height, width = shape
    row, column = np.indices((height, width)) // side
    return np.broadcast_to(1.0 - 2.0 * ((row + column) % 2), (num_channels, height, width))


def _impulses(shape: tuple[int, ...]) -> NDArray[np.float64]:
    """One image per channel; the pixel lies off every axis of symmetry."""
    num_channels, height, width = shape
    images = np.zeros((num_channels, *shape))
    channels = range(num_channels)
    images[channels, channels, height // 2 - 3, width // 3] = _IMPULSE
    return images
