"""Whether a folder is already what a job would make, by what is in it and not by its date."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from converters.digests import sha256_of
from converters.folder import REPORT_NAME, ConvertedFolder

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.batch.job import Job
    from converters.inspection import Inspection


def is_done(job: Job) -> bool:
    """Whether the folder was made from the same bytes in the same way, and is unchanged since.

    The job is planned anew, so that what differs between versions of this project counts as well.
    A verified folder also does for a job without verification.

    Raises:
        InputError: If there is such a folder and the checkpoint cannot be used, here and below.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    from converters.inspection import inspected
    from converters.report import changed_files

    record = _record(job)
    if record is None:
        return False
    with inspected(job.path, job.options.source, job.options.dtype) as (_, inspection):
        pass
    return (
        (_was_verified(record) or not job.options.verify)
        and _is_planned_so(record, job, inspection)
        and _source_of(record) == {path.name: sha256_of(path) for path in inspection.files}
        and not any(changed_files(job.out)[0])
        and _has_labels_of(job, inspection)
    )


def _record(job: Job) -> Mapping[str, Any] | None:
    """What a converted folder says of itself; None if it is none, or says nothing readable."""
    try:
        record = json.loads((job.out / REPORT_NAME).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def _was_verified(record: Mapping[str, Any]) -> bool:
    verification = record.get("verification")
    return isinstance(verification, dict) and verification.get("passed") is True


def _source_of(record: Mapping[str, Any]) -> Any:
    source = record.get("source")
    return source.get("sha256") if isinstance(source, dict) else None


def _is_planned_so(record: Mapping[str, Any], job: Job, inspection: Inspection) -> bool:
    from converters.report import options_record, planned_record

    options = options_record(job.options, ConvertedFolder(job.out))
    planned = json.loads(json.dumps(planned_record(inspection) | {"options": options}))
    return all(record.get(key) == value for key, value in planned.items())


def _has_labels_of(job: Job, inspection: Inspection) -> bool:
    from converters.convert import output_config

    config = output_config(inspection, job.options.labels)
    return ConvertedFolder(job.out).config.to_dict() == config.to_dict()
