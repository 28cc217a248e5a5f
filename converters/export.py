"""Writing artefacts into a folder that is already converted."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.artefacts import FORMATS
from converters.errors import InputError
from converters.folder import REPORT_NAME, ConvertedFolder
from converters.staging import staged_file

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from converters.artefacts import ExportOptions
    from converters.convert import Progress
    from converters.parity.report import Report


def export_artefacts(
    path: Path,
    formats: Sequence[str],
    options: ExportOptions,
    *,
    verify: bool,
    progress: Progress,
) -> Report | None:
    """Write artefacts, each whole or not at all, and record them in ``conversion.json``.

    Args:
        path: A folder that `regnet convert` or transformers wrote.
        formats: Keys of :data:`converters.artefacts.FORMATS`.
        options: How.
        verify: Whether to verify first; if one artefact fails, none is replaced.
        progress: Who wants to know how far it is.

    Returns:
        The verdicts, or None without ``verify``.

    Raises:
        InputError: If the folder cannot be used.
        StorageError: If a file cannot be written.
        VerificationError: If a verdict is fail.
    """
    if not path.is_dir():
        raise InputError(f"{path} is not a folder; convert a checkpoint with `regnet convert`.")
    folder = ConvertedFolder(path)
    record = _read_record(path)
    options = replace(options, weights_sha256=_recorded_sha256(folder, record))
    report = None
    with ExitStack() as stack:
        staged: dict[str, Path] = {}
        for name in formats:
            progress.step(FORMATS[name].title)
            staged[name] = stack.enter_context(staged_file(path / FORMATS[name].file_name))
            FORMATS[name].export(folder, staged[name], options)
        if verify:
            report = _verify(folder, staged, progress)
    if record is not None:
        _record(path, record, [FORMATS[name].file_name for name in formats])
    return report


def _verify(folder: ConvertedFolder, staged: Mapping[str, Path], progress: Progress) -> Report:
    from converters.parity.truth import Truth
    from converters.parity.verify import fresh_inputs, verify_artefacts

    progress.step("the oracle in float64")
    truth = Truth(folder, fresh_inputs(folder))
    report = verify_artefacts(folder, truth, staged, progress.step)
    report.require_pass(f"Nothing in {folder.path} was replaced")
    return report


def _read_record(folder: Path) -> dict[str, Any] | None:
    """Read ``conversion.json``, if the folder has one; before anything is replaced."""
    path = folder / REPORT_NAME
    if not path.is_file():
        return None
    try:
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        for entry in dict(record["files"]).values():
            str(entry["sha256"])
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path} is damaged ({error}); convert the checkpoint again.") from error
    return record


def _recorded_sha256(folder: ConvertedFolder, record: Mapping[str, Any] | None) -> dict[str, str]:
    """Digests of the weights files as recorded when they were written.

    They name the weights that an artefact belongs to; whether the files are still those is what
    `regnet verify` finds out.
    """
    files = record["files"] if record else {}
    return {
        path.name: files[path.name]["sha256"]
        for path in folder.weight_files
        if path.name in files and files[path.name].get("size") == path.stat().st_size
    }


def _record(folder: Path, record: dict[str, Any], file_names: Sequence[str]) -> None:
    """Enter the new files' sha256 into ``conversion.json``."""
    from converters.report import file_record, write_json

    record["files"] |= {name: file_record(folder / name) for name in file_names}
    with staged_file(folder / REPORT_NAME) as staging:
        write_json(staging, record)
