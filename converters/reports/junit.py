"""JUnit XML, which GitLab, Jenkins and the test reporters of GitHub read.

The common denominator of their dialects: Jenkins' schema knows ``properties`` of a test suite only,
so the ratios of all artefacts stand there. Times and host names are optional and left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple
from xml.etree import ElementTree as ET

from converters.errors import escaped
from converters.reports.row import number

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from converters.parity.verdict import Verdict
    from converters.reports.findings import Findings


class Case(NamedTuple):
    """A test case.

    Attributes:
        class_name: What was judged: the folder or one of its artefacts.
        name: In which respect.
        wrong: What is wrong, one clause each.
        skipped: Why it was not judged, where that is no fault.
    """

    class_name: str
    name: str
    wrong: Sequence[str] = ()
    skipped: str | None = None


def junit(findings: Findings) -> str:
    """One test suite for the folder; a test case for every output on every batch of an artefact.

    Further cases stand for the tensors of an artefact, the signature, the recorded files, and the
    baseline. Outputs of what was not run are one case: skipped where its tensors are proven, else
    failed. What was compared with nothing or could not be checked is skipped as well.
    """
    cases = list(_cases(findings))
    counts = {
        "tests": str(len(cases)),
        "failures": str(sum(bool(case.wrong) for case in cases)),
        "errors": "0",
    }
    skipped = {"skipped": str(sum(case.skipped is not None for case in cases))}
    root = ET.Element("testsuites", {"name": "regnet verify", **counts})
    own = {"name": escaped(findings.folder), **counts, **skipped}
    suite = ET.SubElement(root, "testsuite", own)  # the schema knows ``skipped`` here only
    properties = list(_properties(findings))
    if properties:  # the schema wants at least one
        parent = ET.SubElement(suite, "properties")
        for name, value in properties:
            ET.SubElement(parent, "property", {"name": escaped(name), "value": escaped(value)})
    suite.extend(map(_element, cases))
    ET.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ET.tostring(root, encoding="unicode")}\n'


def _element(case: Case) -> ET.Element:
    attributes = {"classname": escaped(case.class_name), "name": escaped(case.name)}
    element = ET.Element("testcase", attributes)
    if case.wrong:
        message = {"message": escaped(case.wrong[0]), "type": "verdict"}
        ET.SubElement(element, "failure", message).text = "\n".join(map(escaped, case.wrong))
    elif case.skipped is not None:
        ET.SubElement(element, "skipped", {"message": escaped(case.skipped)})
    return element


def _cases(findings: Findings) -> Iterator[Case]:
    folder, report = findings.folder, findings.report
    if findings.signature is not None:
        yield Case(folder, "signature", findings.unsigned)
    changed = [f"{name} was changed after it was written" for name in report.changed_files]
    yield Case(folder, "recorded files", changed)
    if report.not_checked:
        yield Case(folder, "not checked", skipped="; ".join(report.not_checked))
    for verdict in report.verdicts:
        yield from _verdict_cases(verdict)
    if findings.regressions is not None:
        yield Case(folder, "baseline", findings.regressions)


def _verdict_cases(verdict: Verdict) -> Iterator[Case]:
    if verdict.unproven is not None:
        yield Case(verdict.artefact, "outputs", [verdict.unproven])
    elif verdict.not_run is not None:
        yield Case(verdict.artefact, "outputs", skipped=f"not run: {verdict.not_run}")
    for m in verdict.measurements:
        yield Case(verdict.artefact, f"{m.batch} {m.output}", [m.failure] if m.failure else [])
    if verdict.tensors:
        yield Case(verdict.artefact, "tensors", verdict.tensors.wrong)
    if verdict.not_compared:
        yield Case(verdict.artefact, "contents", skipped=f"{verdict.not_compared} not compared")


def _properties(findings: Findings) -> Iterator[tuple[str, str]]:
    for verdict in findings.report.verdicts:
        for m in verdict.measurements:
            if m.rms_ratio is not None:
                where = f"{verdict.artefact} {m.batch} {m.output}"
                yield f"{where} RMS ratio", number(m.rms_ratio)
                yield f"{where} largest ratio", number(m.max_ratio)
