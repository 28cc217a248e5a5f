"""JUnit XML, which GitLab, Jenkins and the test reporters of GitHub read.

The common denominator of their dialects: Jenkins' schema knows ``properties`` of a test suite only,
so the ratios of all artefacts stand there. Times and host names are optional and left out.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from converters.errors import escaped
from converters.parity.verdict import PROVEN
from converters.reports.row import as_text, number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings


def junit(findings: Findings) -> str:
    """One test suite for the folder; a test case for every output on every batch of an artefact.

    Further cases stand for the tensors of an artefact, the signature, the recorded files, and the
    baseline. Outputs of what was not run are one case: skipped where its tensors are proven, else
    failed. What was compared with nothing or could not be checked is skipped as well. The table of
    verdicts is the suite's output.
    """
    cases = list(_cases(findings))
    outcomes = Counter(outcome.tag for case in cases for outcome in case)
    counts = {"tests": str(len(cases)), "failures": str(outcomes["failure"]), "errors": "0"}
    skipped = {"skipped": str(outcomes["skipped"])}
    root = ET.Element("testsuites", {"name": "regnet verify", **counts})
    own = {"name": escaped(findings.folder), **counts, **skipped}
    suite = ET.SubElement(root, "testsuite", own)  # the schema knows ``skipped`` here only
    properties = list(_properties(findings))
    if properties:  # the schema wants at least one
        ET.SubElement(suite, "properties").extend(properties)
    suite.extend(cases)
    ET.SubElement(suite, "system-out").text = as_text(findings)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(findings: Findings) -> Iterator[ET.Element]:
    folder, report = findings.folder, findings.report
    if findings.signature is not None:
        yield _case(folder, "signature", findings.unsigned)
    yield _case(folder, "recorded files", report.changes)
    if report.not_checked:
        yield _case(folder, "not checked", skipped="; ".join(report.not_checked))
    for verdict in report.verdicts:
        yield from _verdict_cases(verdict)
    if findings.regressions is not None:
        yield _case(folder, "baseline", findings.regressions)


def _verdict_cases(verdict: Verdict) -> Iterator[ET.Element]:
    if verdict.unproven is not None:
        yield _case(verdict.artefact, "outputs", [verdict.unproven])
    elif verdict.not_run is not None:
        yield _case(verdict.artefact, "outputs", skipped=f"not run: {verdict.not_run}")
    for m in verdict.measurements:
        yield _case(verdict.artefact, f"{m.batch} {m.output}", [m.failure] if m.failure else [])
    if verdict.tensors:
        yield _case(verdict.artefact, "tensors", verdict.tensors.wrong)
    if verdict.graph == PROVEN:
        yield _case(verdict.artefact, PROVEN)
    if verdict.not_compared:
        words = (f"{verdict.not_compared} not compared", verdict.unproven_graph)
        yield _case(verdict.artefact, "contents", skipped="; ".join(filter(None, words)))


def _case(
    judged: str, respect: str, wrong: Sequence[str] = (), skipped: str | None = None
) -> ET.Element:
    """A test case of a folder or an artefact: what is wrong, or why it was not judged."""
    case = ET.Element("testcase", {"classname": escaped(judged), "name": escaped(respect)})
    if wrong:
        message = {"message": escaped(wrong[0]), "type": "verdict"}
        ET.SubElement(case, "failure", message).text = "\n".join(map(escaped, wrong))
    elif skipped is not None:
        ET.SubElement(case, "skipped", {"message": escaped(skipped)})
    return case


def _properties(findings: Findings) -> Iterator[ET.Element]:
    for verdict in findings.report.verdicts:
        for m in verdict.measurements:
            if m.rms_ratio is not None:
                for kind, ratio in (("RMS", m.rms_ratio), ("largest", m.max_ratio)):
                    name = escaped(f"{verdict.artefact} {m.batch} {m.output} {kind} ratio")
                    yield ET.Element("property", {"name": name, "value": number(ratio)})
