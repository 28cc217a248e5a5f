"""Lines of text on a picture, in any script: Pillow's own font, and those of the system.

Pillow's font has English letters and little else. A line that it lacks a letter of is written in
the first font of the system that has all of them, else each letter in the first that has it. What
no font has is written in English letters where it is made of some, else as its code point.
"""

from __future__ import annotations

import os
import re
import unicodedata
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import ImageFont

from converters.errors import escaped

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import ImageDraw

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

FOLDERS = (
    *("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts"),
    *("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts", "/system/fonts"),
    *(f"{os.environ[name]}/Fonts" for name in ("WINDIR",) if name in os.environ),
)
"""Where Linux, macOS, Android and Windows keep them."""

_ENDINGS = {".ttf", ".otf", ".ttc", ".otc"}
_MOST_FONTS = 1000

_SPECIAL = re.compile(
    "bold|black|heavy|light|thin|medium|italic|oblique|condensed|narrow|mono|serif|emoji|symbol"
    "|math|lastresort|blank",
    re.IGNORECASE,
)
"""In the names of those that are tried last, for others of the family are plainer."""

_ABSENT = "\uffff"
"""Unicode has no such character, so what a font draws for it is what it draws for all it lacks."""

_ATTACHED = {"Mn", "Me", "Mc", "Cf"}
"""Categories of what belongs to the letter before it: marks, and what joins letters."""

_LATIN = re.compile(r"LATIN (SMALL|CAPITAL) LETTER (\w+)(?: WITH .*)?")


class Lettering:
    """Writes lines of one size.

    Args:
        draw: On what.
        size: Of the letters, in pixels.

    Attributes:
        absent: Characters that no font here has, in the order in which they were met.
    """

    def __init__(self, draw: ImageDraw.ImageDraw, size: int) -> None:
        self._draw, self._size = draw, size
        self.font: Font = ImageFont.load_default(size)
        self._rise = _rise(self.font)
        self.absent: dict[str, None] = {}

    def write(self, left: int, top: int, words: str, colour: str, room: int) -> None:
        """One line, cut with three dots where it does not fit into ``room`` pixels."""
        shown = self._writable(words[:room])  # no letter is narrower than a pixel
        while len(shown) > 1 and self._length(shown) > room:
            shown = f"{shown.removesuffix('...')[:-1]}..."
        x = float(left)
        for font, run in self._runs(shown):
            self._draw.text((x, top + self._rise), run, fill=colour, font=font, anchor="ls")
            x += font.getlength(run)

    def _length(self, words: str) -> float:
        return sum(font.getlength(run) for font, run in self._runs(words))

    def _runs(self, words: str) -> Iterator[tuple[Font, str]]:
        """Pieces of a line, each with the font that it is written in."""
        fonts = [self.font, *_system_fonts(self._size)] if not words.isascii() else [self.font]
        letters = {letter for letter in words if not _is_attached(letter)}
        whole = next(
            (font for font in fonts if all(_has(font, letter) for letter in letters)), None
        )
        if whole is not None:
            yield whole, words
            return
        chosen = [self.font]
        for letter in words:
            font = None if _is_attached(letter) else self._font_of(letter)
            chosen.append(font or chosen[-1])
        for font, pairs in groupby(zip(chosen[1:], words, strict=True), key=lambda pair: pair[0]):
            yield font, "".join(letter for _, letter in pairs)

    def _font_of(self, letter: str) -> Font | None:
        if _has(self.font, letter):
            return self.font
        return next((font for font in _system_fonts(self._size) if _has(font, letter)), None)

    def _writable(self, words: str) -> str:
        """The same, without what no font has."""
        composed = escaped(unicodedata.normalize("NFC", words))
        return composed if composed.isascii() else "".join(map(self._writable_letter, composed))

    def _writable_letter(self, letter: str) -> str:
        if _is_attached(letter) or self._font_of(letter):
            return letter
        self.absent[letter] = None
        plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not _is_attached(c))
        for other in (plain, letter.casefold()):
            if other.isascii():
                return other
        if named := _LATIN.fullmatch(unicodedata.name(letter, "")):
            return named[2].lower() if named[1] == "SMALL" else named[2].capitalize()
        return f"[U+{ord(letter):04X}]"


def _is_attached(letter: str) -> bool:
    return unicodedata.category(letter) in _ATTACHED


@cache
def _has(font: Font, letter: str) -> bool:
    """Whether a font has a letter: draws it, and otherwise than what it lacks."""
    if letter.isspace():
        return True
    drawn, absent = font.getmask(letter), font.getmask(_ABSENT)
    same = drawn.size == absent.size and bytes(drawn) == bytes(absent)
    return drawn.getbbox() is not None and not same


def _rise(font: Font) -> int:
    """Pixels from the top of a line to where its letters stand."""
    return font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else 0


@cache
def _system_fonts(size: int) -> tuple[Font, ...]:
    """Every font of the system that can be opened, plain ones first, at most a thousand."""
    found = (
        path
        for folder in FOLDERS
        for path in Path(folder).expanduser().rglob("*")
        if path.suffix.lower() in _ENDINGS
    )
    plain_first = sorted(found, key=lambda path: (len(_SPECIAL.findall(path.stem)), path.stem))
    fonts = (_opened(path, size) for path in plain_first[:_MOST_FONTS])
    return tuple(font for font in fonts if font is not None)


def _opened(path: Path, size: int) -> Font | None:
    try:
        return ImageFont.truetype(path, size)
    except (OSError, ValueError):  # damaged, or of pictures of one size alone
        return None
