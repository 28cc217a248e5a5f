"""Reading text files as editors of every system write them."""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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


def read_text(path: Path) -> str:
    """Read a file as :func:`decoded` has it.

    Raises:
        OSError: If it cannot be read.
        UnicodeDecodeError: If it is in another encoding.
    """
    return decoded(path.read_bytes())
