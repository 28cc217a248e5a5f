"""A chart of bars: one quantity of several things, in groups, with what is to be said of each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING

from converters.reports.drawing import LETTER, box, drawing, pointed, rule, text

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from converters.reports.markup import Markup

_INNER = 380
"""Width of the part in which bars are."""

_TOP, _ROW, _BAR, _AXIS = 30, 18, 10, 40
_MARKS = 6
"""On the axis, about."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One thing.

    Attributes:
        label: Its name, left of the bar.
        value: How long the bar is, from 0; None where there is none, or not finite.
        words: What stands right of the bars.
        colour: Of the bar.
        spread: Between which values half of those that were measured lie.
    """

    label: str
    value: float | None
    words: str
    colour: str
    spread: tuple[float, float] | None = None


def bar_chart(
    title: str,
    lines: Sequence[str],
    groups: Mapping[str, Sequence[Bar]],
    axis: str,
    *,
    limit: float | None = None,
) -> str:
    """Draw bars from 0, all on one scale.

    Args:
        title: What is above all.
        lines: What stands below the title.
        groups: Heading to the bars below it.
        axis: What is measured, with its unit.
        limit: Where a line is drawn across all bars. A bar beyond its double is cut there; its
            words say how long it is.

    Returns:
        An ``<svg>`` element, which depends on nothing else.
    """
    bars = [bar for group in groups.values() for bar in group]
    left = 20 + LETTER * max((len(bar.label) for bar in bars), default=0)
    right = left + _INNER
    widest = max((len(bar.words) for bar in bars), default=0)
    width = max([right + 20 + LETTER * widest, *(16 + LETTER * len(line) for line in lines)])
    scale = _Scale(left, _largest(bars, limit))
    top = _TOP + 15 * len(lines)
    bottom = top + _ROW * (len(bars) + len(groups)) + 4
    drawn = [text(8, 18 + 15 * line, words) for line, words in enumerate(lines, start=1)]
    drawn += scale.axis(top, bottom, axis)
    rows = count()
    for heading, group in groups.items():
        drawn.append(text(8, top + _ROW * next(rows) + 13, heading, font_weight="600"))
        for bar in group:
            drawn += _row(bar, scale, top + _ROW * next(rows), right)
    if limit is not None:
        x = scale.x(limit)
        drawn.append(rule(x, top, x, bottom, 1))
        drawn.append(text(x, top - 1, f"limit {limit:g}", text_anchor="middle"))
    words = "; ".join(f"{bar.label}: {bar.words}" for bar in bars)
    return drawing(title, words, width, bottom + _AXIS, drawn)


def _largest(bars: Sequence[Bar], limit: float | None) -> float:
    """What the scale reaches to."""
    ends = [end for bar in bars for end in (bar.value, *(bar.spread or ()))]
    finite = [end for end in ends if end is not None and math.isfinite(end)]
    largest = max([*finite, 0.0]) or 1.0
    return largest if limit is None else min(max(largest, 1.25 * limit), 2 * limit)


class _Scale:
    """Where values lie."""

    def __init__(self, left: float, largest: float) -> None:
        self._left, self._largest = left, largest

    def x(self, value: float) -> float:
        return self._left + _INNER * min(value / self._largest, 1.0)

    def axis(self, top: float, bottom: float, words: str) -> Iterator[Markup]:
        step = _round_step(self._largest / _MARKS)
        for mark in range(int(self._largest / step) + 1):
            x = self.x(mark * step)
            yield rule(x, top, x, bottom, 0.6 if mark == 0 else 0.15)
            yield text(x, bottom + 14, f"{mark * step:g}", text_anchor="middle")
        yield text(self._left, bottom + 32, words, fill_opacity="0.7")


def _round_step(least: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    power = 10.0 ** math.floor(math.log10(least))
    return next((power * step for step in (1, 2, 5) if power * step >= least), 10 * power)


def _row(bar: Bar, scale: _Scale, top: float, right: float) -> Iterator[Markup]:
    middle = top + _ROW / 2
    start = scale.x(0)
    yield text(start - 8, middle + 4, bar.label, text_anchor="end")
    yield text(right + 10, middle + 4, bar.words)
    if bar.value is None or math.isnan(bar.value):
        return
    drawn = [box(start, middle - _BAR / 2, max(scale.x(bar.value) - start, 1), _BAR, bar.colour)]
    if bar.spread is not None:
        ends = [scale.x(end) for end in bar.spread]
        drawn.append(rule(ends[0], middle, ends[1], middle, 1))
        drawn += [rule(x, middle - 3, x, middle + 3, 1) for x in ends]
    yield pointed(f"{bar.label}: {bar.words}", *drawn)
