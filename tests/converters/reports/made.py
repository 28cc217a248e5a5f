"""Findings to be given a form: of real folders, and with every text as hostile as can be."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import onnx

from converters.folder.folder import ConvertedFolder
from converters.folder.signature import Signature
from converters.parity.contents.tensors import TensorCertificate
from converters.parity.verify import verify_folder
from converters.reports.about import about
from converters.reports.findings import Findings
from tests.converters.parity.wrong import GRAPH_MISTAKES

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = (
    "<script>alert(1)</script> ]]> | `code` **bold** [link](https://example.com) www.example.com "
    "</td></style><!-- &amp; \"quoted\" 'once' $x$ \\| ~~gone~~ \x00\x1b[31m\r\n# title\t\u202e"
    "\ud800\ufffe"
)
"""Markup of every form, what no XML may hold, and half a surrogate pair."""


def findings_of(path: Path) -> Findings:
    report = verify_folder(ConvertedFolder(path))
    return Findings(path.name, report, about=about(path))


def damage(path: Path, mistake: str) -> None:
    """Plant a mistake in a folder's ONNX file."""
    model = onnx.load(path / "model.onnx")
    GRAPH_MISTAKES[mistake](model, path)
    onnx.save(model, path / "model.onnx")


def hostile(findings: Findings) -> Findings:
    """The same findings with `HOSTILE` wherever a text can come from a file."""
    report = findings.report
    verdicts = tuple(
        dataclasses.replace(
            verdict,
            artefact=HOSTILE,
            runtime=HOSTILE,
            precision=HOSTILE,
            tensors=TensorCertificate(1, 2, 3, (HOSTILE, HOSTILE)),
            not_compared=HOSTILE,
            graph=HOSTILE,
            measurements=tuple(
                dataclasses.replace(m, batch=HOSTILE, output=HOSTILE, failure=HOSTILE)
                for m in verdict.measurements
            ),
        )
        for verdict in report.verdicts
    )
    changed = dataclasses.replace(
        report, verdicts=verdicts, changed_files=(HOSTILE,), not_checked=(HOSTILE, HOSTILE)
    )
    return dataclasses.replace(
        findings,
        folder=HOSTILE,
        report=changed,
        regressions=(HOSTILE, HOSTILE),
        signature=Signature(1, (HOSTILE,)),
        about={"network": HOSTILE, "judged by": HOSTILE},
    )
