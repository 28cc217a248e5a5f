"""What was measured, and where, as Markdown between two marks of ``docs/benchmarks.md``."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from benchmarks.measure import Spread, Summary

PAGE = Path(__file__).resolve().parent.parent / "docs" / "benchmarks.md"

_MEBIBYTE = 2**20


@dataclass(frozen=True, slots=True)
class Target:
    """What a command is meant to reach.

    Attributes:
        title: What is promised, with the limit.
        value: What was measured.
        limit: Where the promise begins.
        unit: Of both.
        at_least: Whether more is better.
    """

    title: str
    value: float
    limit: float
    unit: str
    at_least: bool

    @property
    def met(self) -> bool:
        """Whether the measurement keeps the promise."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def measurements_table(
    titles: Mapping[str, str], summaries: Mapping[str, Summary], contender: str
) -> str:
    """One row for each command: median (smallest to largest), and ratios to one of them.

    Args:
        titles: Key to the command as a user types it.
        summaries: Key to what was measured.
        contender: Key of the command that the others are compared with.
    """
    rows = [["command", "wall, s", "CPU, s", "peak memory, MiB", "faster", "memory"]]
    other = summaries[contender]
    for key, title in titles.items():
        summary = summaries[key]
        rows.append(
            [
                f"`{title}`",
                in_words(summary.wall),
                in_words(summary.cpu),
                in_words(summary.peak, _MEBIBYTE, ".0f"),
                f"{other.wall.median / summary.wall.median:.1f} x",
                f"{summary.peak.median / other.peak.median:.0%}",
            ]
        )
    return markdown(rows)


def targets_table(targets: Sequence[Target]) -> str:
    """One row for each target, with its verdict."""
    rows = [["target", "measured", ""]]
    for target in targets:
        measured = f"{target.value:.2f} {target.unit}"
        rows.append([target.title, measured, "met" if target.met else "not met"])
    return markdown(rows)


def replace_measured(script: str, text: str, part: str = "") -> None:
    """Put ``text`` between the marks of a script on the page.

    Args:
        script: Name in ``benchmarks/``, without its ending.
        text: Markdown.
        part: What follows the script's name in the marks, if it has several places.

    Raises:
        ValueError: If the page lacks a mark.
    """
    begin, end = (
        f"<!-- measured by benchmarks/{script}.py{part}: {side} -->" for side in ("begin", "end")
    )
    before, found, rest = PAGE.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{PAGE.name} lacks the lines {begin} and {end}; put them back.")
    PAGE.write_text(f"{before}{begin}\n\n{text}\n\n{end}{after}", encoding="utf-8")


def machine() -> str:
    """The machine, and how busy it is before the first run."""
    return (
        f"{platform.system()} on {platform.machine()}, {os.cpu_count()} cores, "
        f"load {os.getloadavg()[0]:.1f} before the first run. Python {platform.python_version()}."
    )


def installed(*packages: str) -> str:
    """Versions of packages of this environment, in a sentence."""
    return listed({package: version(package) for package in packages})


def listed(versions: Mapping[str, str]) -> str:
    """Versions in a sentence, without what says how torch was built."""
    return ", ".join(f"{name} {number.partition('+')[0]}" for name, number in versions.items())


def in_words(spread: Spread, unit: float = 1, digits: str = ".2f") -> str:
    """Median (smallest to largest), in a unit."""
    values = (spread.median, spread.smallest, spread.largest)
    middle, smallest, largest = (format(value / unit, digits) for value in values)
    return f"{middle} ({smallest} to {largest})"


def in_quartiles(values: Iterable[float], digits: int) -> str:
    """Median (first to third quartile)."""
    lower, median, upper = quantiles(values, n=4, method="inclusive")
    return f"{median:.{digits}f} ({lower:.{digits}f} to {upper:.{digits}f})"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table, whose first row is its head."""
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
