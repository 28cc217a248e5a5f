"""What a run of a target came to, and the table of all runs.

Run: python -m fuzz.log LOG [--write] (the log is a file, or several, of `python -m fuzz`)
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

PAGE = Path(__file__).parents[1] / "docs" / "fuzzing.md"
_BEGIN, _END = "<!-- runs -->\n", "<!-- end of runs -->\n"

_STATUS = re.compile(r"cov: (\d+) ft: (\d+)")
_STATISTIC = re.compile(r"stat::(\w+):\s+(\d+)")


@dataclass(frozen=True, slots=True)
class Run:
    """One process that fuzzed one target.

    Attributes:
        target: Its name.
        seconds: How long it ran.
        executions: Inputs that were read.
        coverage: Edges of bytecode that its inputs, with those of earlier runs, have reached.
        peak_rss_mb: The most memory that was resident.
        slowest: Processor time of the slowest input of all runs so far, in seconds.
        findings: Files with the inputs that ended the run, by kind and digest.
    """

    target: str
    seconds: float
    executions: int
    coverage: int
    peak_rss_mb: int
    slowest: float
    findings: tuple[str, ...] = ()

    @classmethod
    def of_output(
        cls, target: str, seconds: float, output: str, slowest: float, findings: Iterable[str]
    ) -> Run:
        """Read what libFuzzer printed."""
        statistics = {name: int(value) for name, value in _STATISTIC.findall(output)}
        coverage = max((int(edges) for edges, _ in _STATUS.findall(output)), default=0)
        return cls(
            target,
            round(seconds, 1),
            statistics.get("number_of_executed_units", 0),
            coverage,
            statistics.get("peak_rss_mb", 0),
            round(slowest, 3),
            tuple(findings),
        )

    def append(self, log: Path) -> None:
        """Add a line to a log."""
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(self)) + "\n")


def read(log: Path) -> list[Run]:
    """Read a log."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [
        Run(**(record | {"findings": tuple(record["findings"])}))
        for record in map(json.loads, lines)
    ]


def table(runs: Iterable[Run]) -> list[str]:
    """One row in Markdown for each target, and one for all."""
    by_target: dict[str, list[Run]] = {}
    for run in runs:
        by_target.setdefault(run.target, []).append(run)
    lines = [
        "| target | minutes | executions | edges reached | memory at most | slowest | findings |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    everything = [run for of_target in by_target.values() for run in of_target]
    for name, of_target in [*sorted(by_target.items()), ("**all**", everything)]:
        edges = f"{max(run.coverage for run in of_target):,}" if name in by_target else ""
        lines.append(
            f"| {name} | {sum(run.seconds for run in of_target) / 60:.0f} "
            f"| {sum(run.executions for run in of_target):,} | {edges} "
            f"| {max(run.peak_rss_mb for run in of_target)} MB "
            f"| {max(run.slowest for run in of_target):.1f} s "
            f"| {sum(len(run.findings) for run in of_target)} |"
        )
    return lines


def main() -> None:
    """Print the table, or write it into the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("log", type=Path, nargs="+")
    parser.add_argument("--write", action="store_true", help=f"into docs/{PAGE.name}")
    arguments = parser.parse_args()
    rows = "\n".join(table(run for log in arguments.log for run in read(log))) + "\n"
    print(rows, end="")
    if arguments.write:
        before, _, rest = PAGE.read_text(encoding="utf-8").partition(_BEGIN)
        after = rest.partition(_END)[2]
        PAGE.write_text(before + _BEGIN + "\n" + rows + "\n" + _END + after, encoding="utf-8")


if __name__ == "__main__":
    main()
