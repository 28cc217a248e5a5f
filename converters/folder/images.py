"""Finding image files and reading them in batches, however many there are."""

from __future__ import annotations

import glob
import math
import struct
from functools import cache
from itertools import chain, islice
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from converters.checkpoint.quiet import ignoring
from converters.errors import InputError
from converters.published.located import paths
from regnet.config import CONFIG_NAME, MAX_SIDE
from regnet.files.reading import open_regular
from regnet.images import MOST_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.published.located import Place
    from regnet.image_processor import RegNetImageProcessor

    Batch = tuple[list[Path], NDArray[np.float32]]

FORMATS = (
    *("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF"),
    *("AVIF", "JPEG2000", "PPM", "QOI", "TGA"),
)
"""What is opened, by Pillow's names: pixels alone. Of its other forty readers one starts another
program (Ghostscript, for PostScript), and most are hardly ever used and looked after."""

MOST_PIXELS_A_SIDE = 1 << 20
"""What Pillow's filters keep for each pixel of a side is 32 bytes and more."""

MOST_PIXELS_AT_ONCE = 1 << 25
"""Of all images in a batch: 668 of 224 pixels a side, or eight of the largest that there may be."""

_GLANCE = 1000
"""Files that are looked at to tell a folder of images from another."""

_TILE_SIDES = (322, 323)
"""TIFF's tags TileWidth and TileLength: how much is decompressed at once."""

_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error)
"""What Pillow's readers raise on damaged files."""


class UnreadableImagesError(InputError):
    """Some images could not be read, a sentence for each; all others were processed."""


def find_images(places: Place | Iterable[Place]) -> list[Path]:
    """List image files.

    Args:
        places: Files, taken as they are, whether they exist or not; folders, searched to the bottom
            for what has a suffix of :data:`FORMATS`; and patterns such as ``photos/**/*.jpg``, for
            shells that leave those to programs.

    Returns:
        The files in the order of the places, each place's sorted by name; none twice.

    Raises:
        InputError: If a folder holds no image or a pattern matches nothing.
    """
    return list(dict.fromkeys(image for place in paths(places) for image in _images_at(place)))


def _images_at(place: Path) -> list[Path]:
    if place.is_dir():
        images = images_below(place)
        if not images:
            if (place / CONFIG_NAME).is_file():
                raise InputError(
                    f"{place} is the folder of a network and holds no image that can be read; give "
                    "it first, and images after it."
                )
            raise InputError(f"{place} holds no image that can be read; name another folder.")
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


def shows_images(folder: Path) -> bool:
    """Whether there are images among the first files of a folder, or of those in it."""
    first = islice(chain(folder.glob("*"), folder.glob("*/*")), _GLANCE)
    return any(path.suffix.lower() in _suffixes() for path in first)


@cache
def _suffixes() -> frozenset[str]:
    extensions = Image.registered_extensions()
    return frozenset(suffix for suffix, name in extensions.items() if name in _formats())


@cache
def _formats() -> list[str]:
    """Of :data:`FORMATS` those that this Pillow was built with."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


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
        size: Images in a batch. The last has fewer, and so do one before an image of another
            size, where the processor does not resize, and one of images so large that together
            they have more than :data:`MOST_PIXELS_AT_ONCE`.
        unreadable: Gets one sentence for each file that cannot be read; it is left out.

    Yields:
        Files, and pixels of shape (N, num_channels, H, W).
    """
    paths: list[Path] = []
    pixels: list[NDArray[np.float32]] = []
    for path in images:
        try:
            image = prepared(path, processor)
        except InputError as error:
            unreadable.append(str(error))
            continue
        _, height, width = image.shape
        most = min(size, MOST_PIXELS_AT_ONCE // (height * width))
        if pixels and (len(pixels) >= most or image.shape != pixels[0].shape):
            yield paths, np.stack(pixels)
            paths, pixels = [], []
        paths.append(path)
        pixels.append(image)
    if pixels:
        yield paths, np.stack(pixels)


def prepared(path: Path, processor: RegNetImageProcessor) -> NDArray[np.float32]:
    """Read a picture and process it.

    Returns:
        (num_channels, H, W).

    Raises:
        InputError: If it cannot be read, or is too large to be processed.
    """
    image = open_image(path)
    if not processor.do_resize and image.width * image.height > MAX_SIDE**2:
        raise InputError(
            f"{path} has {_size(image)} pixels, and the folder's image processor hands it to the "
            "network as it is (do_resize is false); scale it down."
        )
    try:
        (pixels,) = processor(image)["pixel_values"]
    except ValueError as error:
        raise InputError(f"{path} cannot be used: {error}") from error
    except MemoryError as error:
        raise _too_large(path) from error
    return np.asarray(pixels)


def open_image(path: Path) -> Image.Image:
    """Read a picture: of a regular file, of a format in :data:`FORMATS`, of bounded size.

    The size is taken from its header, before memory is taken for pixels.

    Raises:
        InputError: If it is none, or damaged.
    """
    try:
        with (
            ignoring(),  # of damage that has no consequence, for instance
            open_regular(path) as file,
            Image.open(file, formats=_formats()) as image,
        ):
            _require_bounded(path, image)
            image.load()
            return image
    except UnidentifiedImageError as error:
        names = ", ".join(_formats())
        raise InputError(f"{path} is not an image of a known format ({names}).") from error
    except Image.DecompressionBombError as error:
        raise InputError(f"{path} has more pixels than Pillow takes; scale it down.") from error
    except MemoryError as error:
        raise _too_large(path) from error
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}).") from error


def _require_bounded(path: Path, image: Image.Image) -> None:
    """Refuse a header that asks for more memory than a picture needs.

    Raises:
        InputError: If there are too many pixels, altogether, on a side, or in a tile.
    """
    if max(image.size) > MOST_PIXELS_A_SIDE or image.width * image.height > MOST_PIXELS:
        raise InputError(
            f"{path} has {_size(image)} pixels, where at most {MOST_PIXELS:,} and "
            f"{MOST_PIXELS_A_SIDE:,} a side are read; scale it down."
        )
    tags = getattr(image, "tag_v2", {})
    tile = [tags.get(tag, 0) for tag in _TILE_SIDES]
    if not all(isinstance(side, int) for side in tile) or math.prod(tile) > MOST_PIXELS:
        raise InputError(f"{path} is packed into tiles that are too large; save it anew.")


def _size(image: Image.Image) -> str:
    return f"{image.width:,} x {image.height:,}"


def _too_large(path: Path) -> InputError:
    return InputError(f"{path} is too large for this machine's memory; scale it down.")
