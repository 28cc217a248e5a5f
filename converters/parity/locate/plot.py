"""A plot of error by depth, as SVG that a page can hold and that needs nothing else.

Lines and letters have the colour of the text around them (``currentColor``), so the plot is
readable on a light page and on a dark one. Pointing at a module tells its name and numbers.
"""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

from converters.parity.locate.module_errors import BAND

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.parity.locate.location import Location
    from converters.parity.locate.module_errors import ModuleError

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 34, 44
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

_MARKS = 12
"""On the axis of depth, at most."""

_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Between marks; the deepest published network has some 430 values."""

_LEAST, _MOST = 1e-2, 1e8
"""Ratios outside are drawn at the edge: none is 0 or infinite on a logarithmic axis."""

_ERROR, _LOCAL, _CULPRIT = "#2f7ed8", "#e08a00", "#d62728"
"""Readable on white and on black."""


def error_by_depth_svg(location: Location) -> str:
    """Draw the error of every module of an artefact against its depth, on a logarithmic axis.

    The line is the error so far, in units of float32 PyTorch's; the dots are what each module adds,
    given its own input, in units of one module's rounding. The band is shaded; a module whose dot
    leaves it is at fault.

    Args:
        location: Of an artefact, with its culprit or without.

    Returns:
        An ``<svg>`` element. It holds no script, and refers to nothing outside.
    """
    scale = _Scale(location.modules)
    title = escape(f"{location.artefact}: error by depth")
    what = escape(f"{location.culprit}, {location.why}" if location.culprit else location.why)
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{title}" font-family="system-ui, sans-serif" font-size="11" '
        'fill="currentColor" style="max-width:100%;height:auto">'
    )
    points = " ".join(f"{scale.x(m.depth)},{scale.y(m.ratio)}" for m in location.modules)
    parts = [
        opening,
        f"<title>{title}: {what}</title>",
        f'<text x="{_LEFT}" y="14" font-size="13" font-weight="600">{title}</text>',
        *_legend(with_culprit=location.culprit is not None),
        *scale.axes(),
        f'<polyline points="{points}" fill="none" stroke="{_ERROR}" stroke-width="1.5"/>',
        *_dots(location.modules, scale, location.culprit),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


class _Scale:
    """Where depth and ratio lie in the drawing; its edges are powers of ten."""

    def __init__(self, modules: Sequence[ModuleError]) -> None:
        ratios = [_clipped(m.ratio) for m in modules] + [_clipped(m.local or 1) for m in modules]
        exponents = [math.log10(ratio) for ratio in (*ratios, BAND)]
        self._last = max(len(modules) - 1, 1)
        self._low, self._high = math.floor(min(0, *exponents)), math.ceil(max(2, *exponents))

    def x(self, depth: int) -> float:
        return round(_LEFT + _INNER_WIDTH * depth / self._last, 1)

    def y(self, ratio: float) -> float:
        exponent = min(max(math.log10(_clipped(ratio)), self._low), self._high)
        height = (exponent - self._low) / (self._high - self._low)
        return round(_TOP + _INNER_HEIGHT * (1 - height), 1)

    def axes(self) -> Iterator[str]:
        """Grid, labels and the band."""
        bottom, right = _TOP + _INNER_HEIGHT, _LEFT + _INNER_WIDTH
        band = self.y(BAND)
        yield (
            f'<rect x="{_LEFT}" y="{band}" width="{_INNER_WIDTH}" height="{bottom - band:.1f}" '
            f'fill="currentColor" fill-opacity="0.07"><title>the band: up to {BAND:g} times '
            "the rounding of one module</title></rect>"
        )
        for exponent in range(self._low, self._high + 1):
            y = self.y(10.0**exponent)
            yield _rule(_LEFT, y, right, y, 0.15)
            ratio = f"{10.0**exponent:g}"
            yield f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{ratio}</text>'
        yield _rule(_LEFT, bottom, right, bottom, 0.6)
        step = next(step for step in _STEPS if self._last <= _MARKS * step)
        for depth in range(0, self._last + 1, step):
            x = self.x(depth)
            yield f'<text x="{x}" y="{bottom + 15}" text-anchor="middle">{depth}</text>'
        middle = _LEFT + _INNER_WIDTH / 2
        yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">depth: modules run</text>'
        yield (
            f'<text transform="translate(14 {_TOP + _INNER_HEIGHT / 2}) rotate(-90)" '
            'text-anchor="middle">RMS error, times an honest one</text>'
        )


def _clipped(ratio: float) -> float:
    return min(max(ratio, _LEAST), _MOST)


def _rule(x1: float, y1: float, x2: float, y2: float, opacity: float) -> str:
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="currentColor" '
        f'stroke-opacity="{opacity}"/>'
    )


def _legend(*, with_culprit: bool) -> Iterator[str]:
    y = 27
    entries = (
        (_LEFT, _ERROR, "against the oracle"),
        (_LEFT + 140, _LOCAL, "given its own input"),
        (_LEFT + 280, _CULPRIT, "the culprit"),
    )
    for x, colour, words in entries if with_culprit else entries[:2]:
        yield f'<circle cx="{x + 4}" cy="{y - 4}" r="4" fill="{colour}"/>'
        yield f'<text x="{x + 13}" y="{y}">{words}</text>'


def _dots(modules: Sequence[ModuleError], scale: _Scale, culprit: str | None) -> Iterator[str]:
    for module in modules:
        x, found = scale.x(module.depth), module.module == culprit
        if found:
            yield _rule(x, _TOP, x, _TOP + _INNER_HEIGHT, 0.6)
        dots = _dot(x, scale.y(module.ratio), 1.5, _ERROR)
        if module.local is not None:
            dots += _dot(x, scale.y(module.local), *((5, _CULPRIT) if found else (2, _LOCAL)))
        # A wide transparent circle first, since nobody points at two pixels.
        yield (
            f'<g><title>{escape(_words(module))}</title><circle cx="{x}" '
            f'cy="{scale.y(module.ratio)}" r="5" fill="transparent"/>{dots}</g>'
        )


def _dot(x: float, y: float, radius: float, colour: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{colour}"/>'


def _words(module: ModuleError) -> str:
    local = "unknown" if module.local is None else f"{module.local:.3g}"
    return (
        f"{module.depth}: {module.module}, {module.ratio:.3g} times float32 PyTorch's error "
        f"against the oracle, {local} given its own input"
    )
