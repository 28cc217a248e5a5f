"""`regnet convert`: one checkpoint into a proven folder, or into another framework's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from converters.cli import batch
from converters.cli.batch import EngineOption, Jobs, Out, OutDir
from converters.cli.console import Output
from converters.cli.inspect import print_inspection
from converters.cli.options import (
    CalibrationImages,
    Formats,
    From,
    Head,
    Json,
    Order,
    Quiet,
    Share,
    Source,
    Target,
    Verify,
    Weights,
    read_labels,
)
from converters.cli.tables import files_table, outcome_line, report_table, to_verify
from converters.errors import InputError, escaped
from regnet.files.dtypes import DType

if TYPE_CHECKING:
    from converters.jobs.conversion import Conversion
    from converters.jobs.writeback import WrittenBack

To = Annotated[
    Target | None,
    typer.Option(
        "--to",
        help="Write this framework's own file (timm: folder) instead of the converted folder.",
        show_default=False,
    ),
]
Dtype = Annotated[
    DType | None,
    typer.Option(
        help="What to store the weights in; artefacts compute in float32 whatever it is.",
        show_default="float32; with --to, a converted folder's own",
    ),
]
Labels = Annotated[
    Path | None,
    typer.Option(help="Class names: JSON of any usual form, or one per line.", show_default=False),
]
ShardSize = Annotated[
    str | None, typer.Option(help="Split the weights, for example 5GB.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
AllowNonfinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Convert weights with NaN, infinity or negative variances; no verdict passes them.",
    ),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]


def convert_command(
    source: Source,
    out: Out = None,
    out_dir: OutDir = None,
    jobs: Jobs = None,
    engine: EngineOption = None,
    framework: From = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    to: To = None,
    dtype: Dtype = None,
    labels: Labels = None,
    formats: Formats = None,
    share_weights: Share = False,
    calibration_images: CalibrationImages = None,
    max_shard_size: ShardSize = None,
    force: Force = False,
    allow_nonfinite: AllowNonfinite = False,
    verify: Verify = True,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Convert a checkpoint into a folder that every runtime can use, and prove it.

    The folder appears only when every artefact has passed against the float64 oracle.

    Example: regnet convert RegNetY-4.0GF.pyth out/

    Example: regnet convert *.pyth --out-dir converted/ --jobs 4
    """
    from converters.formats.beside import expect_torch

    if verify and not (dry_run or formats or out_dir or to):
        expect_torch()
    from converters.formats.registry import named_formats
    from converters.jobs.conversion import ConvertOptions, shard_size
    from converters.jobs.convert import convert
    from converters.jobs.writeback import NO_FOLDER, WrittenBack
    from converters.parity.report import VerificationError

    output = Output(as_json, quiet)
    target = batch.target(out or (), out_dir, jobs, engine, alone=dry_run or to is not None)
    keywords: dict[str, Any] = {
        "framework": framework,
        "channel_order": channel_order,
        "weights": weights,
        "head": head,
        "dtype": dtype,
        "labels": None if labels is None else read_labels(labels),
        "formats": named_formats(formats or ()),
        "share_weights": share_weights,
        "calibration_images": calibration_images or (),
        "max_shard_size": shard_size(max_shard_size),
        "force": force,
        "allow_nonfinite": allow_nonfinite,
        "verify": verify,
    }
    if out_dir is not None:
        sources, options = [source, *(out or ())], ConvertOptions(**keywords)
        batch.convert_all(sources, out_dir, options, output, engine=engine, at_once=jobs)
        return
    if to is not None and formats:
        raise InputError(NO_FOLDER)
    with output.progress() as progress:
        keywords |= {"progress": progress, "planned": progress.planned}
        try:
            conversion = convert(source, target, to=to, dry_run=dry_run, **keywords)
        except VerificationError as error:
            output.result(report_table(error.report), outcome_line(error.report))
            output.record({"verification": error.report.to_dict()})
            raise
    if dry_run:
        print_inspection(conversion.inspection, output, plan=True)
    elif isinstance(conversion, WrittenBack):
        _print_written(conversion, output, verify=verify)
    else:
        _print_converted(conversion, target, output)


def _print_converted(conversion: Conversion, out: Path, output: Output) -> None:
    """Print the verdicts, if there are any, and the files."""
    from converters.folder.record import Record

    if conversion.report:
        output.result(report_table(conversion.report))
    output.result(files_table(out), "")
    if conversion.report:
        ready = f"; {out} is ready, check it anywhere with: {to_verify(out)}"
        output.result(outcome_line(conversion.report, ready))
    else:
        output.result(escaped(f"{out} is not verified; run: {to_verify(out)}"))
    output.record(dict(Record.required(out).fields))


def _print_written(written: WrittenBack, output: Output, *, verify: bool) -> None:
    """Print what was proven of another framework's file."""
    out, framework, report = written.path, written.framework, written.report
    if report:
        output.result(report_table(report))
        output.result("", outcome_line(report))
    output.result(
        "",
        escaped(
            f"{out} is ready for {framework}; read back, its {written.tensors} tensors are those "
            "of the converted network"
        ),
    )
    if written.unsaid:
        output.result(f"a {framework} file does not say how to evaluate it: {written.unsaid}")
    if not verify:
        output.result("which was not verified; to have it verified, leave out --no-verify")
    record = {"path": out.name, "framework": framework, "tensors": written.tensors}
    record |= {"transform_not_said": written.unsaid} if written.unsaid else {}
    output.record(record | ({"verification": report.to_dict()} if report else {}))
