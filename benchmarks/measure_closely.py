"""Measuring one command from outside: time, memory that is its own, and every byte it moves.

Linux alone. Memory is looked at every 10 ms, since the kernel keeps no peak of anonymous memory.
Bytes and times are exact: the kernel sums them up over all threads, and over children that were
waited for, and they are read when the process has ended and is not yet forgotten (``proc(5)``,
``waitid(2)``).
"""

from __future__ import annotations

import os
import resource
import select
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.measure import start

if TYPE_CHECKING:
    from collections.abc import Sequence

_KIBIBYTE = 1024
_INTERVAL = 0.010
"""Between two looks at the memory, in seconds."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What one run of a command cost. Seconds and bytes.

    Attributes:
        wall: From start to exit.
        cpu: Processor time, user and system, over all threads and children.
        anonymous: Most memory that was the process's own: no file holds its contents, so the
            machine must have it.
        resident: Most memory of any kind, mapped files included.
        read_by_calls: What it asked the kernel for; bytes of mapped files are not among them.
        read_from_disk: What the disk delivered for it; what was in the page cache already, or
            lies in a hole, is not among them.
        written_by_calls: What it handed to the kernel, copies inside the kernel included.
        written_to_disk: Pages of files that it changed, mapped ones included.
    """

    wall: float
    cpu: float
    anonymous: int
    resident: int
    read_by_calls: int
    read_from_disk: int
    written_by_calls: int
    written_to_disk: int


class StoppedError(RuntimeError):
    """A command did not come to its end; the message says why, in words for a table."""


def measure_closely(
    command: Sequence[str], folder: Path, log: Path, most_anonymous: int | None = None
) -> Cost:
    """Run a command to its end, and watch it.

    Args:
        command: Program and arguments.
        folder: Working directory.
        log: Takes what the command prints, in place of an earlier run's.
        most_anonymous: End the command when it has more anonymous memory, in bytes.

    Raises:
        StoppedError: If it needs more memory, or exits with another status than 0.
    """
    with log.open("wb") as output:
        begin = time.perf_counter()
        process = start(command, folder, output)
        anonymous, resident = _watch(process.pid, most_anonymous)
        wall = time.perf_counter() - begin
        moved = _numbers(process.pid, "io")  # a zombie's still stands; wait4 removes it
        _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if most_anonymous is not None and anonymous > most_anonymous:
        raise StoppedError(f"stopped at {most_anonymous / 1e9:.1f} GB of anonymous memory")
    if process.returncode:
        raise StoppedError(f"failed with status {process.returncode}")
    return Cost(
        wall,
        used.ru_utime + used.ru_stime,
        anonymous,
        _peak(used.ru_maxrss * _KIBIBYTE, resident),
        moved["rchar"],
        moved["read_bytes"],
        moved["wchar"],
        moved["write_bytes"],
    )


def _watch(pid: int, most_anonymous: int | None) -> tuple[int, int]:
    """Look at a process until it ends: most anonymous and most resident memory, in bytes."""
    anonymous = resident = 0
    ended = os.pidfd_open(pid)
    try:
        while True:
            numbers = _numbers(pid, "status")
            # Once the process has given its memory back the lines are missing.
            anonymous = max(anonymous, numbers.get("RssAnon", 0) * _KIBIBYTE)
            resident = max(resident, numbers.get("VmHWM", 0) * _KIBIBYTE)
            if most_anonymous is not None and anonymous > most_anonymous:
                os.kill(pid, signal.SIGKILL)  # nobody else has the pid before wait4
                select.select([ended], [], [])
                break
            if select.select([ended], [], [], _INTERVAL)[0]:
                break
    finally:
        os.close(ended)
    return anonymous, resident


def _peak(counted: int, seen: int) -> int:
    """The exact peak, unless it may be the one of the measuring process.

    Linux counts what forks into the child (``ru_maxrss`` survives ``execve``).
    """
    ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _KIBIBYTE
    return counted if counted > ours else seen


def _numbers(pid: int, name: str) -> dict[str, int]:
    """The lines ``key: number [kB]`` of a file of ``/proc``."""
    fields: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        number = value.removesuffix("kB").strip()
        if number.isdecimal():
            fields[key] = int(number)
    return fields
