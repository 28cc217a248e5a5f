"""What artefacts state beside the network, for programs that have nothing but the artefact.

ONNX and LiteRT files have it in their metadata, TorchScript and `.pt2` in torch's ``extra_files``.
"""

from __future__ import annotations

import json
from io import SEEK_END
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import INTERFACE, LABELS, PREPROCESSING
from converters.folder.interface import NETWORK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

_MOST = 1 << 24
"""In bytes, of one text behind a file."""


def stated_in(folder: ConvertedFolder) -> dict[str, str]:
    """What classes are called, if a folder has a classifier, and how its images are made: JSON."""
    stated = {}
    if folder.has_classifier:
        stated[LABELS] = as_json(folder.config.id2label)
    if folder.preprocessing:
        stated[PREPROCESSING] = as_json(folder.preprocessing)
    if folder.interface != NETWORK:
        stated[INTERFACE] = as_json(folder.interface.to_dict())
    return stated


def stated_in_onnx(path: Path) -> Mapping[str, str]:
    """What an ONNX file states, which is read and not run.

    Raises:
        ConversionError: If it cannot be read.
    """
    from converters.checkpoint.onnx_container import read_onnx_metadata
    from converters.checkpoint.source_file import SourceFile

    with SourceFile(path) as file:
        return read_onnx_metadata(file)


def stated_in_archive(path: Path) -> Mapping[str, str]:
    """The same of an archive of torch.

    Raises:
        ConversionError: If it cannot be read.
    """
    from converters.checkpoint.source_file import SourceFile
    from converters.checkpoint.zip_container import ZipArchive

    with SourceFile(path) as file:
        return ZipArchive(file).stated()


def state_behind(folder: ConvertedFolder, path: Path) -> None:
    """Put what an artefact states into a ZIP behind it, if it takes or gives more than the network.

    That is for files whose programs stop reading at their end, and have no place for it.

    Raises:
        OSError: If it cannot be written.
    """
    from zipfile import ZipFile, ZipInfo

    if folder.interface == NETWORK:
        return
    with path.open("r+b") as file:
        file.seek(0, SEEK_END)
        with ZipFile(file, "w") as archive:  # which counts from the beginning of the file
            for key, text in stated_in(folder).items():
                archive.writestr(ZipInfo(key), text)  # dated 1980-01-01, whatever the clock says


def stated_behind(path: Path) -> Mapping[str, str]:
    """The same, read.

    Raises:
        ConversionError: If there is no ZIP behind it that all programs read alike.
    """
    from converters.checkpoint.source_file import SourceFile
    from converters.checkpoint.zip_directory import ZipDirectory

    with SourceFile(path) as file:
        archive = ZipDirectory(file)
        archive.require_one_reading(min(entry.header for entry in archive.entries))
        files = {entry.name: archive.content(entry, _MOST) for entry in archive.entries}
        return {name: content.decode(errors="replace") for name, content in files.items()}


def as_json(value: Mapping[Any, Any]) -> str:
    """A line of JSON, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
