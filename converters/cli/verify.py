"""`regnet verify`: the verdict again, in every form that is asked for; where it goes wrong."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output, require_one_on_stdout, write_text
from converters.cli.options import Folder, From, Head, Images, Json, Order, Quiet
from converters.cli.tables import outcome_line, report_table
from converters.errors import DISTRIBUTION, StorageError
from converters.reports.baseline import FACTOR, read_baseline, regressions
from converters.reports.findings import Findings
from regnet import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rich.console import RenderableType

    from converters.cli.console import Steps
    from converters.parity.locate.location import Location
    from converters.parity.locate.module_errors import ModuleError
    from converters.parity.report import Report

_BEFORE, _AFTER = 3, 3
"""Modules shown on either side of the culprit."""

_TRAVELS = 6
"""Blocks shown of those behind: how the error travels."""

_BLOCK = re.compile(r"\.layers\.\d+\.activation$")
"""The output of a block."""


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
    artefacts: Annotated[
        list[Path] | None,
        typer.Option(
            "--artefact",
            help="A file that lies elsewhere, to be judged by the folder as well: ONNX, "
            "TorchScript or .pt2, of any tool; as often as needed.",
            show_default=False,
        ),
    ] = None,
    runtimes: Annotated[
        list[str] | None,
        typer.Option(
            "--runtime",
            help="Judge artefacts in this one as well: tract, mnn, opencv or ort for model.onnx; "
            "repeat for several, or put commas.",
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
    from converters.formats.beside import expect_torch

    expect_torch()
    from converters.folder.signature import check_signature
    from converters.jobs.verify import verify
    from converters.parity.report import Report
    from converters.reports.about import about, judged_by, network_plot

    output = Output(as_json, quiet)
    require_one_on_stdout(junit, markdown, html, as_json=as_json)
    name = folder.resolve().name
    before = None if baseline is None else read_baseline(baseline)
    signature = None if public_key is None else check_signature(folder, public_key)
    locations: list[Location] = []
    if signature is not None and not signature.passed:
        # Nobody knows whose files these are, so none is opened.
        findings = Findings(
            name, Report(()), signature=signature, about=judged_by({DISTRIBUTION: __version__})
        )
    else:
        with output.progress() as progress:
            report = verify(
                folder,
                images=images or (),
                against=against,
                framework=framework,
                channel_order=channel_order,
                weights=weights,
                head=head,
                artefacts=artefacts or (),
                runtimes=[name for names in runtimes or () for name in names.split(",")],
                progress=progress,
            )
            if locate:
                locations = list(_locate(folder, report, progress))
        findings = Findings(
            name,
            report,
            None if before is None else regressions(report, before, regression_factor),
            _plots(locations),
            signature,
            about(folder),
            network_plot(folder),
        )
    if "-" not in map(str, (junit, markdown, html)):  # else stdout is the report's
        _print(findings, locations, output)
    write_reports(findings, junit=junit, markdown=markdown, html=html)
    findings.require_pass(f"{findings.wrong_with(str(folder))} not to be trusted")
    if strict and findings.report.not_run:
        raise StorageError(
            f"{folder} passes as far as it was judged, but {'; '.join(findings.report.not_run)}; "
            "leave out --strict to accept that."
        )


def _plots(locations: Sequence[Location]) -> list[str]:
    if not locations:
        return []
    from converters.reports.error_plot import error_by_depth_svg  # which imports torch

    return [error_by_depth_svg(location) for location in locations if location.modules]


def _print(findings: Findings, locations: Sequence[Location], output: Output) -> None:
    if findings.report.verdicts:
        output.result(report_table(findings.report))
    output.result(*map(location_table, locations))
    if findings.signature is not None and findings.signature.passed:
        output.result(f"The signature holds for all {findings.signature.files} files.")
    if findings.report.verdicts:
        output.result(outcome_line(findings))
    record = findings.to_dict()
    if locations:
        record["locations"] = [location.to_dict() for location in locations]
    output.record(record)


def _locate(path: Path, report: Report, progress: Steps) -> Iterator[Location]:
    """Look into each artefact, on the batch that came nearest to a fail."""
    from converters.folder.folder import ConvertedFolder
    from converters.formats.registry import FORMATS
    from converters.parity.locate.location import locate
    from converters.parity.verify import fresh_inputs

    folder = ConvertedFolder(path)
    inputs = fresh_inputs(folder)
    verdicts = {verdict.artefact: verdict for verdict in report.verdicts}
    for kind, form in FORMATS.items():
        verdict = verdicts.get(form.file_name)
        is_there = form.is_in(folder.path)  # else it is another's of the name
        if verdict is None or form.intermediates is None or not is_there:
            continue
        progress.step(f"locating in {form.title}")
        measured = [m for m in verdict.measurements if m.batch in inputs]
        worst = max(measured, key=lambda m: m.share, default=None)
        pixels = inputs[worst.batch if worst else "native"]
        yield locate(folder, kind, folder.path / form.file_name, pixels)


def location_table(location: Location) -> Table:
    """The modules around the culprit, then how its error travels to the outputs.

    Without a culprit, the modules whose errors are the largest given their own input.
    """
    from converters.parity.locate.module_errors import BAND

    meaning = (
        "x PyTorch: the error in units of float32 PyTorch's at this depth; x, own input: what the "
        f"module itself adds, in units of honest rounding, to {BAND:g} if right (docs/parity.md)"
    )
    table = Table(title=_title(location), caption=meaning, title_justify="left")
    table.caption_justify = "left"
    table.add_column("depth", justify="right")
    table.add_column("module", overflow="fold")
    for column in ("RMS error", "x PyTorch", "x, own input"):
        table.add_column(column, justify="right")
    depth = -1
    for module in _shown(location):
        if module.depth > depth + 1:
            table.add_row("...", "", "", "", "")
        table.add_row(*_row(module, location.culprit))
        depth = module.depth
    return table


def _title(location: Location) -> Text:
    if location.culprit is None:
        return Text(f"{location.artefact}: {location.why}")
    where = f", most in channel {location.channel}" if location.channel is not None else ""
    title = Text(f"{location.artefact} goes wrong at ")
    title.append(location.culprit, style="bold red")
    return title.append(f"{where}: {location.why}")


def _shown(location: Location) -> list[ModuleError]:
    modules = location.modules
    depth = next((m.depth for m in modules if m.module == location.culprit), None)
    if depth is None:
        worst = sorted(modules, key=lambda m: m.local or 0, reverse=True)[: _BEFORE + _AFTER]
        return sorted(worst, key=lambda m: m.depth)
    near = modules[max(0, depth - _BEFORE) : depth + _AFTER + 1]
    behind = modules[depth + _AFTER + 1 :]
    blocks = [module for module in behind if _BLOCK.search(module.module)]
    return [*near, *_evenly(blocks), *behind[-1:]]


def _evenly(modules: Sequence[ModuleError]) -> list[ModuleError]:
    """A few of them, the last among them."""
    step = max(1, -(-len(modules) // _TRAVELS))
    return list(modules[::-1][::step][::-1])


def _row(module: ModuleError, culprit: str | None) -> list[RenderableType]:
    style = "bold red" if module.module == culprit else ""
    local = "-" if module.local is None else f"{module.local:.3g}"
    return [
        str(module.depth),
        Text(module.module, style=style),
        f"{module.errors.rms:.2e}",
        f"{module.ratio:.3g}",
        Text(local, style="bold red" if module.at_fault else ""),
    ]


def write_reports(findings: Findings, **targets: Path | None) -> None:
    """Write the forms that were asked for; each file appears whole or not at all.

    Args:
        findings: What was found.
        targets: Where ``junit``, ``markdown`` and ``html`` go; ``-`` is stdout.

    Raises:
        StorageError: If a file cannot be written.
    """
    from converters.reports.html import html
    from converters.reports.junit import junit
    from converters.reports.markdown import markdown

    forms = {"junit": junit, "markdown": markdown, "html": html}
    for name, target in targets.items():
        if target is not None:
            write_text(target, forms[name](findings))
