"""`regnet convert A B C --out-dir DIR`: many checkpoints in one go."""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.table import Table

from converters.cli.options import UsageError, require_commas
from converters.errors import ConversionError, InputError
from converters.jobs.batch.job import Job

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.cli.console import Output
    from converters.jobs.batch.engine import Engine
    from converters.jobs.batch.job import Outcome
    from converters.jobs.conversion import ConvertOptions

EngineName = Literal["processes", "ray"]

Out = Annotated[
    list[Path] | None,
    typer.Argument(
        metavar="out",
        help="The folder (with --to perhaps file) to be made; with --out-dir, more checkpoints.",
        show_default=False,
    ),
]
OutDir = Annotated[
    Path | None,
    typer.Option(
        "--out-dir",
        help="Convert each SOURCE into a folder in this one; those already there are skipped.",
        show_default=False,
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="--out-dir: how many to convert at once.", show_default="all cores"),
]
EngineOption = Annotated[
    EngineName | None,
    typer.Option(
        help="--out-dir: run on processes of this machine or on a Ray cluster.",
        show_default="processes",
    ),
]

_FAILURES = {
    1: "verification failed",
    2: "bad input",
    3: "unsafe",
    4: "environment or I/O",
}
"""What the summary calls each exit status."""

_INTERRUPTED = 130


class BatchError(ConversionError):
    """A batch that has not converted everything; the status is the highest of any checkpoint."""

    def __init__(self, message: str, exit_status: int) -> None:
        super().__init__(message)
        self.exit_status = exit_status


def target(
    out: Sequence[Path],
    out_dir: Path | None,
    jobs: int | None,
    engine: EngineName | None,
    *,
    alone: bool,
) -> Path:
    """Where the result goes, once it is clear whether it is of one checkpoint or of a batch.

    Raises:
        InputError: If it must be ``alone``, for another option, and there are several.
        UsageError: If an argument is missing or too much.
    """
    if out_dir is not None:
        if alone:
            raise InputError("--to and --dry-run take one checkpoint; leave out --out-dir.")
        return out_dir
    require_commas(map(str, out[1:]))
    if len(out) > 1 or jobs or engine:
        raise UsageError("Several checkpoints need --out-dir, the folder for all results.")
    if not out:
        raise UsageError("Missing argument 'out'.")
    return out[0]


def convert_all(
    sources: Sequence[Path],
    out_dir: Path,
    options: ConvertOptions,
    output: Output,
    *,
    engine: EngineName | None = None,
    at_once: int | None = None,
) -> None:
    """Convert checkpoints, each into a folder of its own; print what became of them.

    Args:
        sources: Files, folders and names of published checkpoints.
        out_dir: Where the folders are made, each called like its checkpoint without the extension.
        options: How; the same for all.
        output: Where the summary goes.
        engine: What runs the conversions; None for processes.
        at_once: How many at a time; None for as many as there are cores.

    Raises:
        InputError: Before anything is converted, if two checkpoints would become one folder.
        StorageError: Likewise, if ``out_dir`` cannot be made or Ray is not installed.
        BatchError: At the end, if a checkpoint was not converted.
    """
    from converters.jobs.conversion import require_formats
    from converters.staging.staged import storage_errors

    require_formats(options)
    folders = _folders(sources, out_dir)
    if out_dir.exists() and not out_dir.is_dir():
        raise InputError(f"{out_dir} is not a folder; choose another --out-dir.")
    with storage_errors(out_dir):
        out_dir.mkdir(parents=True, exist_ok=True)
    try:
        outcomes = _run(folders, options, output, engine, at_once)
    finally:
        with suppress(OSError):  # unless there is something in it
            out_dir.rmdir()
    output.result(_summary(outcomes))
    output.record(_record(outcomes))
    _require_all(outcomes)


def _folders(sources: Sequence[Path], out_dir: Path) -> dict[Path, Path]:
    """Each checkpoint and the folder that it becomes."""
    by_folder: dict[Path, Path] = {}
    for source in sources:
        name = source.stem if source.is_file() else source.name
        other = by_folder.setdefault(out_dir / name, source)
        if other is not source:
            raise InputError(
                f"{other} and {source} would both become {out_dir / name}; rename one or leave it "
                "out."
            )
    return {source: folder for folder, source in by_folder.items()}


def _run(
    folders: dict[Path, Path],
    options: ConvertOptions,
    output: Output,
    engine: EngineName | None,
    at_once: int | None,
) -> list[Outcome]:
    """Run all jobs; return their outcomes in the order in which the checkpoints were given."""
    from converters.jobs.batch.engine import run_batch

    jobs, outcomes = _jobs(folders, options, output)
    running = run_batch(jobs, _engine(engine, at_once, len(jobs)))
    try:
        with output.progress("items") as progress, closing(running):
            progress.step("converting", len(jobs))
            for outcome in running:
                outcomes.append(outcome)
                progress.retitle(_in_words(outcomes))
                progress.advance(1)
    except KeyboardInterrupt:
        raise BatchError(
            f"Interrupted after {len(outcomes)} of {len(folders)} checkpoints; what was converted "
            "is whole, and the same command goes on from there.",
            _INTERRUPTED,
        ) from None
    order = {str(source): index for index, source in enumerate(folders)}
    return sorted(outcomes, key=lambda outcome: order[outcome.checkpoint])


def _jobs(
    folders: dict[Path, Path], options: ConvertOptions, output: Output
) -> tuple[list[Job], list[Outcome]]:
    """What is to be done, once published checkpoints are fetched; and what cannot be fetched."""
    from converters.published.located import located

    jobs, failed = [], []
    for source, folder in folders.items():
        job = Job(str(source), source, folder, options)
        try:
            with output.progress() as progress:
                path, chosen = located(source, options, progress)
        except ConversionError as error:
            failed.append(job.failed(error.exit_status, str(error)))
        else:
            jobs.append(replace(job, path=path, options=chosen))
    return jobs, failed


def _engine(name: EngineName | None, at_once: int | None, jobs: int) -> Engine:
    if name == "ray":
        from converters.jobs.batch.ray_cluster import RayCluster

        return RayCluster(at_once)
    from converters.jobs.batch.processes import Processes
    from regnet.files.system import usable_cores

    return Processes(min(at_once or usable_cores(), jobs))


def _kind(outcome: Outcome) -> str:
    return _FAILURES.get(outcome.status, outcome.result)


def _in_words(outcomes: Sequence[Outcome]) -> str:
    counts = Counter(outcome.result for outcome in outcomes)
    return ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))


def _summary(outcomes: Sequence[Outcome]) -> Table:
    table = Table("outcome", box=None, pad_edge=False)
    table.add_column("checkpoints", justify="right")
    for kind, count in sorted(Counter(map(_kind, outcomes)).items(), key=lambda pair: -pair[1]):
        table.add_row(kind, f"{count:,}")
    return table


def _record(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    return {
        "status": max(outcome.status for outcome in outcomes),
        "counts": dict(sorted(Counter(map(_kind, outcomes)).items())),
        "checkpoints": [outcome.to_dict() for outcome in outcomes],
    }


def _require_all(outcomes: Sequence[Outcome]) -> None:
    """Do nothing if nothing failed; else print one sentence for each failure.

    Raises:
        BatchError: With one for all.
    """
    errors = [outcome.error for outcome in outcomes if outcome.error]
    sys.stderr.writelines(f"{error}\n" for error in errors)
    if errors:
        raise BatchError(
            f"{len(errors)} of {len(outcomes)} checkpoints were not converted; what was is skipped "
            "when the command is repeated.",
            max(outcome.status for outcome in outcomes),
        )
