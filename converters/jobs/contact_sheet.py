"""A contact sheet: images as tiles, with what was predicted under each."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from converters.folder.images import open_image
from converters.jobs.lettering import Lettering
from regnet.images import picture_of, to_pixels

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.jobs.predict import Prediction

_TILE = 224
_MARGIN = 16
_LINE = 20
_TEXT = 14
_CAPTION_LINES = 4
"""The file's name and the three best classes."""

_RGB = 3
_COLUMNS = 10
_MOST = 120
"""Tiles on a sheet; a picture of more is larger than viewers like to open."""

_INK, _FAINT, _PAPER, _BAR, _TRACK = "#1f2328", "#656d76", "#ffffff", "#2da44e", "#eaeef2"


def contact_sheet(predictions: Sequence[Prediction]) -> tuple[Image.Image, str]:
    """Draw images with their best classes, probabilities as bars.

    Args:
        predictions: At least one; of more than 120 the first 120 are drawn.

    Returns:
        RGB, about as many rows as columns, of which there are at most ten; and the characters that
        no font on this machine has, which are written in other ones.

    Raises:
        InputError: If an image can no longer be read.
    """
    shown = predictions[:_MOST]
    columns = min(_COLUMNS, max(1, math.ceil(math.sqrt(len(shown)))))
    rows = math.ceil(len(shown) / columns)
    width, height = _TILE + _MARGIN, _TILE + _MARGIN + _CAPTION_LINES * _LINE
    sheet = Image.new("RGB", (columns * width + _MARGIN, rows * height + _MARGIN), _PAPER)
    draw = ImageDraw.Draw(sheet)
    pen = Lettering(draw, _TEXT)
    for index, prediction in enumerate(shown):
        row, column = divmod(index, columns)
        left, top = _MARGIN + column * width, _MARGIN + row * height
        sheet.paste(_tile(prediction.image), (left, top))
        _caption(draw, pen, left, top + _TILE, prediction)
    return sheet, "".join(pen.absent)


def _tile(path: Path) -> Image.Image:
    """The whole image on a square, small ones in sharp large pixels."""
    image = picture_of(to_pixels(open_image(path), _RGB))
    scale = _TILE / max(image.size)
    kind = Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    picture = image.resize(size, kind)
    tile = Image.new("RGB", (_TILE, _TILE), _TRACK)
    tile.paste(picture, ((_TILE - size[0]) // 2, (_TILE - size[1]) // 2))
    return tile


def _caption(
    draw: ImageDraw.ImageDraw, pen: Lettering, left: int, top: int, prediction: Prediction
) -> None:
    pen.write(left, top + 2, prediction.image.name, _FAINT, _TILE)
    for line, (label, score) in enumerate(prediction.classes[: _CAPTION_LINES - 1], start=1):
        upper = top + line * _LINE + 2
        percent = f"{score:.1%}"
        room = _TILE - int(pen.font.getlength(percent)) - _TEXT
        pen.write(left, upper, label, _INK, room)
        right = left + _TILE
        draw.text((right, upper), percent, fill=_INK, font=pen.font, anchor="ra")
        below = upper + _LINE - 3
        draw.rectangle((left, below, right, below + 1), fill=_TRACK)
        if round(_TILE * score):
            draw.rectangle((left, below, left + round(_TILE * score), below + 1), fill=_BAR)
