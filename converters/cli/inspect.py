"""`regnet inspect`: what a checkpoint is, and what a file would have done."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output, require_one_on_stdout, write_text
from converters.cli.options import From, Head, Json, Order, Plot, Quiet, Source, Weights
from converters.cli.tables import human_size, inspection_table, plan_table
from converters.errors import InputError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from converters.checkpoint.pickle_audit import Named, PickleAudit
    from converters.checkpoint.security import SecurityReport
    from converters.weights.inspection import Inspection

_MOST = 50
"""Names of one pickle that are shown; ``--json`` has all."""

_WORDS = {
    "plain": "only holds data",
    "foreign": "runs code of its package",
    "unsafe": "runs code",
}
"""What each judgement on a name means to other programs."""


def inspect_command(
    source: Source,
    framework: From = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="List every tensor.")] = False,
    security: Annotated[
        bool,
        typer.Option(
            "--security",
            help="Say what code the file would run in other programs; exit status 3 if any.",
        ),
    ] = False,
    plot: Plot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say what a checkpoint is: framework, architecture, what is in it. No weights are read.

    Example: regnet inspect RegNetY-4.0GF.pyth
    """
    from converters.jobs.inspect import inspect

    output = Output(as_json, quiet)
    require_one_on_stdout(plot, as_json=as_json)
    if security:
        if plot is not None:
            raise InputError(
                "--security reads no network, so there is none to draw; leave --plot out."
            )
        _print_security(source, output)
        return
    with output.progress() as progress:
        inspection = inspect(
            source,
            framework=framework,
            channel_order=channel_order,
            weights=weights,
            head=head,
            progress=progress,
        )
    if plot is not None:
        write_text(plot, network_plot(inspection))
    if str(plot) != "-":
        print_inspection(inspection, output, plan=plan)


def print_inspection(inspection: Inspection, output: Output, *, plan: bool) -> None:
    """Print what a checkpoint is, and with ``plan`` every tensor."""
    output.result(inspection_table(inspection), *([plan_table(inspection)] if plan else ()))
    output.warn(inspection.source.decisions)
    if output.as_json:
        output.record(inspection_record(inspection))


def network_plot(inspection: Inspection) -> str:
    """The network as SVG, with its cost at the size of image that it was trained for."""
    from converters.families.manifest import title_of
    from converters.reports.network_plot import network_svg

    source = inspection.source
    size = source.transform.crop
    title = title_of(source.config)
    return network_svg(source.config, title, size, classifier=source.has_classifier)


def inspection_record(inspection: Inspection) -> dict[str, Any]:
    """What ``--json`` prints of a checkpoint and of the plan for it."""
    from converters.folder.record import architecture_record

    source = inspection.source
    return {
        "file": inspection.path.name,
        "size": inspection.size,
        "container": inspection.container,
        "framework": source.framework,
        "architecture": architecture_record(inspection),
        "channel_order": source.channel_order,
        "decisions": [asdict(decision) for decision in source.decisions],
        "plan": [
            {
                "source": step.source_name,
                "target": step.target.name,
                "shape": list(step.target.shape),
                "action": step.action,
            }
            for step in inspection.plan.steps
        ],
        "skipped": dict(inspection.plan.skipped),
    }


def _print_security(path: Path, output: Output) -> None:
    """Print what is dangerous in a file.

    Raises:
        UnsafeInputError: At the end, if it would run code in other programs.
        InputError: If it cannot be followed.
    """
    from converters.checkpoint.security import inspect_security

    report = inspect_security(path)
    output.result(*_tables(report))
    output.record(report.to_dict())
    report.require_harmless()


def _tables(report: SecurityReport) -> list[RenderableType]:
    shown: list[RenderableType] = [
        Text(f"{report.name}, {human_size(report.size)}, {report.kind}"),
        *(Text(f"note: {note}") for note in report.notes),
    ]
    for pickle in report.pickles:
        shown += _pickle_tables(pickle)
    if report.harmless:
        shown.append(Text("Nothing in it runs code in programs that open it.", style="green"))
    return shown


def _pickle_tables(pickle: PickleAudit) -> list[RenderableType]:
    """One row for each name: where, what it is, what is done with it; those that run code first."""
    table = Table("byte", "name", "to other programs", "used", title_justify="left")
    table.title = Text(f"{pickle.place}: what it names")
    names = sorted(pickle.names, key=lambda named: named.judgement == "plain")
    for named in names[:_MOST]:
        style = "" if named.judgement == "plain" else "bold red"
        word = Text(_WORDS[named.judgement], style=style)
        table.add_row(str(named.position), Text(named.name), word, Text(_used(named)))
    shown: list[RenderableType] = [table] if names else []
    if len(names) > _MOST:
        shown.append(Text(f"and {len(names) - _MOST} more names"))
    if pickle.lost is not None:
        shown.append(Text(f"{pickle.place}: cannot be followed behind {pickle.lost}"))
    return shown


def _used(named: Named) -> str:
    """``REDUCE at byte 240: ('touch x')``, of plain names only how often."""
    if not named.used:
        return "named only"
    if named.judgement == "plain":
        return f"{named.used} times" if named.used > 1 else "once"
    first = named.uses[0]
    more = f", and {named.used - 1} times more" if named.used > 1 else ""
    return f"{first.instruction} at byte {first.position}: {first.arguments}{more}"
