"""What `regnet verify --locate` prints for people."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from converters.parity.locate.location import Location
    from converters.parity.locate.module_errors import ModuleError

_BEFORE, _AFTER = 3, 3
"""Modules shown on either side of the culprit."""

_TRAVELS = 6
"""Blocks shown of those behind: how the error travels."""

_BLOCK = re.compile(r"\.layers\.\d+\.activation$")
"""The output of a block."""


def location_table(location: Location) -> Table:
    """The modules around the culprit, then how its error travels to the outputs.

    Without a culprit, the modules whose errors are the largest given their own input.
    """
    table = Table(title=_title(location), title_justify="left")
    table.add_column("depth", justify="right")
    table.add_column("module", overflow="fold")
    for column in ("RMS error", "x PyTorch", "x, own input"):
        table.add_column(column, justify="right")
    depth = -1
    for module in _shown(location):
        if module.depth > depth + 1:
            table.add_row("...", "", "", "", "")
        table.add_row(*_row(module, location.culprit))
        depth = module.depth
    return table


def _title(location: Location) -> Text:
    if location.culprit is None:
        return Text(f"{location.artefact}: {location.why}")
    where = f", most in channel {location.channel}" if location.channel is not None else ""
    title = Text(f"{location.artefact} goes wrong at ")
    title.append(location.culprit, style="bold red")
    return title.append(f"{where}: {location.why}")


def _shown(location: Location) -> list[ModuleError]:
    modules = location.modules
    depth = next((m.depth for m in modules if m.module == location.culprit), None)
    if depth is None:
        worst = sorted(modules, key=lambda m: m.local or 0, reverse=True)[: _BEFORE + _AFTER]
        return sorted(worst, key=lambda m: m.depth)
    near = modules[max(0, depth - _BEFORE) : depth + _AFTER + 1]
    behind = modules[depth + _AFTER + 1 :]
    blocks = [module for module in behind if _BLOCK.search(module.module)]
    return [*near, *_evenly(blocks), *behind[-1:]]


def _evenly(modules: Sequence[ModuleError]) -> list[ModuleError]:
    """A few of them, the last among them."""
    step = max(1, -(-len(modules) // _TRAVELS))
    return list(modules[::-1][::step][::-1])


def _row(module: ModuleError, culprit: str | None) -> list[RenderableType]:
    style = "bold red" if module.module == culprit else ""
    local = "-" if module.local is None else f"{module.local:.3g}"
    return [
        str(module.depth),
        Text(module.module, style=style),
        f"{module.errors.rms:.2e}",
        f"{module.ratio:.3g}",
        Text(local, style="bold red" if module.at_fault else ""),
    ]
