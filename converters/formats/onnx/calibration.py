"""The images that ranges of int8 are measured on, and the measuring."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np
from onnx import ModelProto, TensorProto, helper

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError
from converters.folder.images import UnreadableImagesError, find_images, read_in_batches
from converters.folder.inputs import NATURAL, verification_inputs
from converters.formats.onnx.graph import named_node
from converters.formats.onnx.runtime import open_session
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

CALIBRATION_FOLDER = "calibration"
"""In a converted folder: where images are looked for if nobody names any."""

MOST_IMAGES = 256
"""What is taken of more, spread evenly. A hundred settle the ranges; the others test the result."""

_MOST_BYTES = 1 << 30
"""Of all images' pixels; 1,700 of 224 pixels a side fit, and 21 of the largest there may be."""

_BATCH = 8


def calibration_images(folder: ConvertedFolder, places: Sequence[Path]) -> list[Path]:
    """List the images to calibrate on, at most :data:`MOST_IMAGES`.

    Args:
        folder: What is to be quantised.
        places: Files, folders and patterns, for :func:`converters.folder.images.find_images`;
            without any, the folder's own ``calibration/``.

    Raises:
        InputError: If there are none. Noise would not do: it has other ranges than photographs.
    """
    own = folder.path / CALIBRATION_FOLDER
    if not places and not own.is_dir():
        raise InputError(
            f"There is no folder {CALIBRATION_FOLDER}/ with images to set the ranges of int8 by; "
            "name some with --calibration-images."
        )
    images = find_images(places or [own])
    chosen = np.linspace(0, len(images) - 1, min(len(images), MOST_IMAGES)).round().astype(int)
    return [images[index] for index in chosen]


def images_sha256(folder: ConvertedFolder, places: Sequence[Path]) -> str:
    """One sha256 for all images that :func:`calibration_images` lists, in hexadecimal."""
    digests = map(sha256_of, calibration_images(folder, places))
    return hashlib.sha256("".join(digests).encode("ascii")).hexdigest()


def calibration_pixels(
    folder: ConvertedFolder, places: Sequence[Path]
) -> list[NDArray[np.float32]]:
    """Prepare the images of :func:`calibration_images` as the folder's own image processor does.

    Returns:
        Batches of at most 8, each (N, num_channels, H, W), all in memory: 154 MB of 256 images of
        224 pixels.

    Raises:
        InputError: If there are none, or together they take more than a gigabyte.
        UnreadableImagesError: If there are some that cannot be read.
    """
    unreadable: list[str] = []
    batches: list[NDArray[np.float32]] = []
    images = calibration_images(folder, places)
    for _, pixels in read_in_batches(images, folder.processor, _BATCH, unreadable):
        batches.append(pixels)
        if sum(batch.nbytes for batch in batches) > _MOST_BYTES:
            raise InputError(
                f"The calibration images are too large together at {pixels.shape[2]} x "
                f"{pixels.shape[3]} pixels each; name fewer with --calibration-images."
            )
    if unreadable:
        raise UnreadableImagesError(*unreadable)
    return batches


def verification_pixels(folder: ConvertedFolder) -> list[NDArray[np.float32]]:
    """The batches that an int8 artefact is verified on, each (N, num_channels, H, W)."""
    inputs = verification_inputs(folder.config.num_channels, folder.image_size)
    return [pixels for name, pixels in inputs.items() if name in NATURAL]


def measured(
    model: ModelProto, batches: Sequence[NDArray[np.float32]], values: Sequence[str] = ()
) -> tuple[list[NDArray[np.float32]], dict[str, tuple[float, float]]]:
    """Run a model, which is left as it is, on one thread.

    Args:
        model: With its initialisers, in less than 2 GB.
        batches: Of pixels.
        values: What to measure the ranges of.

    Returns:
        Its first output for each batch, (N, ...), and of each value the least and the largest
        number seen.
    """
    observed = ModelProto()
    observed.CopyFrom(model)
    for value in values:
        for operator in ("ReduceMin", "ReduceMax"):
            bound = f"{value}.{operator}"
            observed.graph.node.append(named_node(operator, bound, value, keepdims=0))
            info = helper.make_tensor_value_info(bound, TensorProto.FLOAT, [])
            observed.graph.output.append(info)
    session = open_session(observed)
    runs = [session.run(None, {PIXELS: pixels}) for pixels in batches]
    bounds = np.array([run[len(model.graph.output) :] for run in runs], np.float32)
    pairs = bounds.reshape(len(runs), len(values), 2)
    least, most = pairs[..., 0].min(axis=0).tolist(), pairs[..., 1].max(axis=0).tolist()
    ranges = zip(least, most, strict=True)
    return [run[0] for run in runs], dict(zip(values, ranges, strict=True))
