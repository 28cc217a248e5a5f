"""Each form is read back by a parser that is not ours, and shows every text as text."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from html import unescape
from html.parser import HTMLParser
from importlib.resources import files
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree as ET

import onnx
import pytest
from markdown_it import MarkdownIt
from rich.console import Console

from converters import reports
from converters.cli.tables import report_table
from converters.errors import escaped
from converters.parity.contents.tensors import TensorCertificate
from converters.parity.report import Report, VerificationError
from converters.parity.verdict import NOT_RUN, Verdict
from converters.reports.about import network_plot
from converters.reports.findings import Findings
from converters.reports.html import bar, html
from converters.reports.junit import junit
from converters.reports.markdown import markdown
from converters.reports.row import COLUMNS, MEANING, Row, as_text
from tests.converters.reports.made import HOSTILE, findings_of, hostile
from tests.converters.reports.schema_check import faults

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from markdown_it.token import Token

SHOWN = escaped(HOSTILE)
FORMS = {"JUnit": junit, "Markdown": markdown, "HTML": html, "text": as_text}
VOID = {"meta", "link"}


class Page(HTMLParser):
    """Elements with their attributes, texts, and whether every element is closed."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.comments = 0
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, _: str) -> None:
        self.comments += 1

    def names(self) -> set[str]:
        return {name for name, _ in self.elements}


def parsed(xml: str) -> ET.Element:
    return ET.fromstring(xml)  # noqa: S314 -- our own


def rendered(source: str) -> list[Token]:
    """As GitHub does: tables, strikethrough, bare links."""
    parser = MarkdownIt("commonmark").enable(["table", "strikethrough"])
    return parser.parse(source)


def inline(tokens: list[Token]) -> list[Token]:
    return [child for token in tokens for child in token.children or []]


def schema() -> dict[str, Any]:
    text = files(reports).joinpath("report.schema.json").read_text("utf-8")
    return dict(json.loads(text))


def test_junit_has_a_case_for_everything_that_was_judged(passing: Findings) -> None:
    suite = parsed(junit(passing)).find("testsuite")
    assert suite is not None
    names = {(case.get("classname"), case.get("name")) for case in suite.iter("testcase")}
    assert len(names) == int(suite.get("tests", "")) == len(list(suite.iter("testcase")))
    expected = {
        (v.artefact, f"{m.batch} {m.output}")
        for v in passing.report.verdicts
        for m in v.measurements
    }
    expected |= {(v.artefact, "tensors") for v in passing.report.verdicts if v.tensors}
    assert names == expected | {(passing.folder, "recorded files")}
    assert suite.get("failures") == "0"
    assert not list(suite.iter("failure"))


def test_junit_fails_the_cases_that_failed_and_says_why(failing: Findings) -> None:
    findings = dataclasses.replace(failing, regressions=("worse",))
    suite = parsed(junit(findings)).find("testsuite")
    assert suite is not None
    failed = {
        (case.get("classname"), case.get("name")): failure.get("message", "")
        for case in suite.iter("testcase")
        for failure in case.iter("failure")
    }
    assert {name for artefact, name in failed if artefact == "model.onnx"} >= {"tensors"}
    assert "limit 4" in failed["model.onnx", "native logits"]
    assert "model.onnx" in failed[findings.folder, "recorded files"]
    assert failed[findings.folder, "baseline"] == "worse"
    assert suite.get("failures") == str(len(failed))
    assert not any(artefact == "model.torchscript.pt" for artefact, _ in failed)


@pytest.mark.parametrize("wrong", [(), ("stem is missing",)], ids=["right", "wrong"])
def test_junit_skips_a_framework_that_was_not_run(
    wrong: tuple[str, ...], passing: Findings
) -> None:
    why = "timm is not installed (pip install timm)"
    certificate = TensorCertificate(3, 0, 0, wrong)
    verdict = Verdict("source.pyth", NOT_RUN, "float32", (), certificate, why)
    report = dataclasses.replace(passing.report, verdicts=(verdict,))
    root = parsed(junit(dataclasses.replace(passing, report=report)))
    suite = root.find("testsuite")
    assert suite is not None
    cases = {case.get("name"): [child.tag for child in case] for case in suite.iter("testcase")}
    assert cases == {
        "recorded files": [],
        "outputs": ["skipped"],
        "tensors": ["failure"] * len(wrong),
    }
    assert [skipped.get("message") for skipped in suite.iter("skipped")] == [f"not run: {why}"]
    counts = {name: suite.get(name) for name in ("tests", "failures", "skipped")}
    assert counts == {"tests": "3", "failures": str(len(wrong)), "skipped": "1"}


def with_another(
    demo_folder: Path, path: Path, change: Callable[[onnx.ModelProto], None]
) -> Findings:
    """Findings of a folder whose ONNX file was changed, and is no file of the record's."""
    shutil.copytree(demo_folder, path)
    model = onnx.load(path / "model.onnx")
    change(model)
    onnx.save(model, path / "model.onnx")
    record = json.loads((path / "conversion.json").read_text())
    del record["files"]["model.onnx"]
    (path / "conversion.json").write_text(json.dumps(record))
    return findings_of(path)


@pytest.fixture(scope="module")
def proven(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """A right ONNX file whose mark was taken away."""

    def unmark(model: onnx.ModelProto) -> None:
        model.producer_name = "another"

    return with_another(demo_folder, tmp_path_factory.mktemp("other") / "out", unmark)


@pytest.fixture(scope="module")
def unproven(demo_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    """One of another revision that computes the same by an operator that no RegNet has."""

    def respell(model: onnx.ModelProto) -> None:
        model.producer_version = "of another"
        next(n for n in model.graph.node if n.op_type == "Relu").op_type = "LeakyRelu"
        next(n for n in model.graph.node if n.op_type == "LeakyRelu").attribute.append(
            onnx.helper.make_attribute("alpha", 0.0)
        )

    return with_another(demo_folder, tmp_path_factory.mktemp("other") / "out", respell)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_says_whether_a_graph_is_proven_or_why_not(
    form: Callable[[Findings], str], passing: Findings, proven: Findings, unproven: Findings
) -> None:
    assert passing.passed
    assert proven.passed
    assert unproven.passed
    assert "graph not compared" in form(unproven)
    assert "is of a kind that no RegNet has" in form(unproven)
    assert "graph proven" not in form(unproven)
    assert "graph proven" in form(proven)
    for word in ("not compared", "not proven"):
        assert word not in form(proven)
        assert word not in form(passing)


def test_the_table_and_json_say_it_too(
    passing: Findings, proven: Findings, unproven: Findings
) -> None:
    why = "graph not proven: its node LeakyRelu 'regnet.embedder.embedder.activation' is of a kind"
    assert "graph proven" in table_of(proven)
    assert "not compared" not in table_of(passing) + table_of(proven)
    assert "graph not compared" in table_of(unproven)
    assert f"Not checked: model.onnx, {why}" in table_of(unproven, 200)
    expected = {None: passing, "graph proven": proven, f"{why} that no RegNet has": unproven}
    for words, findings in expected.items():
        (record,) = (v for v in findings.to_dict()["verdicts"] if v["artefact"] == "model.onnx")
        assert record.get("graph") == words
        assert record["not_compared"] == ("graph" if findings is unproven else None)
        assert record["tensors"]["graph_compared"] is (findings is not unproven)


def table_of(findings: Findings, width: int = 120) -> str:
    console = Console(width=width, record=True, file=StringIO())
    console.print(report_table(findings.report))
    return console.export_text()


def test_every_table_says_the_same_of_a_verdict() -> None:
    proof = TensorCertificate(34, 58, 1, (), graph_compared=False)
    reason = "its memory is short"
    verdict = Verdict("model.onnx", NOT_RUN, "float32", (), proof, reason, "graph")
    findings = Findings("out", Report((verdict,)))
    words = "34 identical, 58 recomputed within 1 ulp, graph not compared"
    assert Row.of(verdict).tensors == words
    for shown in (as_text(findings), markdown(findings), table_of(findings, 200)):
        assert words in shown


def test_every_form_has_the_same_row(failing: Findings) -> None:
    """All of it; the terminal leaves out the largest ratio and the five best classes."""
    rows = [COLUMNS, *map(Row.of, failing.report.verdicts)]
    tokens = rendered(markdown(failing))
    inside = ["".join(child.content for child in t.children or []) for t in tokens if t.children]
    shown = [re.split("  +", line) for line in as_text(failing).splitlines()[1 : 1 + len(rows)]]
    page = Page(html(failing)).texts
    output = parsed(junit(failing)).findtext("testsuite/system-out")
    assert output == as_text(failing)
    for row, words in zip(rows, shown, strict=True):
        assert words == list(row)
        first = inside.index(row[0])
        assert inside[first : first + len(row)] == list(row)
        first = page.index(row[0])
        assert page[first : first + len(row)] == list(row)
    table = table_of(failing, 200)
    for row in map(Row.of, failing.report.verdicts):
        (line,) = (line for line in table.splitlines() if line.startswith(f"│ {row.artefact} "))
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        assert {row.artefact, row.rms_ratio, row.tensors, row.outcome} <= set(cells)
        assert f"{row.artefact}, {row.reason}" in table


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_says_what_its_words_mean(
    form: Callable[[Findings], str], passing: Findings
) -> None:
    assert MEANING in unescape(form(passing))


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_tells_no_run_from_a_pass(
    form: Callable[[Findings], str], passing: Findings
) -> None:
    why = "it needs about 3.0 GB of memory, more than is free here"
    golden, weights, onnx_file, _ = passing.report.verdicts
    proven = dataclasses.replace(onnx_file, measurements=(), not_run=why, runtime=NOT_RUN)
    report = dataclasses.replace(passing.report, verdicts=(golden, weights, proven))
    findings = dataclasses.replace(passing, report=report)
    assert findings.passed
    assert f"not run: {why}" in form(findings)
    assert findings.headline == "2 of 3 pass, 1 not run"

    unproven = dataclasses.replace(proven, tensors=None)
    report = dataclasses.replace(passing.report, verdicts=(golden, weights, unproven))
    findings = dataclasses.replace(passing, report=report)
    assert not findings.passed
    assert f"not run: {why}, and nothing else of it can be proven" in form(findings)
    assert findings.headline == "not verified: 2 of 3 pass, 1 could not be judged here"
    with pytest.raises(VerificationError, match="could not be verified here") as caught:
        findings.require_pass("out is not to be trusted")
    assert caught.value.exit_status == 4
    worse = dataclasses.replace(findings, regressions=("worse",))
    with pytest.raises(VerificationError, match="verification failed") as caught:
        worse.require_pass("out is not to be trusted")
    assert caught.value.exit_status == 1


def test_a_sentence_names_what_is_wrong(passing: Findings, failing: Findings) -> None:
    """The folder, unless nothing is wrong but files that lie elsewhere."""
    wrong = next(v for v in failing.report.verdicts if not v.passed)
    others = tuple(dataclasses.replace(wrong, artefact=name) for name in ("a.onnx", "b.onnx"))
    elsewhere = dataclasses.replace(
        passing.report, verdicts=(*passing.report.verdicts, *others), elsewhere=("a.onnx", "b.onnx")
    )

    def named(findings: Findings, **changes: Any) -> str:
        report = dataclasses.replace(findings.report, **changes)
        return dataclasses.replace(findings, report=report).wrong_with("below/out")

    both = dataclasses.replace(passing, report=elsewhere)
    assert named(both) == "a.onnx and b.onnx are"
    assert named(both, verdicts=elsewhere.verdicts[:-1]) == "a.onnx is"
    assert named(both, elsewhere=("a.onnx",)) == "below/out is"
    assert named(both, changed_files=("model.onnx",)) == "below/out is"
    assert dataclasses.replace(both, regressions=("worse",)).wrong_with("out") == "out is"
    assert named(failing) == "below/out is"


def test_junit_states_the_ratios_as_properties_of_the_suite(passing: Findings) -> None:
    root = parsed(junit(passing))
    ratios = {p.get("name"): p.get("value") for p in root.findall("testsuite/properties/property")}
    measurement = passing.report.verdicts[-1].measurements[0]
    name = f"{passing.report.verdicts[-1].artefact} {measurement.batch} {measurement.output}"
    assert ratios[f"{name} RMS ratio"] == f"{measurement.rms_ratio:.3g}"
    assert not root.findall(".//testcase/properties")


def test_markdown_is_a_heading_and_a_table_with_a_row_for_each_verdict(passing: Findings) -> None:
    tokens = rendered(markdown(passing))
    assert [token.type for token in tokens[:2]] == ["heading_open", "inline"]
    assert sum(token.type == "tr_open" for token in tokens) == 1 + len(passing.report.verdicts)
    cells = [token.content for token in tokens if token.type == "inline"]
    assert passing.report.verdicts[-1].artefact in cells


def test_markdown_folds_away_the_details_of_failures_only(
    passing: Findings, failing: Findings
) -> None:
    assert "<details>" not in markdown(passing)
    source = markdown(failing)
    assert source.count("<details>") == source.count("</details>") == 1
    assert "<summary>model.onnx</summary>" in source


def test_markdown_stays_below_what_a_step_summary_may_have(failing: Findings) -> None:
    verdict = failing.report.verdicts[2]
    assert verdict.tensors
    proof = dataclasses.replace(verdict.tensors, wrong=("x" * 300,) * 20_000)
    report = dataclasses.replace(
        failing.report, verdicts=(dataclasses.replace(verdict, tensors=proof),)
    )
    source = markdown(Findings("out", report))
    assert len(source) < 1 << 20
    assert "- and 19980 more" in source


def test_html_is_one_page_that_loads_nothing(failing: Findings) -> None:
    plot = "<svg><title>depth</title></svg>"
    page = Page(html(dataclasses.replace(failing, locations=[plot])))
    assert page.open == []
    assert page.names().isdisjoint({"script", "link", "img", "iframe", "object", "base", "form"})
    attributes = {name for _, given in page.elements for name in given}
    assert attributes.isdisjoint({"src", "href", "style", "srcset", "onload", "onclick"})
    assert "url(" not in html(failing)
    assert "@import" not in html(failing)
    assert "depth" in page.texts


def test_html_ends_with_the_network(passing: Findings, demo_folder: Path) -> None:
    page = Page(html(dataclasses.replace(passing, network=network_plot(demo_folder))))
    assert page.open == []
    assert page.texts.index("Network") < page.texts.index("24 groups of 8")
    assert "Network" not in Page(html(passing)).texts


def test_html_draws_a_bar_for_each_ratio_and_a_line_at_its_limit(failing: Findings) -> None:
    page = Page(html(failing))
    measured = [m for v in failing.report.verdicts for m in v.measurements if m.rms_ratio]
    bars = [given for name, given in page.elements if name == "rect" and given["class"] != "rail"]
    limits = [given for name, given in page.elements if name == "line"]
    assert len(bars) == len(limits) == 2 * len(measured)
    for drawn, m in zip(bars[::2], measured, strict=True):
        assert m.rms_ratio is not None
        share = float(drawn["width"] or "") / float(limits[0]["x1"] or "")
        assert share == pytest.approx(min(m.rms_ratio / 4, 1.25), abs=1e-3)
        assert drawn["class"] == ("good" if m.rms_ratio <= 4 else "bad")


@pytest.mark.parametrize(
    ("ratio", "width", "kind"),
    [
        *((0.0, 0, "good"), (2.0, 40, "good"), (4.0, 80, "good"), (4.1, 82, "bad")),
        *((9e9, 100, "bad"), (None, 100, "bad"), (float("inf"), 100, "bad")),
        (float("nan"), 100, "bad"),
    ],
)
def test_a_bar_is_as_long_as_its_ratio_and_bad_beyond_the_limit(
    ratio: float | None, width: float, kind: str
) -> None:
    rail, filled = (given for name, given in Page(bar(ratio, 4, "RMS")).elements if name == "rect")
    assert rail["class"] == "rail"
    assert (float(filled["width"] or ""), filled["class"]) == (width, kind)


def test_text_aligns_its_columns(passing: Findings) -> None:
    head, *rows, meaning = as_text(passing).splitlines()[1:]
    assert meaning == MEANING
    assert {row.index("pass") for row in rows} == {head.index("verdict")}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_is_a_function_of_the_findings(
    form: Callable[[Findings], str], failing: Findings
) -> None:
    assert form(failing) == form(dataclasses.replace(failing))
    for text in (form(failing), form(hostile(failing))):
        text.encode("utf-8")
        assert "/tmp" not in text  # noqa: S108
        assert all(mark.isprintable() or mark == "\n" for mark in text)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_can_say_that_nothing_could_be_judged(
    form: Callable[[Findings], str], failing: Findings
) -> None:
    report = dataclasses.replace(failing.report, verdicts=(), changed_files=("model.safetensors",))
    assert "model.safetensors was changed" in form(Findings("out", report))


def test_hostile_names_stay_text_in_junit(failing: Findings) -> None:
    root = parsed(junit(hostile(failing)))
    assert {element.tag for element in root.iter()} == {
        *("testsuites", "testsuite", "properties", "property", "testcase", "failure"),
        *("skipped", "system-out"),
    }
    suite = root.find("testsuite")
    assert suite is not None
    assert suite.get("name") == SHOWN
    assert {case.get("classname") for case in suite.iter("testcase")} == {SHOWN}
    assert f"{SHOWN}\n{SHOWN}" in {failure.text for failure in suite.iter("failure")}


def test_hostile_names_stay_text_in_html(failing: Findings) -> None:
    page, harmless = Page(html(hostile(failing))), Page(html(failing))
    assert page.open == []
    assert page.comments == 0
    assert page.names() <= harmless.names() | {"details", "summary"}
    assert page.texts.count(SHOWN) > 10
    assert page.elements[0] == ("html", {"lang": "en"})


def test_hostile_names_stay_text_in_markdown(failing: Findings) -> None:
    findings = hostile(failing)
    tokens = rendered(markdown(findings))
    assert {token.type for token in inline(tokens)} == {"text"}
    blocks = [token.content for token in tokens if token.type == "html_block"]
    assert all(block.startswith(("<details>", "</details>", "<summary>&lt;")) for block in blocks)
    shown = ["".join(child.content for child in t.children or []) for t in tokens if t.children]
    assert shown.count(SHOWN) > 10
    rows = sum(token.type == "tr_open" for token in tokens)
    measured = sum(len(verdict.measurements) for verdict in findings.report.verdicts)
    assert rows == 1 + 2 * len(findings.report.verdicts) + measured
    assert sum(token.type == "td_open" for token in tokens) == 9 * 4 + 5 * measured


@pytest.mark.parametrize(
    "name", ["- a", "+ a", "1. a", "12) a", "# a", "     a", " - a", "> a", "1.5", "--- a", "[ ] a"]
)
def test_a_name_that_begins_like_a_block_is_one_item_of_a_list(
    name: str, failing: Findings
) -> None:
    report = dataclasses.replace(failing.report, verdicts=(), changed_files=(name,))
    tokens = rendered(markdown(Findings("out", report)))
    kinds = [token.type for token in tokens if token.nesting == 1]
    assert kinds == ["heading_open", "bullet_list_open", "list_item_open", "paragraph_open"]
    shown = "".join(child.content for child in inline(tokens[-5:]))
    assert shown == f"{name} was changed after it was written"


def test_hostile_addresses_become_no_links_on_github(failing: Findings) -> None:
    """GitHub links bare addresses, wherever ``://`` or ``www.`` stands unescaped."""
    lines = markdown(hostile(failing)).splitlines()
    source = "".join(line for line in lines if not line.startswith("<summary>"))
    assert "://" not in source
    assert "www.example" not in source


@pytest.mark.parametrize("kind", ["passing", "failing", "hostile", "empty"])
def test_json_is_what_its_schema_says(kind: str, passing: Findings, failing: Findings) -> None:
    empty = Findings("out", dataclasses.replace(failing.report, verdicts=()), ())
    made = {"passing": passing, "failing": failing, "hostile": hostile(failing), "empty": empty}
    record = json.loads(json.dumps(made[kind].to_dict(), allow_nan=False))
    assert faults(record, schema(), schema()) == []
    assert record["passed"] is (kind == "passing")


def test_json_writes_null_for_numbers_that_are_not_finite(failing: Findings) -> None:
    verdict = failing.report.verdicts[2]
    endless = dataclasses.replace(verdict.measurements[0], rms_ratio=float("inf"))
    report = dataclasses.replace(
        failing.report, verdicts=(dataclasses.replace(verdict, measurements=(endless,)),)
    )
    record = Findings("out", report).to_dict()
    assert record["verdicts"][0]["measurements"][0]["rms_ratio"] is None
    assert faults(record, schema(), schema()) == []


def test_the_schema_refuses_what_is_no_report(passing: Findings) -> None:
    record = passing.to_dict()
    record["verdicts"][0].pop("reason")
    record["verdicts"][1]["measurements"][0]["shape"] = [-1, True]
    record["schema"] = 2
    assert faults(record | {"new": 1}, schema(), schema()) == [
        "$.schema is not 1",
        "$.verdicts[0] lacks reason",
        "$.verdicts[1].measurements[0].shape[0] is below 0",
        "$.verdicts[1].measurements[0].shape[1] is no integer",
        "$.new is not described",
    ]
