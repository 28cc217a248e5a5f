"""`regnet inspect --security`: what a file would have done, and where."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from converters.checkpoint.pickle_audit import Judgement
from converters.checkpoint.security import inspect_security
from converters.cli.tables import human_size

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from converters.checkpoint.pickle_audit import Named, PickleAudit
    from converters.checkpoint.security import SecurityReport
    from converters.cli.console import Output

_MOST = 50
"""Names of one pickle that are shown; ``--json`` has all."""

_WORDS = {
    Judgement.PLAIN: "only holds data",
    Judgement.FOREIGN: "runs code of its package",
    Judgement.UNSAFE: "runs code",
}


def print_security(path: Path, output: Output) -> None:
    """Print what is dangerous in a file.

    Raises:
        UnsafeInputError: At the end, if it would run code in other programs.
        InputError: If it cannot be followed.
    """
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
    names = sorted(pickle.names, key=lambda named: named.judgement is Judgement.PLAIN)
    for named in names[:_MOST]:
        style = "" if named.judgement is Judgement.PLAIN else "bold red"
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
    if named.judgement is Judgement.PLAIN:
        return f"{named.used} times" if named.used > 1 else "once"
    first = named.uses[0]
    more = f", and {named.used - 1} times more" if named.used > 1 else ""
    return f"{first.instruction} at byte {first.position}: {first.arguments}{more}"
