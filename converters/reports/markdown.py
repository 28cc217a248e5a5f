"""GitHub-flavoured Markdown, for a step's summary or a comment."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

from converters import errors
from converters.reports.row import COLUMNS, MEANING, Row, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings

_SPECIAL = re.compile(r"([\\`*_\[\]<>|~#&!@$])")
"""What GitHub takes for markup; ``$`` begins a formula."""

_LINK = re.compile(r"(?<=:)/(?=/)|(?<=www)\.", re.IGNORECASE)
"""What makes a bare address a link; an escaped slash or dot does not."""

_START = re.compile(r"^(\d{0,9})([-+.)])(?=\s)")
"""What begins a list, within a list as well."""

_MOST = 20
"""Clauses in a list: a summary may have 1 MiB, a network has hundreds of tensors."""


def markdown(findings: Findings) -> str:
    """The outcome, what is wrong, a table of verdicts, and of each failed one the measurements."""
    mark = "✅" if findings.passed else "❌"
    blocks = [f"## {mark} {escaped(findings.folder)}: {escaped(findings.headline)}"]
    if findings.about:
        facts = [f"{topic}: {words}" for topic, words in findings.about.items()]
        blocks.append("\n".join(_list(facts)))
    if findings.failures:
        blocks.append("\n".join(_list(findings.failures)))
    if findings.remarks:
        blocks.append("\n".join(_list(findings.remarks)))
    verdicts = findings.report.verdicts
    if verdicts:
        blocks += [
            _table(COLUMNS, map(Row.of, verdicts)),
            MEANING,
        ]
    blocks += [_details(verdict) for verdict in verdicts if not verdict.passed]
    return "\n\n".join(blocks) + "\n"


def escaped(text: str) -> str:
    """Text that Markdown shows as it is, on one line, in a table or outside."""
    line = _SPECIAL.sub(r"\\\1", errors.escaped(text))
    line = _START.sub(r"\1\\\2", _LINK.sub(r"\\\g<0>", line))
    return f"&#32;{line[1:]}" if line.startswith(" ") else line  # four would begin a block of code


def _list(clauses: Sequence[str]) -> Iterator[str]:
    yield from (f"- {escaped(clause)}" for clause in clauses[:_MOST])
    if len(clauses) > _MOST:
        yield f"- and {len(clauses) - _MOST} more"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([escaped(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _details(verdict: Verdict) -> str:
    """A failed verdict's measurements and wrong tensors, folded away."""
    rows = [
        [m.batch, m.output, number(m.rms_ratio), number(m.max_ratio), m.failure or "pass"]
        for m in verdict.measurements
    ]
    wrong = verdict.tensors.wrong if verdict.tensors else ()
    title = html.escape(errors.escaped(verdict.artefact))  # between tags Markdown's do not count
    return "\n\n".join(
        [
            "<details>",
            f"<summary>{title}</summary>",
            _table(("batch", "output", "RMS ratio", "largest ratio", "verdict"), rows),
            *(["\n".join(_list(wrong))] if wrong else []),
            "</details>",
        ]
    )
