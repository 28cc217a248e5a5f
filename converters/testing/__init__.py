"""For a user's own tests: ``assert_parity("out")`` fails the test if the folder fails.

Importing this module imports neither torch nor a runtime.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.parity.report import Report
    from converters.published.located import Place


def assert_parity(
    folder: Place,
    *,
    images: Place | Iterable[Place] = (),
    baseline: Place | None = None,
    strict: bool = False,
) -> Report:
    """Verify a converted folder as ``regnet verify`` does.

    Args:
        folder: The converted folder.
        images: Photographs to verify on as well: files, folders, patterns.
        baseline: An earlier ``regnet verify --json``, than which nothing may be worse.
        strict: Whether everything must have been run.

    Returns:
        The verdicts, for further questions.

    Raises:
        AssertionError: If a verdict is no pass, a file was changed, something got worse or, with
            ``strict``, was not run; the message is a table.
        InputError: If the folder or the baseline cannot be read.
    """
    from converters.jobs.verify import verify
    from converters.reports.baseline import read_baseline, regressions
    from converters.reports.findings import Findings
    from converters.reports.row import as_text

    __tracebackhide__ = True
    path = Path(folder).resolve()
    before = None if baseline is None else read_baseline(Path(baseline))
    report = verify(path, images=images)
    worse = None if before is None else regressions(report, before)
    findings = Findings(path.name, report, worse)
    if not findings.passed or (strict and report.not_run):
        raise AssertionError(as_text(findings))
    return report
