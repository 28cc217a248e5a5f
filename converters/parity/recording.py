"""What jobs write into `conversion.json`, where a folder's verdicts are recorded with its files.

Reading it is :mod:`converters.folder.record`'s; here is what needs to know the formats: which files
want a verdict, and what is recorded of each.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from converters.checkpoint.digests import sha256_of
from converters.checkpoint.graph import INTERFACE
from converters.errors import DISTRIBUTION, release
from converters.folder.folder import GOLDEN_NAME, REPORT_NAME
from converters.folder.interface import NETWORK
from converters.folder.record import NOT_VERIFIED, SCHEMA, Record, planned_record
from converters.formats.registry import FORMATS, OTHER_RUNTIMES, interface_of
from regnet import __version__

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from converters.parity.report import Report
    from converters.weights.inspection import Inspection
    from converters.weights.stream import Written

_PACKAGES = ("torch", "numpy", "onnx", "onnxruntime")


def record_of_conversion(
    inspection: Inspection,
    written: Written,
    report: Report | None,
    options: Mapping[str, Any],
    folder: Path,
) -> Record:
    """The record of a conversion: nothing in it depends on time, place or machine.

    Args:
        inspection: The recognised and planned source.
        written: Digests of the source and of the weights files.
        report: The verdicts; None if there are none yet.
        options: How it was converted, as plain values.
        folder: Where all files but the model card lie already.
    """
    files = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in files)
    record = Record(
        {
            "schema": SCHEMA,
            "source": {
                "file": inspection.path.name,
                "sha256": dict(written.source),
                "size": inspection.size,
                "container": inspection.container,
                "framework": inspection.source.framework,
            },
            **planned_record(inspection),
            "options": dict(options),
            "files": {
                name: file_record(folder, name, written.weights.get(name))
                for name in names
                if name != REPORT_NAME
            },
            "versions": versions(),
            "verification": NOT_VERIFIED,
        }
    )
    return with_verdicts(record, [] if report is None else report.to_dict()["verdicts"])


def versions() -> dict[str, str]:
    """Of this project and of the packages that computed; what is not verified needs no torch."""
    from importlib.metadata import PackageNotFoundError, version

    found = {DISTRIBUTION: __version__}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = release(version(name))
    return found


def with_verdicts(
    record: Record, verdicts: Iterable[Mapping[str, Any]], instead_of: Iterable[str] = ()
) -> Record:
    """A record with verdicts added, and those on the same or on the named artefacts gone.

    Args:
        record: What is on record.
        verdicts: As :meth:`converters.parity.verdict.Verdict.to_dict` gives them.
        instead_of: Files that were replaced, whose verdicts no longer speak of what is there.
    """
    new = list(verdicts)
    gone = {*instead_of, *map(_judged_file, new)}
    kept = [verdict for verdict in record.verdicts if _judged_file(verdict) not in gone]
    verdicts = sorted(kept + new, key=_place)
    return _with_verification(record, {**NOT_VERIFIED, "verdicts": verdicts})


def with_files(record: Record, folder: Path, names: Iterable[str]) -> Record:
    """A record with files entered as they lie in a folder, and those that do not struck."""
    files = dict(record.files)
    for name in names:
        if (folder / name).is_file():
            files[name] = file_record(folder, name)
        else:
            files.pop(name, None)
    record = Record({**record.fields, "files": dict(sorted(files.items()))})
    return _with_verification(record, record.verification)  # what is missing may have changed


def file_record(folder: Path, name: str, sha256: str | None = None) -> dict[str, Any]:
    """What is recorded of a folder's file; pass its sha256 if it is known already."""
    path, own = folder / name, {}
    if kind := next((kind for kind in FORMATS.values() if kind.file_name == name), None):
        own = kind.details(path) if kind.details else {}
        interface = interface_of(kind.name, path)
        own |= {} if interface == NETWORK else {INTERFACE: interface.to_dict()}
    return {"sha256": sha256 or sha256_of(path), "size": path.stat().st_size} | own


def unverified(record: Record) -> list[str]:
    """Weights and artefacts that no verdict speaks of, as a verdict would call them."""
    judged = record.outcomes
    weights = ", ".join(
        name
        for name in sorted(record.files)
        if name.endswith(".safetensors") and name != GOLDEN_NAME and "/" not in name
    )
    artefacts = (kind.file_name for kind in FORMATS.values() if kind.files[0] in record.files)
    return [name for name in (weights, *artefacts) if name and name not in judged]


def recorded_pass(record: Record) -> bool | None:
    """Whether every verdict lets the folder pass; None where something has no verdict."""
    if not all(verdict["passed"] for verdict in record.verdicts):
        return False
    return True if record.verdicts and not unverified(record) else None


def _with_verification(record: Record, verification: Mapping[str, Any]) -> Record:
    """Its ``passed`` follows from verdicts and files, and is never taken over."""
    changed = Record({**record.fields, "verification": dict(verification)})
    passed = {"passed": recorded_pass(changed)}
    return Record({**changed.fields, "verification": {**verification, **passed}})


def _place(verdict: Mapping[str, Any]) -> int:
    """Where a verdict stands: those on weights first, then in the order of the formats."""
    names, own = [kind.file_name for kind in FORMATS.values()], _judged_file(verdict)
    return names.index(own) + 1 if own in names else 0


def _judged_file(verdict: Mapping[str, Any]) -> str:
    """What a verdict speaks of, also one that names another runtime behind it."""
    name: str = verdict["artefact"]
    file, _, runtime = name.rpartition(" (")
    return file if runtime.rstrip(")") in OTHER_RUNTIMES else name
