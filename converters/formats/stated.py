"""What artefacts state beside the network, for programs that have nothing but the artefact.

ONNX and LiteRT files have it in their metadata, TorchScript and `.pt2` in torch's ``extra_files``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import INTERFACE, LABELS, PREPROCESSING
from converters.folder.interface import NETWORK

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder


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
    from converters.checkpoint.onnx_container import read_onnx
    from converters.checkpoint.source_file import SourceFile

    with SourceFile(path) as file:
        contents = read_onnx(file)
        for beside in contents.beside:
            beside.close()
        return contents.metadata


def stated_in_archive(path: Path) -> Mapping[str, str]:
    """The same of an archive of torch.

    Raises:
        ConversionError: If it cannot be read.
    """
    from converters.checkpoint.source_file import SourceFile
    from converters.checkpoint.zip_container import ZipArchive

    with SourceFile(path) as file:
        return ZipArchive(file).stated()


def as_json(value: Mapping[Any, Any]) -> str:
    """A line of JSON, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
