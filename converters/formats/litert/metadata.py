"""What apps learn from a ``.tflite`` file itself: how its images are made, and its classes' names.

TFLite's metadata are a flatbuffer of their own in a buffer of the model, and the files that they
name a ZIP behind the model. Fields are in the order of ``metadata_schema.fbs``, where the numbers
are too: https://github.com/google-ai-edge/mediapipe, ``mediapipe/tasks/metadata``.
"""

from __future__ import annotations

from io import SEEK_END
from typing import TYPE_CHECKING
from zipfile import ZipFile, ZipInfo

import numpy as np

from converters.formats.litert.flatbuffer import FlatBuffer, Table
from converters.formats.onnx.graph import LOGITS
from regnet.architecture import PIXELS, PROBABILITIES

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

METADATA_KEY = "TFLITE_METADATA"
"""What the buffer is called among the model's own metadata."""

LABELS_NAME = "labels.txt"
"""The file of the classes' names, one a line, in the order of the logits."""

_IDENTIFIER = b"M001"
_OLDEST_PARSER = "1.0.0"
"""Version of the schema that has all that is said here."""

_AXIS_LABELS = np.int8(2)
"""``AssociatedFileType``: a name for each number of the last axis."""

_FEATURE, _IMAGE = np.uint8(1), np.uint8(2)
"""``ContentProperties``."""

_NORMALIZATION, _THRESHOLDING = np.uint8(1), np.uint8(3)
"""``ProcessUnitOptions``."""

_LEAST_SCORE = np.finfo(np.float32).min
"""Logits may be negative, and the Task Library leaves out what is below 0 unless it is told."""

_SCORES = {LOGITS: _LEAST_SCORE, PROBABILITIES: np.float32(0)}
"""Outputs that have a number for each class, and the least of them that counts."""

_COLOURS = {1: np.int8(2), 3: np.int8(1)}
"""``ColorSpaceType`` by the number of channels."""

_LARGEST_BYTE = 255
_MODE = 0o644
_UNIX = 3


def packed_metadata(folder: ConvertedFolder, description: str) -> bytes:
    """The metadata of a folder's network.

    Args:
        folder: Whose.
        description: For people.

    Raises:
        InputError: If its image processor cannot be read.
    """
    name = folder.config.architecture_name(classifier=folder.has_classifier)
    outputs = [_output(folder, each) for each in folder.output_names]
    network = Table((None, None, [_image(folder)], outputs))
    model = Table((name, description, None, [network], None, None, None, _OLDEST_PARSER))
    return bytes(FlatBuffer.of(model, _IDENTIFIER).head)


def labels_of(folder: ConvertedFolder) -> str:
    """What :data:`LABELS_NAME` says; a name of several lines is put into one; empty of a trunk."""
    if not folder.has_classifier:
        return ""
    names = (" ".join(name.splitlines()) for _, name in sorted(folder.config.id2label.items()))
    return "".join(f"{name}\n" for name in names)


def append_files(folder: ConvertedFolder, path: Path) -> None:
    """Put the files that the metadata name behind a model: those that a program may look for.

    They are stored as they are, which LiteRT's Task Library asks for.

    Raises:
        OSError: If it cannot be written.
    """
    labels = labels_of(folder)
    if not labels:
        return
    entry = ZipInfo(LABELS_NAME)  # dated 1980-01-01, whatever the clock says
    entry.external_attr, entry.create_system = _MODE << 16, _UNIX
    with path.open("r+b") as file:
        file.seek(0, SEEK_END)
        with ZipFile(file, "w") as archive:  # which counts from the beginning of the file
            archive.writestr(entry, labels)


def _image(folder: ConvertedFolder) -> Table:
    """``TensorMetadata`` of the input."""
    channels, side = folder.config.num_channels, np.uint32(folder.image_size)
    properties = Table((_COLOURS.get(channels), Table((side, side))))
    content, takes = Table((_IMAGE, properties)), f"an image, {folder.interface.takes}"
    if folder.normalisation is None:
        return Table((PIXELS, takes, None, content))
    mean, std = (np.array(each, np.float32) for each in folder.normalisation)
    units = [Table((_NORMALIZATION, Table((mean, std))))]
    ends = np.sort([(byte - mean) / std for byte in (0, _LARGEST_BYTE)], axis=0)
    least, most = ends.astype(np.float32)
    return Table((PIXELS, takes, None, content, units, Table((most, least))))


def _output(folder: ConvertedFolder, name: str) -> Table:
    """``TensorMetadata`` of an output."""
    content = Table((_FEATURE, Table(())))
    if name not in _SCORES or not labels_of(folder):
        return Table((name, None, None, content))
    units = [Table((_THRESHOLDING, Table((_SCORES[name],))))]
    files = [Table((LABELS_NAME, "names of the classes", _AXIS_LABELS))]
    return Table((name, None, None, content, units, None, files))
