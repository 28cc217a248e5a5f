"""One self-contained HTML page: no script, nothing fetched, every text escaped.

It is escaped by construction: text becomes markup only through :func:`tag`.
"""

from __future__ import annotations

import math
from importlib.resources import files
from typing import TYPE_CHECKING

from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT
from converters.reports.markup import Markup, tag
from converters.reports.row import COLUMNS, MEANING, Row, number

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from converters.parity.verdict import Measurement, Verdict
    from converters.reports.findings import Findings

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Whatever slipped in could neither run nor load anything."""

_BAR_LIMIT = 80
_BAR_WIDTH = 100
"""In units of the picture. Linear up to the limit, and a quarter beyond it: by how much a ratio is
too large the number beside it says."""


def html(findings: Findings) -> str:
    """The outcome, the verdicts, each artefact's ratios against their limits, and its tensors."""
    title = f"{findings.folder}: {findings.headline}"
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(files(__package__).joinpath("report.css").read_text("utf-8"))),
    )
    body = tag(
        "body",
        _outcome(findings),
        *([_summary(findings)] if findings.report.verdicts else []),
        *(_artefact(verdict) for verdict in findings.report.verdicts if _has_details(verdict)),
        *([_plots("Error by depth", findings.locations)] if findings.locations else []),
        *([_plots("Network", [findings.network])] if findings.network else []),
        _legend(),
    )
    return f"<!DOCTYPE html>\n{tag('html', head, body, lang='en')}\n"


def _outcome(findings: Findings) -> Markup:
    return tag(
        "header",
        tag("p", "regnet verify", class_="eyebrow"),
        tag("h1", findings.folder, " ", _badge(findings.outcome, passed=findings.passed)),
        tag("p", findings.tally, class_="lead"),
        _facts(findings.about),
        _list(findings.failures),
        _list(findings.remarks, "open"),
    )


def _summary(findings: Findings) -> Markup:
    rows = (_row(verdict) for verdict in findings.report.verdicts)
    return tag("section", tag("h2", "Verdicts"), _table("summary", COLUMNS, rows))


def _row(verdict: Verdict) -> Markup:
    cells = dict(zip(COLUMNS, Row.of(verdict), strict=True))
    cells["verdict"] = _verdict_badge(verdict)
    file = tag("th", cells.pop("file"), scope="row")
    return tag("tr", file, *(tag("td", cell, data_label=name) for name, cell in cells.items()))


def _has_details(verdict: Verdict) -> bool:
    """Whether there is more to show than stands in the table of verdicts."""
    return verdict.tensors is not None or any(
        m.rms_ratio is not None or m.failure for m in verdict.measurements
    )


def _artefact(verdict: Verdict) -> Markup:
    facts = {"runtime": verdict.ran, "decided by": verdict.reason}
    if verdict.not_compared:
        facts["not compared"] = verdict.not_compared
    if verdict.graph:
        facts["graph"] = verdict.graph.removeprefix("graph ")
    return tag(
        "section",
        tag("h2", verdict.artefact, " ", _verdict_badge(verdict)),
        _facts(facts),
        _measurements(verdict.measurements),
        _certificate(verdict),
    )


def _facts(facts: Mapping[str, str]) -> Markup:
    pairs = (tag("div", tag("dt", name), tag("dd", value)) for name, value in facts.items())
    return tag("dl", *pairs) if facts else Markup()


def _measurements(measurements: Iterable[Measurement]) -> Markup:
    measured = [m for m in measurements if m.rms_ratio is not None]
    others = [m for m in measurements if m.rms_ratio is None and m.failure]
    unmeasured = [f"{m.batch} {m.output}: {m.failure}" for m in others]
    rows = [
        tag(
            "tr",
            tag("th", m.batch, " ", tag("small", m.output), scope="row"),
            _ratio(m.rms_ratio, RMS_LIMIT, "RMS ratio"),
            _ratio(m.max_ratio, MAX_LIMIT, "largest ratio"),
        )
        for m in measured
    ]
    columns = ("batch", f"RMS ratio, limit {RMS_LIMIT:g}", f"largest ratio, limit {MAX_LIMIT:g}")
    table = _table("ratios", columns, rows) if rows else ""
    return Markup(table + _list(unmeasured))


def _ratio(ratio: float | None, limit: float, what: str) -> Markup:
    picture = tag("div", bar(ratio, limit, what), tag("span", number(ratio)), class_="bar")
    return tag("td", picture, data_label=f"{what}, limit {limit:g}")


def bar(ratio: float | None, limit: float, what: str) -> Markup:
    """An ``<svg>`` as wide as what it stands in: a bar, and a line at the limit.

    Args:
        ratio: What was measured; None or not finite if it could not be.
        limit: What passes.
        what: Name of the ratio, for those who hear the page.
    """
    share = ratio / limit if ratio is not None and math.isfinite(ratio) else math.inf
    width = min(share * _BAR_LIMIT, _BAR_WIDTH)
    kind = "good" if share <= 1 else "bad"
    return tag(
        "svg",
        tag("rect", class_="rail", width=str(_BAR_WIDTH), height="8"),
        tag("rect", class_=kind, width=f"{width:.2f}", height="8"),
        tag("line", class_="limit", x1=str(_BAR_LIMIT), x2=str(_BAR_LIMIT), y1="-2", y2="10"),
        viewBox=f"0 -2 {_BAR_WIDTH} 12",
        preserveAspectRatio="none",
        role="img",
        aria_label=f"{what} {number(ratio)}, limit {limit:g}",
    )


def _certificate(verdict: Verdict) -> Markup:
    proof = verdict.tensors
    if proof is None:
        return Markup()
    numbers = (
        ("identical to the weights", proof.identical),
        ("recomputed in float64", proof.recomputed),
        ("ulp apart at most", proof.ulps),
        ("wrong", len(proof.wrong)),
    )
    tiles = [tag("li", tag("b", f"{count:,}"), tag("span", name)) for name, count in numbers]
    parts = [tag("h3", "Tensors"), tag("ul", *tiles, class_="tiles")]
    if proof.wrong:
        summary = tag("summary", f"{len(proof.wrong)} wrong")
        parts.append(tag("details", summary, _list(proof.wrong), open="open"))
    return Markup("".join(parts))


def _plots(title: str, drawn: Iterable[str]) -> Markup:
    return tag("section", tag("h2", title), *(tag("figure", Markup(svg)) for svg in drawn))


def _legend() -> Markup:
    return tag("footer", f"{MEANING} The line in each bar is the limit.")


def _verdict_badge(verdict: Verdict) -> Markup:
    return _badge(verdict.outcome, passed=verdict.passed)


def _badge(word: str, *, passed: bool) -> Markup:
    kind = ("good" if word == "pass" else "open") if passed else "bad"
    return tag("span", word, class_=f"badge {kind}")


def _list(clauses: Sequence[str], kind: str = "wrong") -> Markup:
    items = (tag("li", clause) for clause in clauses)
    return tag("ul", *items, class_=kind) if clauses else Markup()


def _table(kind: str, columns: Iterable[str], rows: Iterable[Markup]) -> Markup:
    head = tag("tr", *(tag("th", column, scope="col") for column in columns))
    table = tag("table", tag("thead", head), tag("tbody", *rows), class_=kind)
    return tag("div", table, class_="scroll")
