"""What artefacts state beside the network, for programs that have nothing but the artefact.

ONNX and LiteRT files have it in their metadata, TorchScript and `.pt2` in torch's ``extra_files``.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import LABELS, PREPROCESSING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.folder.folder import ConvertedFolder


def stated_in(folder: ConvertedFolder) -> dict[str, str]:
    """What classes are called, if a folder has a classifier, and how its images are made: JSON."""
    stated = {}
    if folder.has_classifier:
        stated[LABELS] = as_json(folder.config.id2label)
    if folder.preprocessing:
        stated[PREPROCESSING] = as_json(folder.preprocessing)
    return stated


def as_json(value: Mapping[Any, Any]) -> str:
    """A line of JSON, the same for equal values."""
    return json.dumps(value, ensure_ascii=False, sort_keys=True)
