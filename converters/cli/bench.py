"""`regnet bench`: times all that a folder holds, and says what to deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output, require_one_on_stdout, write_text
from converters.cli.options import Folder, Json, Plot, Quiet, Runtimes
from converters.cli.tables import human_size, to_verify
from converters.reports.drawing import GREEN, GREY, RED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

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
_COLOURS = {"pass": GREEN, "FAIL": RED, "changed": RED}
_GOALS: Mapping[str, str] = {"latency": "For one answer soon", "throughput": "For many images"}


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
    plot: Plot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Time every artefact and eager PyTorch in turn, and say which to deploy on this machine.

    Example: regnet bench out/ --batch-size 1 --batch-size 32 --threads 4
    """
    from converters.jobs.bench import bench
    from regnet.files.system import usable_cores

    output = Output(as_json, quiet)
    require_one_on_stdout(plot, as_json=as_json)
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
    if plot is not None:
        write_text(plot, timing_plot(result))
    if str(plot) != "-":
        _print(result, folder, output)


def _print(result: Bench, folder: Path, output: Output) -> None:
    output.result(timing_table(result))
    output.result(*(Text(f"{name}: {reason}", "yellow") for name, reason in result.absent.items()))
    output.result(*map(_advice, result.choices))
    if not result.choices:
        output.result(f"Nothing here has a recorded pass; run: {to_verify(folder)}")
    output.record(result.to_dict())


def timing_table(result: Bench) -> Table:
    """One row for each contender and batch."""
    table = Table("runtime", "computes in", "verdict", title_justify="left")
    table.title = _measured(result)
    for column in ("size", "threads", "batch", "ms (quartiles)", "images/s"):
        table.add_column(column, justify="right")
    for entry in result.entries:
        for index, timing in enumerate(entry.timings):
            facts = _facts(entry) if index == 0 else [Text()] * 5
            table.add_row(*facts, *_times(timing))
    return table


def timing_plot(result: Bench) -> str:
    """A bar for each contender on each batch: milliseconds for each image, with quartiles."""
    from converters.jobs.timing import Timing
    from converters.reports.bar_chart import Bar, bar_chart

    groups: dict[str, list[Bar]] = {}
    goals: dict[object, list[str]] = {}
    for choice in result.choices:
        goals.setdefault((choice.entry.contender, choice.timing), []).append(_GOALS[choice.goal])
    for entry in result.entries:
        label = f"{entry.title}, {_threads(entry.contender.threads)}"
        for index, timing in enumerate(entry.timings):
            heading = _heading(result, index)
            if not isinstance(timing, Timing):
                groups.setdefault(heading, []).append(Bar(label, None, timing, ""))
                continue
            each = timing.batch * _MILLISECOND
            chosen = " and ".join(goals.get((entry.contender, timing), ())).lower()
            words = f"{timing.median / each:.3g} ms, {entry.verdict}"
            words += f"; {chosen}" if chosen else ""
            spread = (timing.lower / each, timing.upper / each)
            colour = _COLOURS.get(entry.verdict, GREY)
            bar = Bar(label, timing.median / each, words, colour, spread)
            groups.setdefault(heading, []).append(bar)
    axis = "milliseconds for each image: median, and between which half of the calls lie"
    return bar_chart("Time of each runtime", [_measured(result)], groups, axis)


def _heading(result: Bench, index: int) -> str:
    """Of the batch with this place among those that were asked for."""
    timings = (entry.timings[index] for entry in result.entries)
    batch = next((timing.batch for timing in timings if not isinstance(timing, str)), None)
    if batch is None:
        return "a batch that nothing takes"
    return "one image at once" if batch == 1 else f"{batch} images at once"


def _measured(result: Bench) -> str:
    size = f"{result.image_size} x {result.image_size}"
    load = "" if result.load is None else f", load {result.load:.1f} before"
    return f"{size} pixels on {result.cores} cores{load}"


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
