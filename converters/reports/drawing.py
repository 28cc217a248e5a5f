"""What every plot is drawn with: SVG of text and lines that needs nothing else.

A file is dark on white, wherever it is shown: programs do not agree on who decides what is dark. In
a page that says so (``report.css``) lines and letters have the colour of the text around them. No
plot holds a script, refers to anything outside, or depends on time, place or machine.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.reports.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Iterable

BLUE, ORANGE, RED, GREEN, GREY = "#2f7ed8", "#e08a00", "#d62728", "#2e9e5b", "#8a94a3"
"""Readable on white and on black."""

_STYLE = ".plot{color:#1b2330;background:#fff}"

LETTER = 6.3
"""Width of a usual letter at the usual size of 11, in units of the drawing."""


def drawing(title: str, words: str, width: float, height: float, parts: Iterable[Markup]) -> str:
    """A whole plot.

    Args:
        title: Written above it, and read out.
        words: What it shows, for those who hear it or point at it.
        width: Of the drawing, in units of which a letter is 11 high.
        height: Likewise.
        parts: What is on it.

    Returns:
        An ``<svg>`` element with a line end, which a page can hold and a file can be.
    """
    head = (
        tag("title", f"{title}: {words}"),
        tag("style", Markup(_STYLE)),
        text(8, 18, title, font_size="13", font_weight="600"),
    )
    svg = tag(
        "svg",
        Markup("\n"),
        *(Markup(f"{part}\n") for part in (*head, *parts)),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {_places(width)} {_places(height)}",
        width=_places(width),
        height=_places(height),
        role="img",
        aria_label=title,
        class_="plot",
        font_family="system-ui, sans-serif",
        font_size="11",
        fill="currentColor",
    )
    return f"{svg}\n"


def text(x: float, y: float, words: str, **attributes: str) -> Markup:
    """Words, whose first letter stands at ``x`` on a line at ``y``."""
    return tag("text", words, x=_places(x), y=_places(y), **attributes)


def rule(x1: float, y1: float, x2: float, y2: float, opacity: float) -> Markup:
    """A thin line."""
    ends = {"x1": x1, "y1": y1, "x2": x2, "y2": y2}
    places = {name: _places(value) for name, value in ends.items()}
    return tag("line", **places, stroke="currentColor", stroke_opacity=f"{opacity:g}")


def box(x: float, y: float, width: float, height: float, fill: str, **attributes: str) -> Markup:
    """A filled rectangle."""
    sides = {"x": x, "y": y, "width": width, "height": height}
    places = {name: _places(value) for name, value in sides.items()}
    return tag("rect", **places, fill=fill, **attributes)


def dot(x: float, y: float, radius: float, fill: str) -> Markup:
    """A filled circle."""
    return tag("circle", cx=_places(x), cy=_places(y), r=_places(radius), fill=fill)


def pointed(words: str, *parts: Markup) -> Markup:
    """Parts that tell ``words`` to whoever points at them."""
    return tag("g", tag("title", words), *parts)


def _places(value: float) -> str:
    """A length to a tenth."""
    return f"{round(value, 1):g}"
