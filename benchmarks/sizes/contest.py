"""The contenders of one source in turn, each from the same start."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from benchmarks.measure_closely import StoppedError, measure_closely
from benchmarks.sizes.contenders import CONTENDERS, command_of
from benchmarks.sizes.sources import CHECKOUT, files_in, forget, made

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from benchmarks.measure_closely import Cost
    from benchmarks.sizes.contenders import Contender
    from benchmarks.sizes.sources import MadeSource, Source

_GIGABYTE = 10**9

LARGE = _GIGABYTE
"""Bytes of a source, beyond which every contender runs once: the disk's pace drowns the rest."""

_SPARE = 1.05
"""Disk that must be free, in sizes of an output."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what it cost, and seconds from its start until its output was on the disk."""

    cost: Cost
    settled: float


@dataclass(slots=True)
class Result:
    """What a contender did with one network.

    Attributes:
        contender: Who.
        source: What was read; it is deleted by now.
        runs: That counted.
        reason: Why there are no more, in words; empty if there is none.
    """

    contender: Contender
    source: MadeSource
    runs: list[Run] = field(default_factory=list)
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is the same for all.

    Attributes:
        scratch: Folder that takes a source and an output.
        programs: First word of a command line to program.
        runs: Rounds that count, of sources up to :data:`LARGE`.
        most_anonymous: Memory at which a contender is stopped, in bytes.
        announce: Called with one line after each run.
    """

    scratch: Path
    programs: Mapping[str, str]
    runs: int
    most_anonymous: int
    announce: Callable[[str], None]


def contest(network: str, source: Source, density: float, conditions: Conditions) -> list[Result]:
    """Make a source of a network and let every contender that reads it run.

    A small one is run on in rounds, after one that compiles Python files and does not count.

    Args:
        network: A published name.
        source: Which.
        density: How much of the source's large tensors is written.
        conditions: The rest.

    Raises:
        subprocess.CalledProcessError: If the source cannot be made.
    """
    with made(source, network, density, conditions.scratch) as ready:
        contenders = [contender for contender in CONTENDERS if contender.source is source]
        results = [Result(contender, ready) for contender in contenders]
        if ready.size <= LARGE:
            _round(results, network, ready, conditions)
            for result in results:
                result.runs.clear()
        for _ in range(conditions.runs if ready.size <= LARGE else 1):
            _round(results, network, ready, conditions)
    return results


def _round(
    results: Iterable[Result], network: str, source: MadeSource, conditions: Conditions
) -> None:
    """Let every contender that can run once, and note what it cost or why it cannot."""
    for result in results:
        if result.reason:
            continue
        title = f"{network}, {source.path.name}, {result.contender.title}"
        log = conditions.scratch / "log"
        log.write_bytes(b"")
        try:
            run = _run(result.contender, network, source, log, conditions)
        except StoppedError as error:
            result.reason = str(error)
            conditions.announce(f"{title}: {error}\n{log.read_text(errors='replace')}")
        else:
            result.runs.append(run)
            conditions.announce(f"{title}: {run.cost.wall:.2f} s, on disk {run.settled:.2f} s")


def _run(
    contender: Contender, network: str, source: MadeSource, log: Path, conditions: Conditions
) -> Run:
    scratch = conditions.scratch
    command = command_of(contender, network, source, scratch / "out", conditions.programs)
    if command is None:
        raise StoppedError("has no such network")
    _require_room(scratch, round(contender.room * _SPARE * source.size))
    forget(source.folder)
    before = set(scratch.rglob("*"))
    try:
        # In the checkout, so that Python finds our programs.
        cost = measure_closely(command, CHECKOUT, log, conditions.most_anonymous)
        return Run(cost, cost.wall + _flush(set(files_in(scratch)) - before))
    finally:
        _remove(set(scratch.rglob("*")) - before)


def _require_room(scratch: Path, room: int) -> None:
    free = shutil.disk_usage(scratch).free
    if free < room:
        raise StoppedError(
            f"not run: needs {room / _GIGABYTE:.1f} GB of disk, {free / _GIGABYTE:.1f} GB are free"
        )


def _flush(files: Iterable[Path]) -> float:
    """Wait until files are on the disk, which some contenders do by themselves; the seconds."""
    begin = time.perf_counter()
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    return time.perf_counter() - begin


def _remove(paths: Iterable[Path]) -> None:
    for path in sorted(paths, reverse=True):  # what lies in a folder before the folder
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()
