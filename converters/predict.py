"""Classifying images with a converted folder, through any runtime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, UnidentifiedImageError

from converters.artefacts import FORMATS
from converters.errors import InputError
from converters.folder import ConvertedFolder
from regnet.image_processor import RegNetImageProcessor

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.runtimes.runtime import Runtime

EAGER = "torch"
"""The runtime that needs no artefact: the reference model itself."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one image, with their probabilities."""

    image: Path
    classes: tuple[tuple[str, float], ...]


def predict_images(
    path: Path, images: Sequence[Path], runtime: str = "onnx", top: int = 5
) -> list[Prediction]:
    """Classify image files.

    Args:
        path: A converted folder with a classifier.
        images: Files that Pillow reads.
        runtime: ``onnx``, ``torchscript`` or ``torch``.
        top: How many classes to give.

    Raises:
        InputError: If the folder has no classifier or artefact, or an image cannot be read.
    """
    folder = ConvertedFolder(path)
    if not folder.has_classifier:
        raise InputError(f"{path} has no classifier, so it predicts no classes.")
    network = open_runtime(folder, runtime)
    processor = RegNetImageProcessor.from_pretrained(path)
    predictions = []
    for image in images:
        pixels = processor(open_image(image), return_tensors="np")["pixel_values"]
        probabilities = softmax(network(pixels)["logits"])[0]
        best = np.argsort(-probabilities, kind="stable")[:top]
        classes = tuple((folder.config.id2label[int(i)], float(probabilities[i])) for i in best)
        predictions.append(Prediction(image, classes))
    return predictions


def open_runtime(folder: ConvertedFolder, name: str) -> Runtime:
    """Open a folder's artefact, or the reference model for ``torch``.

    Raises:
        InputError: If the folder lacks the artefact.
    """
    if name == EAGER:
        from converters.runtimes.reference import ReferenceRuntime

        return ReferenceRuntime(folder)
    path = folder.path / FORMATS[name].file_name
    if not path.is_file():
        raise InputError(
            f"{folder.path} has no {path.name}; write it with `regnet export --format {name}`."
        )
    return FORMATS[name].load(path, folder.output_names)


def softmax(logits: NDArray[np.floating]) -> NDArray[np.float64]:
    """Probabilities (N, classes) of logits (N, classes)."""
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(axis=1, keepdims=True)
    return probabilities


def open_image(path: Path) -> Image.Image:
    """Read a picture.

    Raises:
        InputError: If Pillow cannot.
    """
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except UnidentifiedImageError as error:
        raise InputError(f"{path} is not an image that Pillow can read.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror or error}).") from error
