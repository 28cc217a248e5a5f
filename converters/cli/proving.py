"""`regnet verify` and `regnet compare`: whether two networks are one."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads it
from typing import Annotated, Literal

import typer

from converters.cli.arguments import (  # noqa: TC001 -- typer reads them
    Debug,
    Folder,
    From,
    Head,
    Images,
    Json,
    Order,
    Quiet,
    Weights,
)
from converters.errors import InputError
from converters.reports.baseline import FACTOR


def verify_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
    folder: Folder,
    images: Images = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint it was made from: run it in its own framework as well, read as "
            "when it was converted, or as --from, --channel-order, --weights and --head say.",
            show_default=False,
        ),
    ] = None,
    framework: From = None,
    channel_order: Order = None,
    weights: Annotated[
        Literal["raw", "ema", "best"] | None,
        typer.Option(
            help="Which of the checkpoint's weights.", show_default="as when it was converted"
        ),
    ] = None,
    head: Head = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit status 4 if anything was not run.")
    ] = False,
    public_key: Annotated[
        Path | None,
        typer.Option(
            help="Demand a signature of every file, made with this key (PEM).", show_default=False
        ),
    ] = None,
    locate: Annotated[
        bool, typer.Option("--locate", help="Name the first module that goes wrong.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Fail on what is worse than in this --json.", show_default=False),
    ] = None,
    regression_factor: Annotated[
        float, typer.Option(min=1, help="How many times the baseline's a ratio may be.")
    ] = FACTOR,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML; - is stdout.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write GitHub-flavoured Markdown.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a self-contained page.", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Give the verdict again, from nothing but the folder; exit status 1 if it is fail.

    Example: regnet verify out/ --locate --html report.html
    """
    from converters.cli.console import Output
    from converters.cli.verifying import VerifyOptions, verify
    from converters.families.options import SourceOptions

    source_options = None
    if framework or channel_order or weights or head:
        if against is None:
            raise InputError(
                "--from, --channel-order, --weights and --head say how the checkpoint of --against "
                "is read; name it, or leave them out."
            )
        source_options = SourceOptions(framework, channel_order, weights or "best", head)
    options = VerifyOptions(
        images=images or (),
        against=against,
        source_options=source_options,
        strict=strict,
        public_key=public_key,
        locate=locate,
        baseline=baseline,
        regression_factor=regression_factor,
        junit=junit,
        markdown=markdown,
        html=html,
    )
    verify(folder, options, Output(as_json, quiet))


def compare_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A checkpoint, a converted folder or an artefact.", show_default=False
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="Likewise.", show_default=False)],
    images: Images = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Say whether two networks are the same, whatever each is; exit status 1 if they are not.

    Example: regnet compare RegNetY-4.0GF.pyth model.onnx
    """
    from converters.cli.comparing import compare
    from converters.cli.console import Output
    from converters.families.options import SourceOptions

    options = SourceOptions(None, channel_order, weights, head)
    compare(first, second, images or (), options, Output(as_json, quiet))
