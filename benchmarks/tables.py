"""What was measured, as Markdown, between two marks of ``docs/benchmarks.md``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from benchmarks.measure import Spread, Summary

BEGIN = "<!-- measured by benchmarks/export_and_convert.py: begin -->"
END = "<!-- measured by benchmarks/export_and_convert.py: end -->"

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
                _spread(summary.wall, 1, ".2f"),
                _spread(summary.cpu, 1, ".2f"),
                _spread(summary.peak, _MEBIBYTE, ".0f"),
                f"{other.wall.median / summary.wall.median:.1f} x",
                f"{summary.peak.median / other.peak.median:.0%}",
            ]
        )
    return _markdown(rows)


def targets_table(targets: Sequence[Target]) -> str:
    """One row for each target, with its verdict."""
    rows = [["target", "measured", ""]]
    for target in targets:
        measured = f"{target.value:.2f} {target.unit}"
        rows.append([target.title, measured, "met" if target.met else "not met"])
    return _markdown(rows)


def replace_measured(page: Path, text: str) -> None:
    """Put ``text`` between the marks of a page.

    Raises:
        ValueError: If the page lacks a mark.
    """
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{page.name} lacks the lines {BEGIN} and {END}; put them back.")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


def _spread(spread: Spread, unit: float, digits: str) -> str:
    values = (spread.median, spread.smallest, spread.largest)
    middle, smallest, largest = (format(value / unit, digits) for value in values)
    return f"{middle} ({smallest} to {largest})"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])
