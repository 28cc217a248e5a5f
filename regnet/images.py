"""Pictures, arrays and tensors made alike: numpy arrays of shape (C, H, W), and back to pictures.

What counts as an image, and how its values become bytes, is as in transformers 5
(``image_utils.py``, ``image_transforms.py``).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import torch

    Pixels = npt.NDArray[Any]
    ImageInput = Image.Image | Pixels | torch.Tensor

PILLOW_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Number of channels to the Pillow mode that has them."""

MOST_PIXELS = 1 << 27
"""Of one picture, before or after resizing. A photograph of 108 megapixels fits, and 0.5 GB holds
what Pillow makes of it in colour."""

_STRIP = 1 << 20
"""Pixels that are laid on white at once."""

_IMAGE_AXES, _BATCH_AXES = 3, 4
_BYTE_MAX = 255
_EMPTY = "An image without pixels cannot be processed; leave it out."


def single_images(images: ImageInput | Sequence[ImageInput]) -> Iterator[Image.Image | Pixels]:
    """Yield image after image from one image, a batch, or a list of either.

    Args:
        images: Pillow images, or numpy arrays or torch tensors of three axes (an image) or four (a
            batch).

    Raises:
        TypeError: If something is none of these.
        ValueError: If an array has another number of axes.
    """
    if isinstance(images, list | tuple):
        for image in images:
            yield from single_images(image)
        return
    if isinstance(images, Image.Image):
        yield images
        return
    array = images.detach().cpu().numpy() if _is_tensor(images) else images
    if not isinstance(array, np.ndarray):
        raise TypeError(
            f"A {type(images).__name__} is not an image; "
            "give Pillow images, numpy arrays or torch tensors."
        )
    if array.ndim not in {_IMAGE_AXES, _BATCH_AXES}:
        raise ValueError(
            f"An array of shape {array.shape} is neither an image nor a batch; "
            "give three axes or four."
        )
    yield from array if array.ndim == _BATCH_AXES else (array,)


def _is_tensor(value: object) -> TypeGuard[torch.Tensor]:
    # Whoever holds a tensor has imported torch already, so there is no need to.
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_pixels(image: Image.Image | Pixels, channels: int) -> Pixels:
    """Bring one image to shape (``channels``, H, W), its values unchanged.

    Args:
        image: A Pillow image of any mode, or an array of shape (C, H, W) or (H, W, C). One channel
            is repeated as often as needed; transparency is laid on white.
        channels: 1, 3 or 4.

    Raises:
        ValueError: If there are no pixels, no axis of channels, or another number of channels.
    """
    if isinstance(image, Image.Image):
        return pixels_of(to_picture(image, channels))
    if 0 in image.shape:
        raise ValueError(_EMPTY)
    if image.shape[0] in PILLOW_MODES:
        pixels = image
    elif image.shape[-1] in PILLOW_MODES:
        pixels = np.moveaxis(image, -1, 0)
    else:
        raise ValueError(
            f"An image of shape {image.shape} has no axis of channels; give (C, H, W) or (H, W, C)."
        )
    if len(pixels) == 1:
        pixels = np.repeat(pixels, channels, axis=0)
    if len(pixels) != channels:
        raise ValueError(
            f"An image of shape {image.shape} has {len(pixels)} channels; give {channels}."
        )
    return pixels


def collated(
    arrays: list[npt.NDArray[np.float32]], return_tensors: str | None
) -> list[npt.NDArray[np.float32]] | npt.NDArray[np.float32] | torch.Tensor:
    """Return arrays of shape (C, H, W) as they are or as one batch of shape (N, C, H, W).

    Args:
        arrays: At least one.
        return_tensors: ``None`` for the list, ``"np"`` for a numpy array, ``"pt"`` for a torch
            tensor.

    Raises:
        ValueError: If there are none, their shapes differ, or ``return_tensors`` is something else.
    """
    if return_tensors not in {None, "np", "pt"}:
        raise ValueError(f"return_tensors={return_tensors!r} is not one of None, 'np', 'pt'.")
    if not arrays:
        raise ValueError("There is no image to process; give at least one.")
    if return_tensors is None:
        return arrays
    if len({array.shape for array in arrays}) > 1:
        raise ValueError("Images of different sizes cannot be stacked; turn do_resize on.")
    batch = np.stack(arrays)
    if return_tensors == "np":
        return batch
    import torch

    return torch.from_numpy(batch)


def to_picture(image: Image.Image, channels: int) -> Image.Image:
    """Bring a Pillow image of any mode to one with so many channels, transparency laid on white.

    Args:
        image: Returned as it is where nothing has to be done.
        channels: 1, 3 or 4.

    Raises:
        ValueError: If there are no pixels.
    """
    if 0 in image.size:
        raise ValueError(_EMPTY)
    mode = PILLOW_MODES[channels]
    transparent = "A" in image.getbands() or image.info.get("transparency") is not None
    if transparent and mode != "RGBA":
        return _on_white(image, mode)
    return image if image.mode == mode else image.convert(mode)


def _on_white(image: Image.Image, mode: str) -> Image.Image:
    """Strip by strip, since all of it at once would take three pictures' memory more."""
    result = Image.new(mode, image.size)
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        box = (0, top, image.width, min(top + rows, image.height))
        strip = image.crop(box).convert("RGBA")
        white = Image.new("RGBA", strip.size, "white")
        result.paste(Image.alpha_composite(white, strip).convert(mode), box)
    return result


def picture_of(pixels: npt.NDArray[np.uint8]) -> Image.Image:
    """The Pillow image with the bytes of an array of shape (C, H, W)."""
    return Image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, -1))


def pixels_of(picture: Image.Image) -> Pixels:
    """The values of a Pillow image, shape (C, H, W)."""
    return np.moveaxis(np.atleast_3d(np.asarray(picture)), -1, 0)


def has_byte_values(pixels: Pixels) -> bool:
    """Whether an image holds whole numbers from 0 to 255 (true) or fractions of 1 (false).

    Raises:
        ValueError: If its values are neither.
    """
    if pixels.dtype == np.uint8:
        return True
    low, high = pixels.min(), pixels.max()
    # The range first: the cast to integers is undefined for NaN and what does not fit.
    if 0 <= low <= high <= _BYTE_MAX and np.allclose(pixels, pixels.astype(int)):
        return True
    if 0 <= low <= high <= 1:
        return False
    raise ValueError(
        f"An image with values from {low} to {high} cannot be resized; "
        "give whole numbers from 0 to 255 or fractions from 0 to 1."
    )


def scaled(pixels: Pixels, factor: float) -> npt.NDArray[np.float32]:
    """Multiply in float64 and return float32, as transformers does: float32 would round twice."""
    return (pixels.astype(np.float64) * factor).astype(np.float32)
