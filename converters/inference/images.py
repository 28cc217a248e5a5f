"""Finding image files and reading them in batches, however many there are."""

from __future__ import annotations

import glob
import struct
import warnings
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from regnet.image_processor import RegNetImageProcessor

    Batch = tuple[list[Path], NDArray[np.float32]]

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow's readers raise on damaged files."""


class UnreadableImagesError(InputError):
    """Some images could not be read, a sentence for each; all others were processed."""


def find_images(places: Iterable[Path]) -> list[Path]:
    """List image files.

    Args:
        places: Files, taken as they are, whether they exist or not; folders, searched to the bottom
            for what has a suffix that Pillow reads; and patterns such as ``photos/**/*.jpg``, for
            shells that leave those to programs.

    Returns:
        The files in the order of the places, each place's sorted by name; none twice.

    Raises:
        InputError: If a folder holds no image or a pattern matches nothing.
    """
    return list(dict.fromkeys(image for place in places for image in _images_at(place)))


def _images_at(place: Path) -> list[Path]:
    if place.is_dir():
        images = images_below(place)
        if not images:
            raise InputError(f"{place} holds no image that Pillow can read; name another folder.")
        return images
    if place.exists() or not glob.has_magic(str(place)):
        return [place]
    matches = sorted(glob.glob(str(place), recursive=True))  # noqa: PTH207 -- absolute patterns too
    if not matches:
        raise InputError(f"{place} matches no file; check the pattern.")
    found = [type(place)(match) for match in matches]
    return [image for path in found for image in (images_below(path) if path.is_dir() else [path])]


def images_below(folder: Path) -> list[Path]:
    """Every image in a folder and its subfolders, sorted; none that is hidden."""
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in _suffixes()
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


@cache
def _suffixes() -> frozenset[str]:
    extensions = Image.registered_extensions()
    return frozenset(suffix for suffix, name in extensions.items() if name in Image.OPEN)


def read_in_batches(
    images: Iterable[Path],
    processor: RegNetImageProcessor,
    size: int,
    unreadable: list[str],
) -> Iterator[Batch]:
    """Read images and process them; never more than one batch is in memory.

    Args:
        images: Files.
        processor: Of the network that will see them.
        size: Images in a batch. The last has fewer, and so does one before an image of another
            size, where the processor does not resize.
        unreadable: Gets one sentence for each file that cannot be read; it is left out.

    Yields:
        Files, and pixels of shape (N, num_channels, H, W).
    """
    paths: list[Path] = []
    pixels: list[NDArray[np.float32]] = []
    for path in images:
        try:
            (image,) = processor(open_image(path))["pixel_values"]
        except InputError as error:
            unreadable.append(str(error))
            continue
        if pixels and (len(pixels) == size or image.shape != pixels[0].shape):
            yield paths, np.stack(pixels)
            paths, pixels = [], []
        paths.append(path)
        pixels.append(image)
    if pixels:
        yield paths, np.stack(pixels)


def open_image(path: Path) -> Image.Image:
    """Read a picture.

    Raises:
        InputError: If Pillow cannot.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as image:
                image.load()
                return image
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that Pillow can read.") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has more pixels than Pillow takes; scale it down.") from error
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}).") from error
