"""What commands print for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from converters.errors import escaped, for_shell
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from rich.console import Console, ConsoleOptions, RenderableType, RenderResult

    from converters.parity.report import Report
    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings
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
    from converters.families.manifest import title_of
    from regnet.design_space import complexity

    source = inspection.source
    config = source.config
    cost = complexity(config, source.transform.crop)
    classes = f"{config.num_labels} classes" if source.has_classifier else "no classifier"
    grouped = config.stage_groups_widths
    groups = _join(grouped if len(set(grouped)) > 1 else grouped[:1])
    rows = [
        ("file", f"{inspection.path.name}, {human_size(inspection.size)}, {inspection.container}"),
        ("framework", source.framework),
        ("network", f"{title_of(config)}, {classes}"),
        (
            "stages",
            (
                f"depths {_join(config.depths)}, widths {_join(config.hidden_sizes)}, "
                f"{groups} channels per group"
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


_SHOWN = ("file", "runtime", "RMS ratio", "top-1", "proven", "tensors", "verdict")
"""Columns of the table of verdicts."""

_NUMBERS = {"RMS ratio", "top-1", "proven", "tensors"}

REMEDIES = "docs/troubleshooting.md"
"""What a FAIL means, and what to do first."""

_BELOW_THE_NAME = ("tensors", "runtime", "proven", "top-1")
"""Those that go there where the screen is too narrow for all, the first ones first."""


def report_table(report: Report) -> Group:
    """One row per artefact: its errors in units of an honest computation's, and the verdict.

    Below it the number that decided each, and what the words mean.
    """
    from converters.reports.row import MEANING, decided_by

    reasons = (f"{verdict.artefact}, {decided_by(verdict)}" for verdict in report.verdicts)
    clauses = [f"{clause}." for clause in report.not_run]
    clauses += (f"Not checked: {clause}." for clause in report.unchecked)
    return Group(
        _Verdicts(report.verdicts),
        *(Text(reason, style="dim") for reason in reasons),
        *([Text(MEANING, style="dim")] if report.verdicts else []),
        *(Text(escaped(clause), "yellow") for clause in clauses),
    )


def outcome_line(findings: Report | Findings, then: str = "") -> Text:
    """How many verdicts are what, for example ``3 of 3 pass``, and what to do with that.

    Args:
        findings: The verdicts.
        then: What to do if all let it pass.
    """
    if findings.passed:
        return Text.assemble((escaped(findings.tally), "bold green"), escaped(then))
    return Text.assemble((escaped(findings.tally), "bold red"), f"; what to do: {REMEDIES}")


class _Verdicts:
    """The table of verdicts: as many columns as leave room for whole file names."""

    def __init__(self, verdicts: Iterable[Verdict]) -> None:
        self._rows = [(_cells(verdict), _style(verdict)) for verdict in verdicts]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        columns = list(_SHOWN)
        for name in _BELOW_THE_NAME:
            if self._width(columns) > options.max_width:
                columns.remove(name)
        yield self._table(columns)

    def _width(self, columns: Sequence[str]) -> int:
        rows = [dict.fromkeys(_SHOWN, ""), *(cells for cells, _ in self._rows)]
        widest = (
            max(cell_len(text) for text in (name, *(r[name] for r in rows))) for name in columns
        )
        return sum(widest) + 3 * len(columns) + 1

    def _table(self, columns: Sequence[str]) -> Table:
        title = "Verification against the float64 oracle"
        table = Table(title=title, title_justify="left")
        for name in columns:
            side: Literal["left", "right"] = "right" if name in _NUMBERS else "left"
            table.add_column(name, justify=side, overflow="fold", no_wrap=name != "file")
        for cells, style in self._rows:
            shown: dict[str, RenderableType] = {name: Text(cells[name]) for name in columns}
            below = (Padding(Text(line), (0, 0, 0, 2)) for line in _below(cells, columns))
            shown |= {"file": Group(Text(cells["file"]), *below)}
            shown |= {"verdict": Text(cells["verdict"], style)}
            table.add_row(*shown.values())
        return table


def _cells(verdict: Verdict) -> dict[str, str]:
    from converters.reports.row import Row, best_class

    row = Row.of(verdict)
    return {
        "file": row.artefact,
        "runtime": row.runtime.removesuffix(f", {COMPUTED}"),
        "RMS ratio": row.rms_ratio,
        "top-1": best_class(verdict, "agree"),
        "proven": best_class(verdict, "proven"),
        "tensors": row.tensors,
        "verdict": row.outcome,
    }


def _style(verdict: Verdict) -> str:
    if not verdict.passed:
        return "bold red"
    return "yellow" if verdict.not_run is not None else "green"


def _below(cells: Mapping[str, str], columns: Sequence[str]) -> list[str]:
    """The lines below a file's name: what has no column of its own."""
    rest = {name: cells[name] for name in _SHOWN if name not in columns and cells[name] != "-"}
    classes = [f"{name} {rest.pop(name)}" for name in ("top-1", "proven") if name in rest]
    return [*rest.values(), *([", ".join(classes)] if classes else [])]


def to_verify(folder: Path) -> str:
    """The command that gives the verdict again, for a shell."""
    return f"regnet verify {for_shell(folder)}"


def files_table(folder: Path) -> Table:
    """The files of a folder with their sizes."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return sizes_table((path.relative_to(folder).as_posix(), path.stat().st_size) for path in files)


def sizes_table(sizes: Iterable[tuple[str, int]]) -> Table:
    """Names with sizes in bytes."""
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, nbytes in sizes:
        table.add_row(name, human_size(nbytes))
    return table
