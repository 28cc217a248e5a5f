"""`regnet push`: verify a folder, send it to the Hugging Face Hub, print what went up."""

from __future__ import annotations

from typing import Annotated

import typer

from converters.cli.console import Output
from converters.cli.options import Folder, Json, Quiet
from converters.cli.tables import sizes_table


def push_command(
    folder: Folder,
    repository: Annotated[
        str, typer.Argument(metavar="USER/NAME", help="The repository.", show_default=False)
    ],
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see it, if it is new.")
    ] = False,
    has_right: Annotated[
        bool,
        typer.Option(
            "--i-have-the-right",
            help="Vouch for weights whose licence is unknown or does not let everybody share them.",
        ),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Verify, list what would go up, and send nothing.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Verify a converted folder and put it on the Hugging Face Hub, private unless told otherwise.

    Example: regnet push out/ somebody/regnety-040 --dry-run
    """
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from converters.jobs.publish import prepare, send
    from converters.jobs.verify import verify

    output = Output(as_json, quiet)
    publication = prepare(folder, repository, has_right=has_right)
    with output.progress() as progress:
        # As it is now: the verdict on record may be of files replaced since.
        report = verify(folder, progress=progress)
    report.require_pass(f"{folder} was not sent")
    total = (f"{len(publication.files)} files for {repository}", sum(publication.files.values()))
    table = sizes_table([*publication.files.items(), total])
    output.result(table, f"\nlicence: {publication.terms}")
    output.result(*(f"{clause}." for clause in report.not_run))
    url = None
    if dry_run:
        output.result("verified, and nothing was sent; to send it, leave out --dry-run")
    else:
        if quiet or as_json:
            disable_progress_bars()
        url = send(folder, publication, public=public)
        output.result(f"verified, and sent: {url}")
    output.record(publication.to_dict() | {"url": url})
