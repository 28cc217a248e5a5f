"""What `regnet verify` does once its options are parsed: verify, locate, report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.cli.reports import write_reports
from converters.cli.tables import report_table
from converters.errors import StorageError
from converters.folder.folder import ConvertedFolder
from converters.formats.registry import FORMATS
from converters.reports.baseline import FACTOR, read_baseline, regressions
from converters.reports.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from converters.cli.console import Output, Steps
    from converters.families.options import SourceOptions
    from converters.parity.locate.location import Location
    from converters.parity.report import Report


@dataclass(frozen=True, slots=True)
class VerifyOptions:
    """What `regnet verify` was asked for.

    Attributes:
        images: Photographs to verify on as well.
        against: The checkpoint that the folder was made from, to be run by its own framework.
        source_options: How to read that; None is as when it was converted.
        strict: Whether everything must have been run.
        public_key: With which the folder must be signed, or None.
        locate: Whether to name the first module that goes wrong.
        baseline: An earlier report, than which nothing may be worse.
        regression_factor: How many times a ratio may grow.
        junit: Where JUnit XML goes, or None; likewise the others.
        markdown: Where GitHub-flavoured Markdown goes.
        html: Where the page goes.
    """

    images: Sequence[Path] = ()
    against: Path | None = None
    source_options: SourceOptions | None = None
    strict: bool = False
    public_key: Path | None = None
    locate: bool = False
    baseline: Path | None = None
    regression_factor: float = FACTOR
    junit: Path | None = None
    markdown: Path | None = None
    html: Path | None = None

    @property
    def takes_stdout(self) -> bool:
        """Whether a report goes to stdout, so that nothing else may."""
        return "-" in map(str, (self.junit, self.markdown, self.html))


def verify(path: Path, options: VerifyOptions, output: Output) -> None:
    """Verify a folder; print the verdicts and write the reports.

    Raises:
        VerificationError: If a verdict is fail or something is worse than the baseline.
        StorageError: If something had to be run and was not.
    """
    from converters.folder.signature import check_signature
    from converters.parity.locate.plot import error_by_depth_svg
    from converters.parity.report import Report

    before = None if options.baseline is None else read_baseline(options.baseline)
    signature = None if options.public_key is None else check_signature(path, options.public_key)
    locations: list[Location] = []
    if signature is not None and not signature.passed:
        # Nobody knows whose files these are, so none is opened.
        findings = Findings(path.resolve().name, Report(()), signature=signature)
    else:
        with output.progress() as progress:
            report, locations = _verified(path, options, progress)
        findings = Findings(
            path.resolve().name,
            report,
            None if before is None else regressions(report, before, options.regression_factor),
            [error_by_depth_svg(location) for location in locations if location.modules],
            signature,
        )
    if not options.takes_stdout:
        _print(findings, locations, output)
    write_reports(findings, junit=options.junit, markdown=options.markdown, html=options.html)
    findings.require_pass(f"{path} is not to be trusted")
    if options.strict and findings.report.not_run:
        raise StorageError(
            f"{path} passes as far as it was judged, but {'; '.join(findings.report.not_run)}; "
            "leave out --strict to accept that."
        )


def _verified(path: Path, options: VerifyOptions, progress: Steps) -> tuple[Report, list[Location]]:
    from converters.parity.verify import verify_folder

    folder = ConvertedFolder(path)
    report = verify_folder(
        folder, progress.step, options.images, options.against, options.source_options
    )
    return report, list(_locate(folder, report, progress)) if options.locate else []


def _print(findings: Findings, locations: Sequence[Location], output: Output) -> None:
    from converters.cli.tables_parity import location_table

    if findings.report.verdicts:
        output.result(report_table(findings.report))
    output.result(*map(location_table, locations))
    if findings.signature is not None and findings.signature.passed:
        output.result(f"The signature holds for all {findings.signature.files} files.")
    record = findings.to_dict()
    if locations:
        record["locations"] = [location.to_dict() for location in locations]
    output.record(record)


def _locate(folder: ConvertedFolder, report: Report, progress: Steps) -> Iterator[Location]:
    """Look into each artefact, on the batch that came nearest to a fail."""
    from converters.parity.locate.intermediates import shows_values
    from converters.parity.locate.location import locate
    from converters.parity.verify import fresh_inputs

    inputs = fresh_inputs(folder)
    verdicts = {verdict.artefact: verdict for verdict in report.verdicts}
    for kind, form in FORMATS.items():
        verdict = verdicts.get(form.file_name)
        if verdict is None or not shows_values(kind):
            continue
        progress.step(f"locating in {form.title}")
        measured = [m for m in verdict.measurements if m.batch in inputs]
        worst = max(measured, key=lambda m: m.share, default=None)
        pixels = inputs[worst.batch if worst else "native"]
        yield locate(folder, kind, folder.path / form.file_name, pixels)
