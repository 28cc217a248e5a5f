"""`regnet compare`: whether two networks are the same, and what differs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output, require_one_on_stdout, write_text
from converters.cli.options import From, Head, Images, Json, Order, Plot, Quiet, Weights
from converters.cli.tables import facts_table
from converters.errors import escaped
from converters.reports.drawing import GREEN, RED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from converters.parity.compare.comparison import Comparison
    from converters.parity.compare.outputs import Distance
    from converters.parity.compare.weights import Weights as ComparedWeights
    from converters.parity.metrics import TopK

_SHOWN = 10
"""Tensors and fields listed; --json has them all."""


def compare_command(
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A checkpoint, a converted folder or an artefact.", show_default=False
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="Likewise.", show_default=False)],
    images: Images = None,
    framework: From = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    plot: Plot = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Say whether two networks are the same, whatever each is; exit status 1 if they are not.

    Example: regnet compare RegNetY-4.0GF.pyth model.onnx
    """
    from converters.jobs.compare import compare

    output = Output(as_json, quiet)
    require_one_on_stdout(plot, as_json=as_json)
    with output.progress() as progress:
        comparison = compare(
            first,
            second,
            images=images or (),
            framework=framework,
            channel_order=channel_order,
            weights=weights,
            head=head,
            progress=progress,
        )
    if plot is not None:
        write_text(plot, comparison_plot(comparison))
    if str(plot) != "-":
        output.result(*comparison_tables(comparison))
    output.record(comparison.to_dict())
    comparison.require_same()


def comparison_tables(comparison: Comparison) -> list[RenderableType]:
    """The sides and what decided, then the numbers, then what is listed one by one."""
    tables: list[RenderableType] = [_summary(comparison)]
    if comparison.distances:
        tables.append(_distances(comparison.distances))
    if comparison.weights.differences:
        tables.append(_listed("tensors that differ", comparison.weights.differences))
    if comparison.fields:
        tables.append(_fields(comparison))
    return tables


def comparison_plot(comparison: Comparison) -> str:
    """A bar for each output on each batch, and for each artefact in a folder: its RMS ratio."""
    from converters.parity.verdict import RMS_LIMIT
    from converters.reports.bar_chart import Bar, bar_chart
    from converters.reports.row import number

    groups: dict[str, list[Bar]] = {}
    plain = {(each.batch, each.output): each for each in comparison.distances}
    for m in comparison.verdict.measurements if comparison.verdict else ():
        distance = plain.get((m.batch, m.output))
        words = number(m.rms_ratio) + (f", {_plainly(distance)}" if distance else "")
        bar = Bar(m.batch, m.rms_ratio, words, RED if m.failure else GREEN)
        groups.setdefault(m.output, []).append(bar)
    for each in comparison.artefacts:
        ratio, outcome = each.verdict.worst("rms_ratio"), each.verdict.outcome
        colour = GREEN if each.verdict.passed else RED
        bar = Bar(
            f"{each.side}'s {each.verdict.artefact}", ratio, f"{number(ratio)}, {outcome}", colour
        )
        groups.setdefault("artefacts, by the weights of their folder", []).append(bar)
    lines = [
        f"{letter}: {side.name}, {side.title}"
        for letter, side in (("A", comparison.a), ("B", comparison.b))
    ]
    lines.append(f"tensors: {_weights(comparison.weights)}")
    if comparison.verdict is None:
        lines.append(f"outputs: not compared, {comparison.oracle}")
    axis = "RMS error of the outputs, in units of an honest computation's own"
    title = "A and B are the same network" if comparison.same else "A and B differ"
    return bar_chart(title, lines, groups, axis, limit=RMS_LIMIT)


def _plainly(distance: Distance) -> str:
    """How far the outputs are apart, beside the ratio."""
    apart = "equal" if distance.sqnr_db is None else f"{distance.sqnr_db:.0f} dB"
    return f"{apart}, top-1 {_kept(distance.top1)}" if distance.top1 else apart


def _summary(comparison: Comparison) -> Table:
    verdict = comparison.verdict
    rows = [
        ("A", f"{comparison.a.name}, {comparison.a.title}"),
        ("B", f"{comparison.b.name}, {comparison.b.title}"),
        ("tensors", _weights(comparison.weights)),
        ("oracle", comparison.oracle),
    ]
    if verdict:
        rows.append((f"{verdict.artefact}'s outputs", f"{verdict.reason} ({verdict.runtime})"))
    rows.append(("fields", _field_count(comparison)))
    rows += [
        (f"{each.side}'s {each.verdict.artefact}", f"{each.verdict.outcome}: {each.verdict.reason}")
        for each in comparison.artefacts
    ]
    rows += [("not compared", clause) for clause in comparison.not_compared]
    same, different = Text("same network", "green"), Text("DIFFERENT", "bold red")
    facts = facts_table(rows)
    facts.add_row(Text("verdict", "bold"), same if comparison.same else different)
    return facts


def _weights(weights: ComparedWeights) -> str:
    counts = [
        (weights.identical, "identical"),
        (weights.recomputed, "folded or cast, as float64 gives them"),
        (len(weights.differences), "different"),
        (weights.counters, "counters of batches different, which does not matter"),
    ]
    parts = [f"{count} {words}" for count, words in counts if count]
    return "; ".join([*parts, *([weights.note] if weights.note else [])])


def _field_count(comparison: Comparison) -> str:
    if comparison.fields is None:
        return "none that both state"
    count = len(comparison.fields)
    return f"{count} different, which does not decide" if count else "equal"


def _distances(distances: Sequence[Distance]) -> Table:
    table = Table(title="B's outputs against A's", title_justify="left")
    table.add_column("batch")
    table.add_column("output")
    for column in ("largest", "RMS", "relative", "SQNR", "top-1", "top-5", "proven"):
        table.add_column(column, justify="right")
    for distance in distances:
        table.add_row(
            distance.batch,
            distance.output,
            f"{distance.errors.max:.2e}",
            f"{distance.errors.rms:.2e}",
            f"{distance.relative:.2e}",
            "equal" if distance.sqnr_db is None else f"{distance.sqnr_db:.1f} dB",
            _kept(distance.top1),
            _kept(distance.top5),
            f"{distance.top1.proven}/{distance.top1.images}" if distance.top1 else "-",
        )
    return table


def _kept(classes: TopK | None) -> str:
    return f"{classes.agree}/{classes.images}" if classes else "-"


def _listed(title: str, clauses: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=None, show_header=False, pad_edge=False)
    for clause in clauses[:_SHOWN]:
        table.add_row(Text(clause))
    if len(clauses) > _SHOWN:
        table.add_row(f"... and {len(clauses) - _SHOWN} more; --json lists all")
    return table


def _fields(comparison: Comparison) -> Table:
    table = Table("file", "field", "A", "B", box=None, pad_edge=False)
    for field in comparison.fields or ():
        values = (escaped(value or "-") for value in (field.a, field.b))
        table.add_row(field.file, escaped(field.field), *map(Text, values))
    return table
