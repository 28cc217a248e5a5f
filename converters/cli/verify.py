"""`regnet verify`: the verdict again, in every form that is asked for; where it goes wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from converters.cli.console import Output, write_text
from converters.cli.locations import location_table
from converters.cli.options import Folder, From, Head, Images, Json, Order, Quiet
from converters.cli.tables import report_table
from converters.errors import InputError, StorageError
from converters.reports.baseline import FACTOR, read_baseline, regressions
from converters.reports.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from converters.cli.console import Steps
    from converters.folder.folder import ConvertedFolder
    from converters.parity.locate.location import Location
    from converters.parity.report import Report


def verify_command(
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
) -> None:
    """Give the verdict again, from nothing but the folder; exit status 1 if it is fail.

    Example: regnet verify out/ --locate --html report.html
    """
    from converters.families.options import SourceOptions
    from converters.folder.folder import ConvertedFolder
    from converters.folder.signature import check_signature
    from converters.parity.locate.plot import error_by_depth_svg
    from converters.parity.report import Report
    from converters.parity.verify import verify_folder

    source_options = None
    if framework or channel_order or weights or head:
        if against is None:
            raise InputError(
                "--from, --channel-order, --weights and --head say how the checkpoint of --against "
                "is read; name it, or leave them out."
            )
        source_options = SourceOptions(framework, channel_order, weights or "best", head)
    output = Output(as_json, quiet)
    name = folder.resolve().name
    before = None if baseline is None else read_baseline(baseline)
    signature = None if public_key is None else check_signature(folder, public_key)
    locations: list[Location] = []
    if signature is not None and not signature.passed:
        # Nobody knows whose files these are, so none is opened.
        findings = Findings(name, Report(()), signature=signature)
    else:
        with output.progress() as progress:
            converted = ConvertedFolder(folder)
            report = verify_folder(converted, progress, images or (), against, source_options)
            if locate:
                locations = list(_locate(converted, report, progress))
        findings = Findings(
            name,
            report,
            None if before is None else regressions(report, before, regression_factor),
            [error_by_depth_svg(location) for location in locations if location.modules],
            signature,
        )
    if "-" not in map(str, (junit, markdown, html)):  # else stdout is the report's
        _print(findings, locations, output)
    write_reports(findings, junit=junit, markdown=markdown, html=html)
    findings.require_pass(f"{folder} is not to be trusted")
    if strict and findings.report.not_run:
        raise StorageError(
            f"{folder} passes as far as it was judged, but {'; '.join(findings.report.not_run)}; "
            "leave out --strict to accept that."
        )


def _print(findings: Findings, locations: Sequence[Location], output: Output) -> None:
    if findings.report.verdicts:
        output.result(report_table(findings.report))
    output.result(*map(location_table, locations))
    if findings.signature is not None and findings.signature.passed:
        output.result(f"The signature holds for all {findings.signature.files} files.")
    record = findings.to_dict()
    if locations:
        record["locations"] = [location.to_dict() for location in locations]
    output.record(record)


def _locate(folder: ConvertedFolder, report: Report, progress: Steps) -> Iterator[Location]:
    """Look into each artefact, on the batch that came nearest to a fail."""
    from converters.formats.registry import FORMATS
    from converters.parity.locate.location import locate
    from converters.parity.verify import fresh_inputs

    inputs = fresh_inputs(folder)
    verdicts = {verdict.artefact: verdict for verdict in report.verdicts}
    for kind, form in FORMATS.items():
        verdict = verdicts.get(form.file_name)
        if verdict is None or form.intermediates is None:
            continue
        progress.step(f"locating in {form.title}")
        measured = [m for m in verdict.measurements if m.batch in inputs]
        worst = max(measured, key=lambda m: m.share, default=None)
        pixels = inputs[worst.batch if worst else "native"]
        yield locate(folder, kind, folder.path / form.file_name, pixels)


def write_reports(
    findings: Findings,
    *,
    junit: Path | None = None,
    markdown: Path | None = None,
    html: Path | None = None,
) -> None:
    """Write the forms that were asked for; each file appears whole or not at all.

    Args:
        findings: What was found.
        junit: Where JUnit XML goes; ``-`` is stdout, here and below.
        markdown: Where GitHub-flavoured Markdown goes.
        html: Where the page goes.

    Raises:
        StorageError: If a file cannot be written.
    """
    from converters.reports import html as html_form
    from converters.reports import junit as junit_form
    from converters.reports import markdown as markdown_form

    forms: tuple[tuple[Path | None, Callable[[Findings], str]], ...] = (
        (junit, junit_form.junit),
        (markdown, markdown_form.markdown),
        (html, html_form.html),
    )
    for target, form in forms:
        if target is not None:
            write_text(target, form(findings))
