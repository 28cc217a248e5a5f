"""What commands print for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from converters.errors import escaped
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from rich.console import RenderableType

    from converters.parity.report import Report
    from converters.parity.verdict import Verdict
    from converters.weights.inspection import Inspection


def human_size(nbytes: int) -> str:
    """Bytes in decimal units, as file managers show them."""
    if nbytes < 1000:  # noqa: PLR2004
        return f"{nbytes} B"
    size = float(nbytes)
    for unit in ("kB", "MB"):
        size /= 1000
        if size < 1000:  # noqa: PLR2004
            return f"{size:.1f} {unit}"
    return f"{size / 1000:.2f} GB"


def inspection_table(inspection: Inspection) -> Table:
    """What a checkpoint is, what was decided, and what a conversion will do."""
    from regnet.design_space import complexity

    source = inspection.source
    config = source.config
    cost = complexity(config, source.transform.crop)
    name = inspection.network_name or f"a RegNet{config.layer_type.upper()} of no published size"
    classes = f"{config.num_labels} classes" if source.has_classifier else "no classifier"
    rows = [
        ("file", f"{inspection.path.name}, {human_size(inspection.size)}, {inspection.container}"),
        ("framework", source.framework),
        ("network", f"{name}, {classes}"),
        (
            "stages",
            (
                f"depths {_join(config.depths)}, widths {_join(config.hidden_sizes)}, "
                f"{config.groups_width} channels per group"
            ),
        ),
        (
            "cost",
            (
                f"{cost.parameters:,} parameters, {cost.flops / 1e9:.3f} GFLOPs, "
                f"{cost.activations / 1e6:.3f} M activations at {source.transform.crop} pixels"
            ),
        ),
        *((d.topic, f"{d.value} ({d.reason})") for d in source.decisions),
        ("plan", _plan_summary(inspection)),
        *((f"left out: {key}", reason) for key, reason in inspection.plan.skipped.items()),
    ]
    return facts_table(rows)


def facts_table(facts: Iterable[tuple[str, str]]) -> Table:
    """Topics, and what there is to say of each."""
    table = Table.grid(padding=(0, 2))
    for topic, value in facts:
        table.add_row(Text(escaped(topic), style="bold"), Text(escaped(value)))
    return table


def _join(values: Sequence[int]) -> str:
    return " ".join(map(str, values))


def _plan_summary(inspection: Inspection) -> str:
    actions = Counter(step.action for step in inspection.plan.steps)
    counts = ", ".join(f"{action} {count}" for action, count in actions.items())
    return f"{len(inspection.plan.steps)} tensors, {human_size(inspection.plan.nbytes)}: {counts}"


def plan_table(inspection: Inspection) -> Table:
    """Every tensor: the source's name, the reference's, shape and action."""
    table = Table("source", "target", "shape", "action", box=None, pad_edge=False)
    for step in inspection.plan.steps:
        shape = "x".join(map(str, step.target.shape)) or "scalar"
        table.add_row(step.source_name or "-", step.target.name, shape, step.action)
    return table


def report_table(report: Report) -> Group:
    """One row per artefact: its errors in units of an honest computation's, and the verdict.

    Below it the number that decided each.
    """
    from converters.reports.row import decided_by

    title = "Verification against the float64 oracle"
    table = Table("file", "runtime", title=title, title_justify="left")
    for column in ("RMS ratio", "top-1", "proven", "tensors"):
        table.add_column(column, justify="right")
    table.add_column("verdict")
    for verdict in report.verdicts:
        table.add_row(*_report_row(verdict))
    reasons = (f"{verdict.artefact}, {decided_by(verdict)}" for verdict in report.verdicts)
    clauses = [f"{clause}." for clause in report.not_run]
    clauses += (f"Not checked: {clause}." for clause in report.unchecked)
    return Group(
        table,
        *(Text(reason, style="dim") for reason in reasons),
        *(Text(escaped(clause), "yellow") for clause in clauses),
    )


def _report_row(verdict: Verdict) -> list[RenderableType]:
    from converters.reports.row import Row, best_class

    row = Row.of(verdict)
    style = (
        {"pass": "green", "not run": "yellow"}[verdict.outcome] if verdict.passed else "bold red"
    )
    return [
        Text(row.artefact),
        Text(row.runtime.removesuffix(f", {COMPUTED}")),
        row.rms_ratio,
        best_class(verdict, "agree"),
        best_class(verdict, "proven"),
        Text(row.tensors),
        Text(row.outcome, style=style),
    ]


def files_table(folder: Path) -> Table:
    """The files of a folder with their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sizes_table((str(path.relative_to(folder)), path.stat().st_size) for path in files)


def sizes_table(sizes: Iterable[tuple[str, int]]) -> Table:
    """Names with sizes in bytes."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, nbytes in sizes:
        table.add_row(name, human_size(nbytes))
    return table
