"""Reading text files as editors of every system write them."""

from __future__ import annotations

import codecs
import os
from typing import TYPE_CHECKING

from regnet.files.regular_file import open_regular

if TYPE_CHECKING:
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
