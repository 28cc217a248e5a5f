"""Files that somebody else named or wrote: text of any system's editor, and JSON, within bounds.

What is wrong with a text is said as a clause that can follow the name of where it was: "is nested
too deep", "has more than 100 bytes".
"""

from __future__ import annotations

import codecs
import errno
import json
import os
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any

from regnet.files.system import flags

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

MAX_BYTES = 20_000_000
"""Of a text; the names of a million classes fit."""

MAX_DEPTH = 100
"""Of lists and objects within each other. Python gives up at some hundred, and every other program
at another number."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def is_inside(name: str) -> bool:
    """Whether a name in somebody else's file is of something in that file's folder.

    The answer is the same on every system, since folders move between them: parts are joined by
    slashes, and there is no backslash, which Windows takes for one, and no colon, which ends a
    drive's name there and begins that of a stream. What links do is not asked.
    """
    parts = PurePosixPath(name).parts
    stays = bool(parts) and not name.startswith("/") and ".." not in parts
    return stays and not any(sign in name for sign in "\\:\0")


def is_bare(name: str) -> bool:
    """Whether it is of something directly in the folder."""
    return is_inside(name) and "/" not in name


class NotRegularError(OSError):
    """A pipe, a device or a socket, where a file is asked for."""


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    A pipe would wait until somebody writes into it, a device may never end, and merely opening one
    can do something; so what it is is asked before it is opened, and again of what was opened.

    Raises:
        NotRegularError: If it is none.
        OSError: If it cannot be opened, or is a folder; its ``strerror`` says so.
    """
    _require_regular(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | flags("O_NONBLOCK", "O_BINARY"))
    file = os.fdopen(descriptor, "rb")
    try:
        _require_regular(path, os.fstat(descriptor).st_mode)
    except OSError:
        file.close()
        raise
    return file


def _require_regular(path: Path, mode: int) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(mode):
        raise NotRegularError(errno.EINVAL, "Not a regular file", str(path))


def decoded(content: bytes) -> str:
    """Decode UTF-8, or what its byte order mark says; the mark is no part of the text.

    Raises:
        ValueError: If it is in another encoding.
    """
    marked = (encoding for mark, encoding in _MARKS if content.startswith(mark))
    try:
        return content.decode(next(marked, "utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text ({error.reason} at byte {error.start})") from error


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Read a regular file as :func:`decoded` has it.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is longer or in another encoding.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size  # memory is taken for as much as is asked for
        content = file.read(min(size, most) + 1)
    if len(content) > most:
        raise ValueError(f"has more than {most} bytes")
    return decoded(content)


def parse_json(text: str | bytes) -> Any:
    """Parse JSON in UTF-8, or in what its byte order mark says.

    Args:
        text: The JSON.

    Returns:
        Plain values. Of a key that is repeated the last counts, as in every reader of JSON.

    Raises:
        ValueError: If it is none, is nested too deep, or holds half a character.
    """
    text = decoded(text) if isinstance(text, bytes) else text
    try:
        value = json.loads(text)
        _require_plain(value)
    except RecursionError as error:
        raise ValueError("is nested too deep") from error
    except UnicodeEncodeError as error:
        raise ValueError("holds half of a character (a lone surrogate)") from error
    except ValueError as error:
        raise ValueError(f"is not valid JSON ({error})") from error
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


def json_object(path: Path, most: int = MAX_BYTES) -> dict[str, Any]:
    """Read a file that holds a JSON object.

    Raises:
        ValueError: If it holds none or cannot be read, in a sentence that names it.
    """
    try:
        value = read_json(path, most)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path.name}: cannot be read as JSON; restore the file.") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path.name}: is no JSON object; restore the file.")
    return value


def _require_plain(value: Any) -> None:
    """Check what Python's reader lets pass.

    Raises:
        RecursionError: If something is nested deeper than :data:`MAX_DEPTH`.
        UnicodeEncodeError: If a text holds half of a character.
    """
    level, depth = [value], 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise RecursionError
        below: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                below.extend(item)
                below.extend(item.values())
            elif isinstance(item, list):
                below.extend(item)
            elif isinstance(item, str):
                item.encode()  # which half of a character has no way to
        level = below
