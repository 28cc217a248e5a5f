"""A plot of a network: its stages, how wide and deep they are, and what each costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from converters.reports.drawing import BLUE, GREY, box, drawing, pointed, rule, text
from regnet.architecture import BASE_PREFIX, Architecture, extents
from regnet.design_space import Complexity, complexity_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.reports.markup import Markup
    from regnet.architecture import Operation
    from regnet.config import RegNetConfig

_LABELS = 84
"""Left of the columns, for what their rows are."""

_COLUMN = 112
"""Width of the column of a part; between columns is a gap."""

_GAP = 12
_TOP, _TALLEST = 44, 110
"""Where the blocks begin, and how high the widest of them is."""

_LINE = 17
_BAR = 7

_COSTS = {"parameters": "parameters", "FLOPs": "flops", "activations": "activations"}
"""Rows of what the parts cost: title, and field of :class:`Complexity`."""

_ROW = 2 * _LINE + 4
"""Height of one of them."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The stem, a stage or the head.

    Attributes:
        name: What it is called.
        facts: Lines on it, as many for each part; an empty one leaves a line free.
        widths: Channels that each of its blocks gives; of the head, that it takes.
        cost: Of it.
    """

    name: str
    facts: tuple[str, ...]
    widths: Sequence[int]
    cost: Complexity


def network_svg(
    config: RegNetConfig, title: str, image_size: int, *, classifier: bool = True
) -> str:
    """Draw a network: a bar for each block, as high as it is wide, and the cost of each stage.

    Args:
        config: The network.
        title: What it is called.
        image_size: Height and width of the images that the cost is of, in pixels.
        classifier: Whether with its head.

    Returns:
        An ``<svg>`` element, which depends on nothing else.
    """
    parts = list(_parts(config, image_size, classifier=classifier))
    widest = max(max(part.widths) for part in parts)
    below = _TOP + _TALLEST
    rows = below + _LINE * (2 + len(parts[0].facts)) + 8
    height = rows + len(_COSTS) * _ROW - _LINE
    width = _LABELS + len(parts) * (_COLUMN + _GAP)
    drawn = [
        _summary(parts, image_size),
        rule(_LABELS, below, width - _GAP, below, 0.6),
        *_names(below, rows),
    ]
    for index, part in enumerate(parts):
        left = _LABELS + index * (_COLUMN + _GAP)
        drawn += [*_blocks(part, left, below, widest), *_facts(part, left, below)]
        drawn += _costs(part, parts, left, rows)
    words = "; ".join(", ".join(filter(None, (part.name, *part.facts))) for part in parts)
    return drawing(title, words, width, height, drawn)


def _parts(config: RegNetConfig, image_size: int, *, classifier: bool) -> Iterator[_Part]:
    """The parts in their order, each with what it costs."""
    operations = Architecture.of(config, classifier=classifier).operations
    sizes = extents(operations, image_size)
    for name, group in groupby(operations, _part_of):
        inside = list(group)
        cost = complexity_of(inside, sizes)
        pixels = sizes[inside[-1].output]
        if name == "stem":
            widths = [width for width, _ in config.stem_convolutions]
            facts = (_count(len(widths), "convolution"), *_made(widths[-1], pixels), "")
        elif name == "head":
            widths = [config.feature_size]
            classes = config.num_labels if classifier else 0
            facts = ("pooled", _count(classes, "class", "classes") if classes else "", "", "")
        else:
            stage = int(name.rpartition(" ")[2]) - 1
            widths = [config.hidden_sizes[stage]] * config.depths[stage]
            inner = config.bottleneck_of(stage, _before(config, stage))
            groups = f"{_count(inner.groups, 'group')} of {inner.width // inner.groups}"
            facts = (_count(len(widths), "block"), *_made(widths[-1], pixels), groups)
        yield _Part(name, facts, widths, cost)


def _part_of(operation: Operation) -> str:
    place = operation.name.removeprefix(BASE_PREFIX).split(".")
    if place[0] == "encoder":
        return f"stage {int(place[2]) + 1}"
    return "stem" if place[0] == "embedder" else "head"


def _before(config: RegNetConfig, stage: int) -> int:
    """Channels that a stage's usual block takes."""
    if config.depths[stage] > 1:
        return config.hidden_sizes[stage]
    return config.hidden_sizes[stage - 1] if stage else config.embedding_size


def _made(channels: int, pixels: int) -> tuple[str, str]:
    return f"{channels:,} channels", f"{pixels} x {pixels} pixels"


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number:,} {one}" if number == 1 else f"{number:,} {several or f'{one}s'}"


def _summary(parts: Sequence[_Part], image_size: int) -> Markup:
    """The line below the title: what all of it costs."""
    totals = (f"{_short(_total(parts, field))} {title}" for title, field in _COSTS.items())
    return text(8, 33, f"{', '.join(totals)} at {image_size} x {image_size} pixels")


def _names(below: float, rows: float) -> Iterator[Markup]:
    """What the rows are, left of the columns."""
    yield text(8, below - 4, "channels", fill_opacity="0.7")
    for index, title in enumerate(_COSTS):
        yield text(8, rows + index * _ROW, title, fill_opacity="0.7")


def _blocks(part: _Part, left: float, below: float, widest: int) -> Iterator[Markup]:
    """A bar for each block, as high as the root of its width: some are 300 times the stem's."""
    step = min(_COLUMN / len(part.widths), 26)
    fill = GREY if part.name in {"stem", "head"} else BLUE
    for index, channels in enumerate(part.widths):
        tall = _TALLEST * math.sqrt(channels / widest)
        bar = box(left + index * step, below - tall, max(step - 2, 1), tall, fill)
        yield pointed(f"{part.name}, {index + 1} of {len(part.widths)}: {channels} channels", bar)


def _facts(part: _Part, left: float, below: float) -> Iterator[Markup]:
    yield text(left, below + _LINE, part.name, font_weight="600")
    for line, fact in enumerate(part.facts, start=2):
        if fact:
            yield text(left, below + line * _LINE, fact)


def _costs(part: _Part, parts: Sequence[_Part], left: float, rows: float) -> Iterator[Markup]:
    """Of each cost the number, its share of all, and a bar as long as that."""
    for index, (title, field) in enumerate(_COSTS.items()):
        top = rows + index * _ROW
        value, total = getattr(part.cost, field), _total(parts, field)
        share = value / total if total else 0.0
        yield text(left, top, f"{_short(value)}, {_percent(share)}")
        bars = (
            box(left, top + 5, _COLUMN, _BAR, "currentColor", fill_opacity="0.1"),
            box(left, top + 5, _COLUMN * share, _BAR, BLUE),
        )
        yield pointed(f"{part.name}: {value:,} {title}, {share:.1%}", *bars)


def _total(parts: Sequence[_Part], field: str) -> int:
    return sum(getattr(part.cost, field) for part in parts)


def _percent(share: float) -> str:
    return "<1%" if 0 < share < 0.01 else f"{share:.0%}"  # noqa: PLR2004


def _short(value: int) -> str:
    """Three digits: ``928``, ``20.6 M``."""
    for letter, unit in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= unit:
            return f"{value / unit:.3g} {letter}"
    return str(value)
