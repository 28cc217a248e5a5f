"""Lines in any script, with the fonts that a machine has and without any."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from converters.cli.console import Output
from converters.cli.predict import _draw
from converters.jobs import lettering
from converters.jobs.contact_sheet import contact_sheet
from converters.jobs.lettering import Lettering
from converters.jobs.predict import Prediction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

SIZE = 14
GLYPHS = range(20, 80)
SCRIPTS = {
    "Latin-1": "f\u00fcr caf\u00e9 \u00df",
    "Greek": "\u03b3\u03ac\u03c4\u03b1",
    "Cyrillic": "\u043a\u043e\u0448\u043a\u0430",
    "CJK": "\u732b\uff0c\ud55c",
}


@pytest.fixture
def fonts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The only folder that fonts are looked for in; it is empty."""
    folder = tmp_path / "fonts"
    folder.mkdir()
    monkeypatch.setattr(lettering, "FOLDERS", (str(folder),))
    lettering._system_fonts.cache_clear()
    yield folder
    lettering._system_fonts.cache_clear()


def install(path: Path, letters: str) -> ImageFont.FreeTypeFont:
    """Write a font of these letters alone: Pillow's own, with another table of characters."""
    own = ImageFont.load_default(SIZE)
    assert isinstance(own, ImageFont.FreeTypeFont)
    data = bytearray(own.path.getvalue())  # type: ignore[union-attr]
    pairs = zip(sorted(set(letters)), GLYPHS, strict=False)
    groups = [struct.pack(">3I", ord(letter), ord(letter), glyph) for letter, glyph in pairs]
    body = struct.pack(">2H3I", 12, 0, 16 + 12 * len(groups), 0, len(groups)) + b"".join(groups)
    table = struct.pack(">4HI", 0, 1, 3, 10, 12) + body
    (count,) = struct.unpack_from(">H", data, 4)
    (entry,) = (at for at in range(12, 12 + 16 * count, 16) if data[at : at + 4] == b"cmap")
    struct.pack_into(">2I", data, entry + 8, len(data), len(table))
    path.write_bytes(data + table)
    return ImageFont.truetype(path, SIZE)


def written(words: str, room: int = 400) -> tuple[NDArray[np.uint8], str]:
    """A line as it is drawn, and what no font has."""
    picture = Image.new("L", (room, 30), 255)
    pen = Lettering(ImageDraw.Draw(picture), SIZE)
    pen.write(5, 5, words, "#000000", room)
    return np.asarray(picture), "".join(pen.absent)


@pytest.mark.parametrize("script", SCRIPTS)
def test_a_font_of_the_system_draws_what_pillows_own_lacks(script: str, fonts: Path) -> None:
    words = SCRIPTS[script]
    install(fonts / "Other-Regular.ttf", "zq")
    font = install(fonts / "Plain-Regular.ttf", words.replace(" ", ""))
    picture = Image.new("L", (400, 30), 255)
    rise = ImageFont.load_default(SIZE).getmetrics()[0]  # type: ignore[union-attr]
    ImageDraw.Draw(picture).text((5, 5 + rise), words, "#000000", font, anchor="ls")

    shown, absent = written(words)

    assert absent == ""
    assert np.array_equal(shown, np.asarray(picture))


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        ("f\u00fcr cafe\u0301", "fur cafe"),
        ("stra\u00dfe \u0141\u00f3d\u017a \u00c6", "strasse Lodz Ae"),
        ("\u03b3\u03b1", "[U+03B3][U+03B1]"),
        ("\u043a\u043e cat", "[U+043A][U+043E] cat"),
        ("\u732b", "[U+732B]"),
        ("a\nb\x1b", "a\\nb\\x1b"),
    ],
)
@pytest.mark.usefixtures("fonts")
def test_without_a_font_other_letters_say_it(words: str, instead: str) -> None:
    shown, absent = written(words)
    assert np.array_equal(shown, written(instead)[0])
    assert set(absent) == {letter for letter in words if not letter.isascii()} - {"\u0301"} | (
        {"\u00e9"} if "\u0301" in words else set()
    )
    assert written(instead)[1] == ""


def test_a_line_of_several_scripts_takes_each_letter_where_there_is_one(fonts: Path) -> None:
    install(fonts / "A-Regular.ttf", "\u043a")
    install(fonts / "B-Regular.ttf", "\u732b")
    shown, absent = written("cat \u043a \u732b \u03b3")
    assert absent == "\u03b3"
    assert not np.array_equal(shown, written("cat [U+043A] [U+732B] [U+03B3]")[0])


def test_plain_fonts_come_first_and_damaged_ones_are_left_out(fonts: Path) -> None:
    (fonts / "A-Damaged.ttf").write_bytes(b"no font")
    install(fonts / "A-BoldItalic.ttf", "\u732b")
    plain = install(fonts / "Z-Regular.ttf", "\u732b")
    assert [str(font.path) for font in lettering._system_fonts(SIZE)] == [  # type: ignore[union-attr]
        str(plain.path),
        str(fonts / "A-BoldItalic.ttf"),
    ]


@pytest.mark.usefixtures("fonts")
def test_a_long_line_is_cut_with_three_dots() -> None:
    font = ImageFont.load_default(SIZE)
    most = max(count for count in range(30) if font.getlength("W" * count + "...") <= 100)
    shown, _ = written("W" * 5000, 100)
    assert np.array_equal(shown, written("W" * most + "...", 100)[0])


@pytest.mark.usefixtures("fonts")
def test_a_sheet_says_which_characters_no_font_has(tmp_path: Path) -> None:
    image = tmp_path / "0.png"
    Image.new("RGB", (40, 30)).save(image)
    sheet, absent = contact_sheet([Prediction(image, (("\u732b", 0.75), ("cat", 0.25)))])
    assert absent == "\u732b"
    assert sheet.size == (256, 336)


@pytest.mark.usefixtures("fonts")
def test_the_command_says_it_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = tmp_path / "0.png"
    Image.new("RGB", (40, 30)).save(image)
    shown = [Prediction(image, (("\u732b", 0.75), ("\u043a", 0.25)))]
    for quiet in (False, True):
        _draw(shown, tmp_path / "sheet.png", Output(quiet=quiet))
    assert capsys.readouterr().err == (
        f"No font on this machine has \u732b, \u043a, so {tmp_path}/sheet.png shows other "
        "characters; install one that has (Noto Sans, say) and run the command again.\n"
    )
