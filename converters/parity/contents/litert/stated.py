"""What a ``.tflite`` file says beside its network: texts, TFLite's metadata, and files behind it.

Whoever has nothing but the file prepares images and names classes by these. Fields are those of
``metadata_schema.fbs``: https://github.com/google-ai-edge/mediapipe, ``mediapipe/tasks/metadata``.
"""

from __future__ import annotations

import zlib
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_directory import STORED, ZipDirectory
from converters.errors import printable
from converters.parity.contents.litert.flatbuffer import Table
from converters.parity.contents.written import metadata_faults
from regnet.architecture import PIXELS, PROBABILITIES
from regnet.config import CONFIG_NAME
from regnet.files.json_file import PREPROCESSOR_NAME
from regnet.image_processor import RegNetImageProcessor

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_KEY, _IDENTIFIER = "TFLITE_METADATA", b"M001"
_OLDEST_PARSER = "1.0.0"

_PADDING = 16
"""Fewer zeros than these may follow the network: writers align what they write."""

_MOST = 1 << 24
"""In bytes, of one file behind the network."""

_ABSENT, _FEATURE, _IMAGE = 0, 1, 2
"""``ContentProperties``."""

_COLOURS = {1: 2, 3: 1}
"""``ColorSpaceType`` by the number of channels."""

_NORMALIZATION, _THRESHOLDING = 1, 3
"""``ProcessUnitOptions``."""

_AXIS_LABELS = 2
"""``AssociatedFileType``."""

_OF_MODEL, _OF_NETWORK, _OF_TENSOR = (4, 5, 6), (4, 5, 6, 7, 8, 9), (2,)
"""Fields that ask for more than what is read here; authors and licences do not."""

_CLOSE = 1e-5
"""Relative: numbers are float32, and an image processor computes in it as well."""


class Stated(NamedTuple):
    """What a file says.

    Attributes:
        texts: Metadata that is text, by name.
        described: TFLite's metadata; None if it has none.
        files: What the ZIP behind the network holds, by name.
    """

    texts: dict[str, str]
    described: Table | None
    files: dict[str, bytes]


def texts_in(root: Table) -> dict[str, str]:
    """Metadata of a model that are text, by name.

    Raises:
        ValueError: If they lie nowhere.
    """
    texts = {}
    for name, content in _metadata(root):
        with suppress(UnicodeDecodeError):
            texts[name] = bytes(content).decode()
    return texts


def stated_by(root: Table, path: Path) -> Stated:
    """All that a file says.

    Args:
        root: Its model, of which all that is large was looked at.
        path: The file.

    Raises:
        ConversionError: If what is behind the network is no ZIP that all programs read alike.
        OSError: If it cannot be opened.
        ValueError: If its metadata are none.
    """
    (*_, found) = [None, *(content for name, content in _metadata(root) if name == _KEY)]
    described = None if found is None else Table.root(found, _IDENTIFIER)
    return Stated(texts_in(root), described, _files_behind(path, root.file.end))


def _metadata(root: Table) -> Iterator[tuple[str, memoryview]]:
    buffers = root.tables(4)
    for entry in root.tables(6):
        place = int(entry.number(1, "<u4"))
        if place >= len(buffers):
            raise ValueError(f"its metadata lie in buffer {place} of {len(buffers)}")
        yield entry.text(0), buffers[place].octets(0)


def _files_behind(path: Path, end: int) -> dict[str, bytes]:
    """What the ZIP behind the ``end`` of a network holds; nothing else may be there."""
    with SourceFile(path) as file:
        if _is_padding(file.read(end, min(file.size - end, _PADDING))):
            return {}
        archive = ZipDirectory(file)
        begin = min((entry.header for entry in archive.entries), default=file.size)
        archive.require_one_reading(begin)
        if begin < end or not _is_padding(file.read(end, min(begin - end, _PADDING))):
            raise ValueError(f"its files begin at byte {begin}, and its network ends at {end}")
        files = {entry.name: archive.content(entry, _MOST) for entry in archive.entries}
        for entry in archive.entries:
            name, content = printable(entry.name), files[entry.name]
            if entry.method != STORED or zlib.crc32(content) != entry.crc32:
                raise ValueError(f"{name} in it is compressed or damaged")
    return files


def _is_padding(content: bytes) -> bool:
    return len(content) < _PADDING and not any(content)


def faults_in(folder: ConvertedFolder, stated: Stated) -> Iterator[str]:
    """Where what a file says contradicts its folder, or asks for what its network does not."""
    yield from metadata_faults(folder, stated.texts)
    labels = _labels(folder)
    names = {name for name, _ in labels}
    if described := stated.described:
        yield from _described_faults(folder, described, labels)
    else:
        names = set()
    if stated.files.keys() != names:
        found = ", ".join(map(printable, stated.files)) or "nothing"
        yield f"the files behind its network are {found}, and not those that its metadata name"
    for name in names & stated.files.keys():
        if stated.files[name].decode("utf-8", "replace").split("\n") != [*_lines(folder), ""]:
            yield f"its {name} names other classes than {CONFIG_NAME}"


def _described_faults(
    folder: ConvertedFolder, described: Table, labels: list[tuple[str, int]]
) -> Iterator[str]:
    networks = described.tables(3)
    if len(networks) != 1:
        yield f"its metadata are of {len(networks)} networks"
        return
    (network,) = networks
    inputs, outputs = network.tables(2), network.tables(3)
    called = [table.text(0) for table in (*inputs, *outputs)]
    if called != [PIXELS, *folder.output_names]:
        yield f"its metadata are of {printable(', '.join(called))}"
        return
    if described.text(7) != _OLDEST_PARSER:
        yield f"its metadata ask for version {printable(described.text(7))} of their reader"
    tables = ((described, _OF_MODEL), (network, _OF_NETWORK))
    tensors = ((table, _OF_TENSOR) for table in (*inputs, *outputs))
    if any(table.has(field) for table, fields in (*tables, *tensors) for field in fields):
        yield "its metadata ask for more than the network needs"
    yield from _image_faults(folder, inputs[0])
    for table in outputs:
        if _content(table)[0] != _FEATURE or table.has(5):
            yield f"its metadata make something else of {table.text(0)}"
        files = [(each.text(0), int(each.number(2, "i1"))) for each in table.tables(6)]
        if files != labels:
            yield f"its metadata name other files for {table.text(0)}"
        units = [kind for kind, _ in _units(table)]
        if units != [_THRESHOLDING] * bool(labels):
            yield f"its metadata change {table.text(0)}"
        least = 0 if table.text(0) == PROBABILITIES else np.finfo(np.float32).min
        if any(options.number(0, "<f4") != least for _, options in _units(table)):
            yield f"its metadata leave out some of {table.text(0)}"


def _image_faults(folder: ConvertedFolder, table: Table) -> Iterator[str]:
    kind, properties = _content(table)
    size = properties.table(1) if properties else None
    sides = [int(size.number(field, "<u4")) for field in (0, 1)] if size else []
    colour = int(properties.number(0, "i1")) if properties else 0
    if (kind, colour) != (_IMAGE, _COLOURS.get(folder.config.num_channels, 0)):
        yield "its metadata say that images are of another kind"
    if sides != [folder.image_size] * 2:
        yield f"its metadata say that images are {sides} pixels large"
    if table.has(6):
        yield f"its metadata name files for {PIXELS}"
    due = _black_and_white(folder)
    units = _units(table)
    if [each for each, _ in units] != [_NORMALIZATION] * (due is not None):
        yield "its metadata change images otherwise than by normalising them"
    elif due is not None:
        ((_, options),) = units
        mean, std = (options.numbers(field, "<f4").astype(np.float64) for field in (0, 1))
        found = [(byte - mean) / std for byte in (0, 255)] if len(mean) == len(std) else []
        stats = table.table(5)
        ends = [stats.numbers(field, "<f4") for field in (1, 0)] if stats else []
        if not _equal(found, due) or not _equal(ends, np.sort(due, axis=0)):
            yield f"its metadata normalise images otherwise than {PREPROCESSOR_NAME} says"


def _content(table: Table) -> tuple[int, Table | None]:
    """Of which kind a tensor is, and what is said of it."""
    content = table.table(3)
    return (int(content.number(0, "u1")), content.table(1)) if content else (_ABSENT, None)


def _units(table: Table) -> list[tuple[int, Table]]:
    """What is done to a tensor: of which kind, and how."""
    units = ((int(unit.number(0, "u1")), unit.table(1)) for unit in table.tables(4))
    return [(kind, options or table) for kind, options in units]


def _equal(found: Sequence[NDArray[np.floating]], due: NDArray[np.floating]) -> bool:
    shapes = {each.shape for each in found}
    return shapes == {due.shape[1:]} and np.allclose(found, due, _CLOSE, _CLOSE)


def _black_and_white(folder: ConvertedFolder) -> NDArray[np.floating] | None:
    """What the image processor makes of a black and of a white pixel, (2, channels)."""
    if not folder.preprocessing:
        return None
    settings = {"size": 1, "do_resize": False, **folder.interface.settings}
    own = RegNetImageProcessor.from_pretrained(folder.path, **settings)
    channels = len(own.image_mean)
    if channels != folder.config.num_channels or (own.do_rescale and not own.rescale_factor):
        return None
    pixels = [np.full((1, 1, channels), byte, np.uint8) for byte in (0, 255)]
    values: NDArray[np.floating] = own(pixels, return_tensors="np").pixel_values[:, :, 0, 0]
    return values


def _labels(folder: ConvertedFolder) -> list[tuple[str, int]]:
    """The files that belong to the logits, and what they are for."""
    return [("labels.txt", _AXIS_LABELS)] if _lines(folder) else []


def _lines(folder: ConvertedFolder) -> list[str]:
    """Names of the classes, each in one line."""
    names: Mapping[int, str] = folder.config.id2label if folder.has_classifier else {}
    return [" ".join(names[index].splitlines()) for index in range(len(names))]
