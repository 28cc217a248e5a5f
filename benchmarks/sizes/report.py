"""What was measured, as a table for every network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import Spread
from benchmarks.tables import in_words, markdown

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.sizes.contest import Result

_MEBIBYTE = 2**20
_GIGABYTE = 10**9
_GIBIBYTE = 2**30

_NO_HOLES = 0.01
"""Share of a file that is none worth telling: file systems count in pages of their own."""

_HEAD = [
    "contender",
    "wall, s",
    "on disk, s",
    "times `cp`",
    "CPU, s",
    "anonymous, MiB",
    "resident, MiB",
    "read",
    "written",
]


def network_table(network: str, results: Sequence[Result]) -> str:
    """The contenders of one network, source by source, each beside `cp` of the same source.

    Args:
        network: Its name, for the head.
        results: All sources'; the first of each source is the one to compare with.
    """
    source = results[0].source
    holes = 1 - source.allotted / source.size
    written = f", {holes:.0%} of it holes" if holes > _NO_HOLES else ""
    rows = [_HEAD]
    first = results[0]
    for result in results:
        if result.contender.source is not first.contender.source:
            first = result
        if result is first:
            rows.append([f"*{result.contender.source.title}*", *[""] * (len(_HEAD) - 1)])
        rows.append(_row(result, first))
    return f"**{network}**, {source.size / _GIGABYTE:.3g} GB{written}\n\n{markdown(rows)}"


def _row(result: Result, baseline: Result) -> list[str]:
    title = result.contender.title
    if result.reason:
        return [title, result.reason, *[""] * (len(_HEAD) - 2)]
    costs = [run.cost for run in result.runs]
    settled = settled_of(result).median
    return [
        title,
        _seconds([cost.wall for cost in costs]),
        _seconds([run.settled for run in result.runs]),
        "" if baseline.reason else f"{settled / settled_of(baseline).median:.2f}",
        f"{Spread.of([cost.cpu for cost in costs]).median:.2f}",
        f"{anonymous_of(result) / _MEBIBYTE:.0f}",
        f"{max(cost.resident for cost in costs) / _MEBIBYTE:.0f}",
        _moved([(c.read_by_calls, c.read_from_disk) for c in costs], result.source.size),
        _moved([(c.written_by_calls, c.written_to_disk) for c in costs], result.source.size),
    ]


def settled_of(result: Result) -> Spread:
    """Seconds until the output was on the disk."""
    return Spread.of([run.settled for run in result.runs])


def anonymous_of(result: Result) -> int:
    """Most anonymous memory of any run, in bytes."""
    return max(run.cost.anonymous for run in result.runs)


def _seconds(values: Sequence[float]) -> str:
    spread = Spread.of(values)
    return in_words(spread) if len(values) > 1 else f"{spread.median:.2f}"


def _moved(pairs: Sequence[tuple[int, int]], size: int) -> str:
    """Bytes by calls and from or to the disk, medians, in sizes of the source."""
    return " / ".join(
        f"{Spread.of(column).median / size:.2f}" for column in zip(*pairs, strict=True)
    )


def memory_of_machine() -> str:
    """How much memory the machine has."""
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return f"{pages / _GIBIBYTE:.0f} GiB of memory"


def available_memory() -> int:
    """Bytes that a program can have without others being swapped out; ``MemAvailable``."""
    lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return int(fields["MemAvailable"].removesuffix("kB")) * 1024
