"""A plot of error by depth: where an artefact goes wrong, and how that travels."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from converters.parity.locate.module_errors import BAND
from converters.reports.drawing import BLUE, ORANGE, RED, box, dot, drawing, pointed, rule, text
from converters.reports.markup import Markup, tag

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.parity.locate.location import Location
    from converters.parity.locate.module_errors import ModuleError

_WIDTH, _HEIGHT = 760, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 12, 40, 44
_INNER_WIDTH, _INNER_HEIGHT = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

_MARKS = 12
"""On the axis of depth, at most."""

_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Between marks; the deepest published network has some 430 values."""

_LEAST, _MOST = 1e-2, 1e8
"""Ratios outside are drawn at the edge: none is 0 or infinite on a logarithmic axis."""

_ERROR, _LOCAL, _CULPRIT = BLUE, ORANGE, RED


def error_by_depth_svg(location: Location) -> str:
    """Draw the error of every module of an artefact against its depth, on a logarithmic axis.

    The line is the error so far, in units of float32 PyTorch's; the dots are what each module adds,
    given its own input, in units of one module's rounding. The band is shaded; a module whose dot
    leaves it is at fault.

    Args:
        location: Of an artefact, with its culprit or without.

    Returns:
        An ``<svg>`` element.
    """
    scale = _Scale(location.modules)
    what = f"{location.culprit}, {location.why}" if location.culprit else location.why
    points = " ".join(f"{scale.x(m.depth)},{scale.y(m.ratio)}" for m in location.modules)
    parts = [
        *_legend(with_culprit=location.culprit is not None),
        *scale.axes(),
        tag("polyline", points=points, fill="none", stroke=_ERROR, stroke_width="1.5"),
        *_dots(location.modules, scale, location.culprit),
    ]
    return drawing(f"{location.artefact}: error by depth", what, _WIDTH, _HEIGHT, parts)


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

    def axes(self) -> Iterator[Markup]:
        """Grid, labels and the band."""
        bottom, right = _TOP + _INNER_HEIGHT, _LEFT + _INNER_WIDTH
        band = self.y(BAND)
        yield pointed(
            f"the band: up to {BAND:g} times the rounding of one module",
            box(_LEFT, band, _INNER_WIDTH, bottom - band, "currentColor", fill_opacity="0.07"),
        )
        for exponent in range(self._low, self._high + 1):
            y = self.y(10.0**exponent)
            yield rule(_LEFT, y, right, y, 0.15)
            yield text(_LEFT - 6, y + 4, f"{10.0**exponent:g}", text_anchor="end")
        yield rule(_LEFT, bottom, right, bottom, 0.6)
        step = next(step for step in _STEPS if self._last <= _MARKS * step)
        for depth in range(0, self._last + 1, step):
            yield text(self.x(depth), bottom + 15, str(depth), text_anchor="middle")
        middle = _LEFT + _INNER_WIDTH / 2
        yield text(middle, _HEIGHT - 8, "depth: modules run", text_anchor="middle")
        yield tag(
            "text",
            "RMS error, times an honest one",
            transform=f"translate(14 {_TOP + _INNER_HEIGHT / 2}) rotate(-90)",
            text_anchor="middle",
        )


def _clipped(ratio: float) -> float:
    return min(max(ratio, _LEAST), _MOST)


def _legend(*, with_culprit: bool) -> Iterator[Markup]:
    y = 32
    entries = (
        (_LEFT, _ERROR, "against the oracle"),
        (_LEFT + 140, _LOCAL, "given its own input"),
        (_LEFT + 280, _CULPRIT, "the culprit"),
    )
    for x, colour, words in entries if with_culprit else entries[:2]:
        yield dot(x + 4, y - 4, 4, colour)
        yield text(x + 13, y, words)


def _dots(modules: Sequence[ModuleError], scale: _Scale, culprit: str | None) -> Iterator[Markup]:
    for module in modules:
        x, found = scale.x(module.depth), module.module == culprit
        if found:
            yield rule(x, _TOP, x, _TOP + _INNER_HEIGHT, 0.6)
        dots = [dot(x, scale.y(module.ratio), 1.5, _ERROR)]
        if module.local is not None:
            dots += [dot(x, scale.y(module.local), *((5, _CULPRIT) if found else (2, _LOCAL)))]
        # A wide transparent circle first, since nobody points at two pixels.
        wide = dot(x, scale.y(module.ratio), 5, "transparent")
        yield pointed(_words(module), wide, *dots)


def _words(module: ModuleError) -> str:
    local = "unknown" if module.local is None else f"{module.local:.3g}"
    return (
        f"{module.depth}: {module.module}, {module.ratio:.3g} times float32 PyTorch's error "
        f"against the oracle, {local} given its own input"
    )
