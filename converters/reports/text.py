"""Plain text, for an assertion or a log."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import escaped
from converters.reports.row import COLUMNS, Row

if TYPE_CHECKING:
    from converters.reports.findings import Findings


def as_text(findings: Findings) -> str:
    """The outcome, the table of verdicts, and what is wrong; without a line end at its end."""
    lines = [f"{escaped(findings.folder)}: {findings.headline}"]
    rows = [COLUMNS, *map(Row.of, findings.report.verdicts)]
    if len(rows) > 1:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
    clauses = (*findings.failures, *findings.remarks)
    lines += [f"- {escaped(clause)}" for clause in clauses]
    return "\n".join(lines)
