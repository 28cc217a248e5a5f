"""`regnet convert`: one checkpoint, or many."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from converters.cli.arguments import (
    CalibrationImages,
    Debug,
    Formats,
    From,
    Head,
    Json,
    Order,
    Quiet,
    Share,
    Source,
    Weights,
    WrittenBack,
)
from converters.cli.batching import EngineOption, Jobs, Out, OutDir  # noqa: TC001
from converters.errors import InputError
from regnet.files.dtypes import DType

To = Annotated[
    WrittenBack | None,
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
    Path | None, typer.Option(help="Class names: a JSON list, or one per line.", show_default=False)
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
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Publish without running the network; needs no torch.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]


def convert_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
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
    no_verify: NoVerify = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 -- read by _fail
) -> None:
    """Convert a checkpoint into a folder that every runtime can use, and prove it.

    The folder appears only when every artefact has passed against the float64 oracle.

    Example: regnet convert RegNetY-4.0GF.pyth out/

    Example: regnet convert *.pyth --out-dir converted/ --jobs 4
    """
    from converters.cli import batching, commands
    from converters.cli.console import Output
    from converters.families.options import SourceOptions
    from converters.formats.registry import named_formats
    from converters.jobs.convert import ConvertOptions, require_formats
    from converters.jobs.writeback import NO_FOLDER

    source_options = SourceOptions(framework, channel_order, weights, head)
    output = Output(as_json, quiet)
    target = batching.target(out or (), out_dir, jobs, engine, alone=dry_run or to is not None)
    options = ConvertOptions(
        source=source_options,
        dtype=dtype,
        labels=None if labels is None else commands.read_labels(labels),
        formats=named_formats(formats or ()),
        share_weights=share_weights,
        calibration_images=calibration_images or (),
        max_shard_size=commands.shard_size(max_shard_size),
        force=force,
        allow_nonfinite=allow_nonfinite,
        verify=not no_verify,
    )
    if out_dir is not None:
        require_formats(options)
        sources = [source, *(out or ())]
        batching.convert_all(sources, out_dir, options, output, engine=engine, at_once=jobs)
        return
    if to is not None and formats:
        raise InputError(NO_FOLDER)
    if dry_run:
        commands.dry_run(source, target, to, options, output)
    elif to is None:
        commands.convert(source, target, options, output)
    else:
        commands.write_back(source, target, to, options, output)
