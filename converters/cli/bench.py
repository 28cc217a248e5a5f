"""`regnet bench`: times all that a folder holds, and says what to deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output
from converters.cli.options import Folder, Json, Quiet, Runtimes
from converters.cli.tables import human_size, to_verify

if TYPE_CHECKING:
    from converters.jobs.bench import Bench
    from converters.jobs.timing import Choice, Entry, Timing

_MILLISECOND = 1e-3
_STYLES = {
    "pass": "green",
    "FAIL": "bold red",
    "changed": "bold red",
    "not run": "yellow",
    "not verified": "yellow",
}
_GOALS = {"latency": "For one answer soon", "throughput": "For many images"}


def bench_command(
    folder: Folder,
    runtimes: Runtimes = None,
    batches: Annotated[
        list[int] | None,
        typer.Option(
            "--batch-size",
            min=1,
            help="Images that go through the network at once; repeatable.",
            show_default="1 and 8",
        ),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Threads that compute; repeatable.", show_default="1 and all cores"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 10,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the images in pixels.", show_default="the network's"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time every artefact and eager PyTorch in turn, and say which to deploy on this machine.

    Example: regnet bench out/ --batch-size 1 --batch-size 32 --threads 4
    """
    from converters.formats.beside import usable_cores
    from converters.jobs.bench import bench

    output = Output(as_json, quiet)
    with output.progress("items") as progress:
        result = bench(
            folder,
            runtimes=runtimes or (),
            batch_sizes=tuple(dict.fromkeys(batches or (1, 8))),
            threads=tuple(dict.fromkeys(threads or (1, usable_cores()))),
            rounds=rounds,
            image_size=image_size,
            progress=progress,
        )
    output.result(timing_table(result))
    output.result(*(Text(f"{name}: {reason}", "yellow") for name, reason in result.absent.items()))
    output.result(*map(_advice, result.choices))
    if not result.choices:
        output.result(f"Nothing here has a recorded pass; run: {to_verify(folder)}")
    output.record(result.to_dict())


def timing_table(result: Bench) -> Table:
    """One row for each contender and batch."""
    size = f"{result.image_size} x {result.image_size}"
    title = f"{size} pixels on {result.cores} cores, load {result.load:.1f} before"
    table = Table("runtime", "computes in", "verdict", title=title, title_justify="left")
    for column in ("size", "threads", "batch", "ms (quartiles)", "images/s"):
        table.add_column(column, justify="right")
    for entry in result.entries:
        for index, timing in enumerate(entry.timings):
            facts = _facts(entry) if index == 0 else [Text()] * 5
            table.add_row(*facts, *_times(timing))
    return table


def _facts(entry: Entry) -> list[Text]:
    return [
        Text(entry.title),
        Text(entry.precision),
        Text(entry.verdict, _STYLES[entry.verdict]),
        Text(human_size(entry.size)),
        Text(str(entry.contender.threads)),
    ]


def _times(timing: Timing | str) -> list[Text]:
    if isinstance(timing, str):
        return [Text("-"), Text(timing), Text("-")]
    milliseconds = [value / _MILLISECOND for value in (timing.median, timing.lower, timing.upper)]
    middle, lower, upper = (f"{value:.2f}" for value in milliseconds)
    return [
        Text(str(timing.batch)),
        Text(f"{middle} ({lower} to {upper})"),
        Text(f"{timing.throughput:.1f}"),
    ]


def _advice(choice: Choice) -> str:
    entry, timing = choice.entry, choice.timing
    speed = (
        f"{timing.median / _MILLISECOND:.2f} ms"
        if choice.goal == "latency"
        else f"{timing.throughput:.0f} images/s in batches of {timing.batch}"
    )
    equals = ", ".join(f"{runtime} on {_threads(count)}" for runtime, count in choice.equals)
    doubt = f"; no slower within the spread: {equals}" if equals else ""
    threads = _threads(entry.contender.threads)
    return f"{_GOALS[choice.goal]}: {entry.contender.runtime} on {threads}, {speed}{doubt}."


def _threads(count: int) -> str:
    return "1 thread" if count == 1 else f"{count} threads"
