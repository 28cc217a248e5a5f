"""What each command does once its options are parsed: call, print."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from converters.cli.published import located
from converters.cli.tables import files_table, inspection_tables, plan_table, report_table
from converters.errors import InputError, reason_of
from regnet.files.json_text import parse_json
from regnet.files.safetensors_file import parse_size
from regnet.files.text import read_text

if TYPE_CHECKING:
    from pathlib import Path

    from converters.cli.console import Output
    from converters.families.options import SourceOptions
    from converters.jobs.convert import ConvertOptions
    from converters.weights.inspection import Inspection


def read_labels(path: Path) -> list[str]:
    """Read class names from a JSON list or a text file with one per line.

    Raises:
        InputError: If the file cannot be read or is neither.
    """
    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise InputError(f"The labels {path} cannot be read ({reason_of(error)}).") from error
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        labels = parse_json(text)
    except ValueError as error:
        raise InputError(f"The labels {path} cannot be read ({reason_of(error)}).") from error
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"The labels {path} must be a JSON list of names, in class order.")
    return labels


def shard_size(text: str | None) -> int | None:
    """Parse ``--max-shard-size``.

    Raises:
        InputError: If it is no size.
    """
    try:
        return None if text is None else parse_size(text)
    except ValueError as error:
        raise InputError(f"--max-shard-size: {error}") from error


def inspect(
    path: Path,
    options: SourceOptions,
    output: Output,
    *,
    with_plan: bool,
) -> None:
    """Recognise and plan; print both."""
    from converters.weights.inspection import inspected

    path, options = located(path, options, output)
    with inspected(path, options) as (_, inspection):
        output.result(*inspection_tables(inspection))
        output.warn(inspection.source.decisions)
        if with_plan:
            output.result(plan_table(inspection))
        if output.as_json:
            output.record(_inspection_record(inspection))


def dry_run(
    path: Path, out: Path, framework: str | None, options: ConvertOptions, output: Output
) -> None:
    """Plan a conversion, for another framework if one is named; print the plan."""
    from converters.jobs.convert import planned
    from converters.jobs.writeback import planned_back

    path, source = located(path, options.source, output)
    options = replace(options, source=source)
    if framework is None:
        inspection = planned(path, out, options)
    else:
        inspection = planned_back(path, out, framework, options)
    output.result(*inspection_tables(inspection), plan_table(inspection))
    output.warn(inspection.source.decisions)
    if output.as_json:
        output.record(_inspection_record(inspection))


def convert(path: Path, out: Path, options: ConvertOptions, output: Output) -> None:
    """Convert; print the verdicts, if there are any, and the files."""
    from converters.folder.record import Record
    from converters.jobs.convert import convert as run_conversion
    from converters.parity.report import VerificationError

    path, source = located(path, options.source, output)
    options = replace(options, source=source)
    with output.progress() as progress:
        try:
            conversion = run_conversion(path, out, options, progress)
        except VerificationError as error:
            output.result(report_table(error.report))
            output.record({"verification": error.report.to_dict()})
            raise
    if conversion.report:
        output.result(report_table(conversion.report), files_table(out))
        output.result(f"\n{out} is ready; check it anywhere with: regnet verify {out}")
    else:
        output.result(files_table(out))
        output.result(f"\n{out} is not verified; run: regnet verify {out}")
    output.record(dict(Record.required(out).fields))


def write_back(
    path: Path, out: Path, framework: str, options: ConvertOptions, output: Output
) -> None:
    """Write another framework's file; print what was proven of it."""
    from converters.jobs.writeback import write_back as run_write_back
    from converters.parity.report import VerificationError

    path, source = located(path, options.source, output)
    options = replace(options, source=source)
    with output.progress() as progress:
        try:
            written = run_write_back(path, out, framework, options, progress)
        except VerificationError as error:
            output.result(report_table(error.report))
            output.record({"verification": error.report.to_dict()})
            raise
    report = written.report
    if report:
        output.result(report_table(report))
    output.result(
        f"\n{out} is ready for {framework}; read back, its {written.tensors} tensors are those of "
        "the converted network"
    )
    if written.unsaid:
        output.result(f"a {framework} file does not say how to evaluate it: {written.unsaid}")
    if not options.verify:
        output.result("which was not verified; to have it verified, leave out --no-verify")
    record = {"path": out.name, "framework": framework, "tensors": written.tensors}
    record |= {"transform_not_said": written.unsaid} if written.unsaid else {}
    output.record(record | ({"verification": report.to_dict()} if report else {}))


def _inspection_record(inspection: Inspection) -> dict[str, Any]:
    from converters.folder.record import architecture_record

    source = inspection.source
    return {
        "file": inspection.path.name,
        "size": inspection.size,
        "container": inspection.container,
        "framework": source.framework,
        "architecture": architecture_record(inspection),
        "channel_order": source.channel_order,
        "decisions": [asdict(decision) for decision in source.decisions],
        "plan": [
            {
                "source": step.source_name,
                "target": step.target.name,
                "shape": list(step.target.shape),
                "action": step.action,
            }
            for step in inspection.plan.steps
        ],
        "skipped": dict(inspection.plan.skipped),
    }
