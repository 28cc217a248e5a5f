"""Opening a file that somebody else named, and reading text as editors of every system write it."""

from __future__ import annotations

import codecs
import errno
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from io import BufferedReader
    from pathlib import Path

MAX_BYTES = 20_000_000
"""Of a text; the names of a million classes fit."""

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins as UTF-16's does, so it comes first
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading.

    A pipe would wait until somebody writes into it, a device may never end, and merely opening one
    can do something; so what it is is asked before it is opened, and again of what was opened.

    Raises:
        OSError: If it cannot be opened, or is none; its ``strerror`` says so.
    """
    _require_regular(path, path.stat().st_mode)
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
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
        raise OSError(errno.EINVAL, "Not a regular file", str(path))


def decoded(content: bytes) -> str:
    """Decode UTF-8, or what its byte order mark says; the mark is no part of the text.

    Raises:
        UnicodeDecodeError: If it is in another encoding.
    """
    for mark, encoding in _MARKS:
        if content.startswith(mark):
            return content.decode(encoding)
    return content.decode("utf-8")


def read_text(path: Path, most: int = MAX_BYTES) -> str:
    """Read a regular file as :func:`decoded` has it.

    Args:
        path: The file.
        most: Bytes that it may have.

    Raises:
        OSError: If it cannot be read, or is no regular file.
        ValueError: If it is longer or in another encoding, as a clause that can follow its name:
            "has more than ... bytes".
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size  # memory is taken for as much as is asked for
        content = file.read(min(size, most) + 1)
    if len(content) > most:
        raise ValueError(f"has more than {most} bytes")
    try:
        return decoded(content)
    except UnicodeDecodeError as error:
        raise ValueError(f"is no UTF-8 text ({error.reason} at byte {error.start})") from error
