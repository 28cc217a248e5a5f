"""JSON: reading what a stranger wrote, of bounded size and depth, and writing it for people."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from regnet.files.reading import MAX_BYTES, decoded, read_text

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MAX_DEPTH = 100
"""Of lists and objects within each other. Python gives up at some hundred, and every other program
at another number."""


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in UTF-8, or in what its byte order mark says.

    Args:
        text: The JSON.

    Returns:
        Plain values. Of a key that is repeated the last counts, as in every reader of JSON.

    Raises:
        ValueError: If it is none, is nested too deep, or holds half a character, as a clause that
            can follow the name of where it was: "is nested too deep".
    """
    try:
        value = json.loads(decoded(text) if isinstance(text, bytes) else text)
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text ({error.reason} at byte {error.start})") from error
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from error
    _require_plain(value)
    return value


def read_json(path: Path, most: int = MAX_BYTES) -> Any:
    """Read a file of JSON.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is longer, or no JSON; see :func:`parse_json`.
    """
    return parse_json(read_text(path, most))


def read_json_object(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """Read a file that holds a JSON object; errors are those of :func:`read_json`."""
    value = read_json(path, most)
    if not isinstance(value, dict):
        raise ValueError("is not a JSON object")
    return value


def as_text(value: Any) -> str:
    """JSON as people read it.

    Raises:
        ValueError: If it holds NaN or infinity, which JSON has not.
    """
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, fields: Mapping[str, Any]) -> None:
    """Write a JSON object as people read it; errors are those of :func:`as_text`."""
    path.write_text(as_text(fields), encoding="utf-8")


def _require_plain(value: Any) -> None:
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError("is nested too deep")
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                _require_whole_characters(item)
        level = below


def _require_whole_characters(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a character (a lone surrogate)") from error
