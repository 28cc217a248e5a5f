"""JUnit XML, which GitLab, Jenkins and the test reporters of GitHub read.

The common denominator of their dialects: Jenkins' schema knows ``properties`` of a test suite only,
so the ratios of all artefacts stand there. Times and host names are optional and left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from converters.reports.findings import number, one_line

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings

    Case = tuple[str, str, Sequence[str]]
    """Class name, name, and what is wrong, one clause each."""


def junit(findings: Findings) -> str:
    """One test suite for the folder; a test case for every output on every batch of an artefact.

    Further cases stand for the tensors of an artefact, the recorded files, and the baseline.
    """
    cases = list(_cases(findings))
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(wrong) for _, _, wrong in cases)),
        "errors": "0",
    }
    root = ET.Element("testsuites", {"name": "regnet verify", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": one_line(findings.folder), **counts})
    properties = list(_properties(findings))
    if properties:  # the schema wants at least one
        parent = ET.SubElement(suite, "properties")
        for name, value in properties:
            ET.SubElement(parent, "property", {"name": one_line(name), "value": one_line(value)})
    for class_name, name, wrong in cases:
        attributes = {"classname": one_line(class_name), "name": one_line(name)}
        case = ET.SubElement(suite, "testcase", attributes)
        if wrong:
            message = {"message": one_line(wrong[0]), "type": "verdict"}
            ET.SubElement(case, "failure", message).text = "\n".join(map(one_line, wrong))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _cases(findings: Findings) -> Iterator[Case]:
    folder, report = findings.folder, findings.report
    changed = [f"{name} was changed after it was written" for name in report.changed_files]
    yield folder, "recorded files", changed
    for verdict in report.verdicts:
        yield from _verdict_cases(verdict)
    if findings.regressions is not None:
        yield folder, "baseline", findings.regressions


def _verdict_cases(verdict: Verdict) -> Iterator[Case]:
    if not verdict.measurements:
        yield verdict.artefact, "outputs", [verdict.reason]
    for m in verdict.measurements:
        yield verdict.artefact, f"{m.batch} {m.output}", [m.failure] if m.failure else []
    if verdict.tensors:
        yield verdict.artefact, "tensors", verdict.tensors.wrong


def _properties(findings: Findings) -> Iterator[tuple[str, str]]:
    for verdict in findings.report.verdicts:
        for m in verdict.measurements:
            if m.rms_ratio is not None:
                where = f"{verdict.artefact} {m.batch} {m.output}"
                yield f"{where} RMS ratio", number(m.rms_ratio)
                yield f"{where} largest ratio", number(m.max_ratio)
