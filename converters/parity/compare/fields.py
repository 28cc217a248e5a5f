"""Comparing what two sides say of themselves: configuration and preprocessing, field by field."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.checkpoint.graph import LABELS, PREPROCESSING
from converters.parity.compare.sides import WeightsSide
from regnet.config import CONFIG_NAME
from regnet.files.json_file import PREPROCESSOR_NAME
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from converters.parity.compare.sides import Side

_BOOKKEEPING = frozenset({"transformers_version", "_name_or_path", "torch_dtype"})
"""Fields of who wrote a file and when."""

_SHOWN = 60
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class FieldDifference:
    """A field that two sides state differently.

    Attributes:
        file: ``config.json`` or ``preprocessor_config.json``.
        field: Its key.
        a: A's value as JSON, shortened; None if it has none.
        b: B's.
    """

    file: str
    field: str
    a: str | None
    b: str | None


def compare_fields(a: Side, b: Side) -> tuple[FieldDifference, ...] | None:
    """List what two sides state differently.

    Two folders state everything; an ONNX or TorchScript file of this project states how images are
    prepared and what the classes are called, and is compared in what both sides state.

    Returns:
        None if there is nothing that both state.

    Raises:
        InputError: If a file cannot be read.
    """
    ours, theirs = _stated(a), _stated(b)
    whole = isinstance(a, WeightsSide) and isinstance(b, WeightsSide)
    found: list[FieldDifference] = []
    shared = [file for file in ours if file in theirs]
    for file in shared:
        for field in ours[file] | theirs[file]:
            values = ours[file].get(field, _ABSENT), theirs[file].get(field, _ABSENT)
            counts = field not in _BOOKKEEPING and (whole or _ABSENT not in values)
            if counts and values[0] != values[1]:
                found.append(FieldDifference(file, field, *map(_shown, values)))
    return tuple(found) if shared else None


def _stated(side: Side) -> dict[str, dict[str, Any]]:
    """File name to field to value, as JSON reads them."""
    if isinstance(side, WeightsSide):
        stated = {
            CONFIG_NAME: side.folder.config.to_dict(),
            PREPROCESSOR_NAME: side.folder.preprocessing,
        }
        plain: dict[str, dict[str, Any]] = json.loads(json.dumps(stated))
        return plain
    metadata = side.runtime.metadata
    try:
        values = {
            key: parse_json(metadata[key]) for key in (LABELS, PREPROCESSING) if key in metadata
        }
    except ValueError:
        return {}
    found = {
        CONFIG_NAME: {LABELS: values[LABELS]} if LABELS in values else {},
        PREPROCESSOR_NAME: values.get(PREPROCESSING, {}),
    }
    return {file: fields for file, fields in found.items() if fields and isinstance(fields, dict)}


def _shown(value: Any) -> str | None:
    if value is _ABSENT:
        return None
    text = json.dumps(value)
    if len(text) <= _SHOWN:
        return text
    count = f" ({len(value)} entries)" if isinstance(value, dict | list) else ""
    return f"{text[:_SHOWN]}...{count}"
