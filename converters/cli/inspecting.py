"""`regnet inspect` and `regnet list`: what a checkpoint is, and which are published."""

from __future__ import annotations

from typing import Annotated

import typer

from converters.cli.arguments import (  # noqa: TC001 -- typer reads them
    Debug,
    From,
    Json,
    Quiet,
    Source,
)


def inspect_command(  # noqa: PLR0913 -- one parameter per option
    source: Source,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="List every tensor.")] = False,
    security: Annotated[
        bool,
        typer.Option(
            "--security",
            help="Say what code the file would run in other programs; exit status 3 if any.",
        ),
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Say what a checkpoint is: framework, architecture, what is in it. No weights are read.

    Example: regnet inspect RegNetY-4.0GF.pyth
    """
    from converters.cli import commands
    from converters.cli.console import Output
    from converters.cli.security import print_security
    from converters.families.options import SourceOptions

    output = Output(as_json, quiet)
    if security:
        print_security(source, output)
    else:
        commands.inspect(source, SourceOptions(), output, with_plan=plan)


def list_command(
    text: Annotated[str, typer.Argument(help="What the name contains.", show_default=False)] = "",
    *,
    framework: From = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the published checkpoints that can be converted by name.

    Example: regnet list 4.0GF
    """
    from converters.cli.console import Output
    from converters.cli.published import list_published

    list_published(text, framework, Output(as_json, quiet))
