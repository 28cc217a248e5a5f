"""Writing artefacts into a folder that is already converted."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.artefacts import FORMATS
from converters.digests import sha256_of
from converters.errors import InputError
from converters.folder import CARD_NAME, REPORT_NAME, ConvertedFolder
from converters.staging import staged_update
from converters.usage import has_usage, with_usage

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from converters.artefacts import ExportOptions
    from converters.parity.report import Report
    from converters.progress import Progress


def export_artefacts(
    path: Path,
    formats: Sequence[str],
    options: ExportOptions,
    *,
    verify: bool,
    progress: Progress,
) -> Report | None:
    """Write artefacts, all or none, and record them in ``conversion.json``.

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
    folder.tensors  # noqa: B018 -- what cannot be used is refused under its own name
    kinds = [FORMATS[name] for name in formats]
    names = [name for kind in kinds for name in (*kind.companion_names, kind.file_name)]
    described = [CARD_NAME] * has_usage(path) + [REPORT_NAME] * (record is not None)
    with staged_update(path, [*names, *described]) as staging:
        staged = {name: staging / kind.file_name for name, kind in zip(formats, kinds, strict=True)}
        for name, place in staged.items():
            progress.step(FORMATS[name].title)
            place.parent.mkdir(exist_ok=True)
            FORMATS[name].export(ConvertedFolder(staging), place, options)
        report = _verify(folder, staged, progress) if verify else None
        link_equal_files(staging)
        if CARD_NAME in described:
            card = with_usage((path / CARD_NAME).read_text("utf-8"), ConvertedFolder(staging))
            (staging / CARD_NAME).write_text(card, encoding="utf-8")
        if record is not None:
            _enter_verdicts(record, names, report)
            _record(staging, record, [*names, *described[:-1]])
    return report


def link_equal_files(folder: Path) -> None:
    """Let ``onnx/model.onnx`` and ``model.onnx`` be one file on the disk where they are equal.

    Artefacts are replaced and never written into, so neither changes with the other.

    Args:
        folder: One that is not published yet.
    """
    web, root = (folder / FORMATS[name].file_name for name in ("onnx-web", "onnx"))
    both = web.is_file() and root.is_file() and web.stat().st_size == root.stat().st_size
    if both and not web.samefile(root) and sha256_of(web) == sha256_of(root):
        web.unlink()
        web.hardlink_to(root)


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


def _enter_verdicts(record: dict[str, Any], names: Sequence[str], report: Report | None) -> None:
    """Put new verdicts in the place of those on files that are no more; none if there are none."""
    from converters.report import NOT_VERIFIED

    verification = record.setdefault("verification", dict(NOT_VERIFIED))
    kept = [v for v in verification["verdicts"] if v["artefact"] not in names]
    new = [v.to_dict() for v in report.verdicts if v.artefact in names] if report else []
    verification["verdicts"] = kept + new


def _record(folder: Path, record: dict[str, Any], file_names: Sequence[str]) -> None:
    """Enter the new files' sha256 into ``conversion.json``, and strike companions that are gone."""
    from converters.report import file_record, write_json

    for name in file_names:
        if (folder / name).is_file():
            record["files"][name] = file_record(folder, name)
        else:
            record["files"].pop(name, None)
    write_json(folder / REPORT_NAME, record)
