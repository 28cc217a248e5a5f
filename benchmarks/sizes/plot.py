"""Growth with size: two panels of lines on logarithmic axes, as SVG that needs nothing else."""

from __future__ import annotations

import math
from dataclasses import dataclass
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_WIDTH, _HEIGHT = 900, 400
_TOP, _BOTTOM, _GAP, _EDGE = 40, 340, 70, 12
_PANEL = (_WIDTH - 2 * _GAP - _EDGE) / 2

_COLOURS = (
    *("#7f7f7f", "#d62728", "#2f7ed8", "#e08a00", "#2ca02c"),
    *("#9467bd", "#8c564b", "#17a2b8", "#e377c2", "#bcbd22"),
)
"""Readable on white and on black, as is the grey of the letters; an image has no ``currentColor``
of the page that shows it."""

_GREY = _COLOURS[0]
_LEGEND_ROWS = 2


@dataclass(frozen=True, slots=True)
class Line:
    """One contender.

    Attributes:
        title: In the legend.
        points: Size of the source and what was measured, both above 0.
    """

    title: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Panel:
    """One of the two drawings.

    Attributes:
        title: What is measured, and its unit.
        lines: In the order of the legend; a contender has the same place in every panel.
    """

    title: str
    lines: Sequence[Line]


def growth_svg(left: Panel, right: Panel, across: str) -> str:
    """Draw what grows against the size.

    Args:
        left: The first panel, which gives the legend.
        right: The other; without a point there is nothing to draw, and a panel needs one.
        across: What the horizontal axes tell.

    Returns:
        An ``<svg>`` element. It holds no script, and refers to nothing outside.
    """
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(left.title)}; {escape(right.title)}" '
        f'font-family="system-ui, sans-serif" font-size="11" fill="{_GREY}">'
    )
    parts = [opening]
    for number, panel in enumerate((left, right)):
        parts += _Drawing(panel, _GAP + number * (_PANEL + _GAP)).parts(across)
    return "\n".join([*parts, *_legend(left.lines), "</svg>"]) + "\n"


class _Drawing:
    """A panel on its place.

    Args:
        panel: What is drawn.
        begin: Its left edge.
    """

    def __init__(self, panel: Panel, begin: float) -> None:
        points = [point for line in panel.lines for point in line.points]
        self._panel, self._begin = panel, begin
        self._across = _decades([x for x, _ in points])
        self._up = _decades([y for _, y in points])

    def parts(self, across: str) -> Iterator[str]:
        """Elements: axes first, then lines over them."""
        end = self._begin + _PANEL
        title = escape(self._panel.title)
        yield f'<text x="{self._begin}" y="{_TOP - 14}" font-weight="600">{title}</text>'
        for exponent in range(self._up[0], self._up[1] + 1):
            y = self._y(10.0**exponent)
            yield _rule(self._begin, y, end, y)
            yield _text(self._begin - 6, y + 4, f"{10.0**exponent:g}", "end")
        for exponent in range(self._across[0], self._across[1] + 1):
            x = self._x(10.0**exponent)
            yield _rule(x, _TOP, x, _BOTTOM)
            yield _text(x, _BOTTOM + 15, f"{10.0**exponent:g}", "middle")
        yield _text((self._begin + end) / 2, _BOTTOM + 29, escape(across), "middle")
        for line, colour in zip(self._panel.lines, cycle(_COLOURS), strict=False):
            yield from self._line(line, colour)

    def _line(self, line: Line, colour: str) -> Iterator[str]:
        places = [(self._x(x), self._y(y)) for x, y in line.points]
        joined = " ".join(f"{x},{y}" for x, y in places)
        yield f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.5"/>'
        for (x, y), (_, value) in zip(places, line.points, strict=True):
            words = f"{escape(line.title)}: {value:.3g}"
            yield f'<circle cx="{x}" cy="{y}" r="3" fill="{colour}"><title>{words}</title></circle>'

    def _x(self, value: float) -> float:
        return round(self._begin + _PANEL * _share(value, self._across), 1)

    def _y(self, value: float) -> float:
        return round(_BOTTOM - (_BOTTOM - _TOP) * _share(value, self._up), 1)


def _decades(values: Sequence[float]) -> tuple[int, int]:
    """Powers of ten that hold all values between them; never the same one twice."""
    low = math.floor(math.log10(min(values)))
    return low, max(low + 1, math.ceil(math.log10(max(values))))


def _share(value: float, decades: tuple[int, int]) -> float:
    low, high = decades
    return (math.log10(value) - low) / (high - low)


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    place = f'x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"'
    return f'<line {place} stroke="{_GREY}" stroke-opacity="0.3"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{words}</text>'


def _legend(lines: Sequence[Line]) -> Iterator[str]:
    columns = math.ceil(len(lines) / _LEGEND_ROWS)
    for place, (line, colour) in enumerate(zip(lines, cycle(_COLOURS), strict=False)):
        row, column = divmod(place, columns)
        x = _GAP + column * (_WIDTH - _GAP) / columns
        y = _BOTTOM + 46 + 13 * row
        yield f'<circle cx="{x:.1f}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield _text(x + 9, y, escape(line.title), "start")
