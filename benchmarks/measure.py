"""Measuring commands as whole processes, interleaved.

Nothing large may be imported here: Linux counts the memory of the process that forks into the peak
of the child (``ru_maxrss`` survives ``execve``), so the measuring process must stay smaller than
whatever it measures.
"""

from __future__ import annotations

import os
import subprocess
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from typing import IO

_LINUX_MAXRSS_UNIT = 1024


@dataclass(frozen=True, slots=True)
class Usage:
    """What one run of a command cost.

    Attributes:
        wall: Seconds from start to exit.
        cpu: Seconds of processor time, user and system, over all threads and children.
        peak: Largest resident set of the process, in bytes, mapped files included.
    """

    wall: float
    cpu: float
    peak: int


@dataclass(frozen=True, slots=True)
class Spread:
    """Median, smallest and largest of several runs."""

    median: float
    smallest: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise at least one value."""
        return cls(median(values), min(values), max(values))


@dataclass(frozen=True, slots=True)
class Summary:
    """The runs of one command: wall and processor time in seconds, peak memory in bytes."""

    wall: Spread
    cpu: Spread
    peak: Spread

    @classmethod
    def of(cls, usages: Sequence[Usage]) -> Summary:
        """Summarise at least one run."""
        return cls(
            Spread.of([usage.wall for usage in usages]),
            Spread.of([usage.cpu for usage in usages]),
            Spread.of([usage.peak for usage in usages]),
        )


def start(command: Sequence[str], folder: Path, output: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command as every measurement does.

    Args:
        command: Program and arguments.
        folder: Working directory.
        output: Takes what the command prints.
    """
    # Nobody's time should depend on the network, and every contender gets the same environment.
    # Of what pip installs the byte code is kept, which this checkout's is as well.
    environment = os.environ | {"HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    return subprocess.Popen(  # noqa: S603 -- the benchmark's own commands
        command, cwd=folder, env=environment, stdout=output, stderr=subprocess.STDOUT
    )


def measure(command: Sequence[str], folder: Path, log: Path) -> Usage:
    """Run a command to its end.

    Args:
        command: Program and arguments.
        folder: Working directory.
        log: Takes what the command prints, in place of an earlier run's.

    Raises:
        RuntimeError: If it exits with another status than 0; its time would mean nothing.
    """
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = start(command, folder, output)
        # Popen.wait tells no resources; it is told the status, or it would wait for a lost child.
        _, status, resources = os.wait4(process.pid, 0)
        wall = time.perf_counter() - begin
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        last = log.read_text(encoding="utf-8", errors="replace").strip().rpartition("\n")[2]
        raise RuntimeError(f"`{' '.join(command)}` ended with status {process.returncode}: {last}")
    cpu = resources.ru_utime + resources.ru_stime
    return Usage(wall, cpu, resources.ru_maxrss * _LINUX_MAXRSS_UNIT)


def interleaved(
    commands: Mapping[str, Sequence[str]],
    runs: int,
    folder: Path,
    announce: Callable[[str], None] = lambda _: None,
) -> dict[str, Summary]:
    """Measure commands in turn, so that whatever else the machine does meets all of them alike.

    Args:
        commands: Key to program and arguments.
        runs: Rounds that count, after one that warms the file cache and compiles Python files.
        folder: Working directory; what a command prints goes to ``<key>.log`` in it.
        announce: Called with one line after each run.

    Returns:
        Key to summary.

    Raises:
        RuntimeError: If a command fails.
    """
    usages: dict[str, list[Usage]] = {key: [] for key in commands}
    for round_number in range(runs + 1):
        for key, command in commands.items():
            usage = measure(command, folder, folder / f"{key}.log")
            announce(f"round {round_number} of {runs}: {key} took {usage.wall:.2f} s")
            if round_number:
                usages[key].append(usage)
    return {key: Summary.of(runs_of_key) for key, runs_of_key in usages.items()}
