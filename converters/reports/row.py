"""One verdict in words: what every table of verdicts, for people or programs, lays out.

The plainest of them, for an assertion or a log, is here.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from converters.errors import escaped
from converters.parity.verdict import MAX_LIMIT, PROVEN, RMS_LIMIT

if TYPE_CHECKING:
    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings

COLUMNS = (
    *("file", "runtime", "verdict", "RMS ratio", "largest ratio"),
    *("classes kept", "classes proven", "tensors", "decided by"),
)
"""What the fields of a row are called."""


MEANING = (
    f"RMS ratio: the error in units of an honest computation's own, limit {RMS_LIMIT:g} (largest: "
    f"{MAX_LIMIT:g}); proven: images whose class no such error can change (docs/glossary.md)."
)
"""What tables of verdicts say below them."""


class Row(NamedTuple):
    """A verdict under :data:`COLUMNS`, each cell one line; ``-`` where there is nothing.

    Attributes:
        artefact: File name.
        runtime: What ran it and in which precision.
        outcome: ``pass``, ``FAIL`` or ``not run``.
        rms_ratio: The largest of all batches and outputs, likewise ``max_ratio``.
        kept: To how many images it gives the oracle's classes: ``top-1 4/4, top-5 3/4``.
        proven: Of how many no error of the measured size could have changed them.
        tensors: Its certificate in a few words, and that its graph was proven, or what of the
            artefact was not compared.
        reason: The number that decided.
    """

    artefact: str
    runtime: str
    outcome: str
    rms_ratio: str
    max_ratio: str
    kept: str
    proven: str
    tensors: str
    reason: str

    @classmethod
    def of(cls, verdict: Verdict) -> Row:
        """Put a verdict into words."""
        row = (
            verdict.artefact,
            verdict.ran,
            verdict.outcome,
            number(verdict.worst("rms_ratio")),
            number(verdict.worst("max_ratio")),
            _classes(verdict, "agree"),
            _classes(verdict, "proven"),
            _tensors(verdict),
            verdict.reason,
        )
        return cls(*map(escaped, row))


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
        lines.append(MEANING)
    clauses = (*findings.failures, *findings.remarks)
    lines += [f"- {escaped(clause)}" for clause in clauses]
    return "\n".join(lines)


def number(value: float | None) -> str:
    """Three digits; ``-`` for what could not be measured."""
    return "-" if value is None or not math.isfinite(value) else f"{value:.3g}"


def decided_by(verdict: Verdict) -> str:
    """The number that decided, and what of the graph: for a table that shows no tensors."""
    graph = _graph(verdict)
    return f"{verdict.reason}; {graph}" if graph else verdict.reason


def best_class(verdict: Verdict, what: str) -> str:
    """How many images keep their best class (``agree``) or have it ``proven``, such as ``4/4``."""
    return _images(verdict, 1, what) or "-"


def _classes(verdict: Verdict, what: str) -> str:
    counts = {k: _images(verdict, k, what) for k in (1, 5)}
    return ", ".join(f"top-{k} {count}" for k, count in counts.items() if count) or "-"


def _images(verdict: Verdict, k: int, what: str) -> str:
    """Of how many images ``what`` is true of the ``k`` best classes; empty where it is of none."""
    found = [top for m in verdict.measurements if (top := getattr(m, f"top{k}"))]
    counts = [sum(getattr(top, count) for top in found) for count in (what, "images")]
    return "/".join(map(str, counts)) if found else ""


def _tensors(verdict: Verdict) -> str:
    proof = verdict.tensors
    if proof is None:
        return _left_out(verdict) or "-"
    within = f" within {proof.ulps} ulp" if proof.ulps else ""
    parts = [
        f"{proof.identical} identical" if proof.identical else "",
        f"{proof.recomputed} recomputed{within}" if proof.recomputed else "",
        f"{len(proof.wrong)} wrong" if proof.wrong else "",
    ]
    return ", ".join(filter(None, [", ".join(filter(None, parts)) or "none", _graph(verdict)]))


def _graph(verdict: Verdict) -> str:
    """Whether its graph was proven or compared with nothing, where there is a word to be said."""
    return PROVEN if verdict.graph == PROVEN else _left_out(verdict)


def _left_out(verdict: Verdict) -> str:
    return f"{verdict.not_compared} not compared" if verdict.not_compared else ""
