"""Whether a folder is already what a job would make, by what is in it and not by its date."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.record import Record, planned_record
from converters.formats.registry import FORMATS
from converters.jobs.conversion import recorded_options
from converters.parity.recording import recorded_pass, unverified

if TYPE_CHECKING:
    from converters.jobs.batch.job import Job
    from converters.weights.inspection import Inspection


def is_done(job: Job) -> bool:
    """Whether the folder was made from the same bytes in the same way, and is unchanged since.

    The job is planned anew, so that what differs between versions of this project counts as well.
    A verified folder also does for a job without verification.

    Raises:
        InputError: If there is such a folder and the checkpoint cannot be used, here and below.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    from converters.weights.inspection import inspected

    record = _record(job)
    if record is None:
        return False
    with inspected(job.path, job.options, job.options.dtype) as (_, inspection):
        pass
    return (
        (_was_verified(record, job) or not job.options.verify)
        and _is_planned_so(record, job, inspection)
        and record.fields.get("source", {}).get("sha256")
        == {path.name: sha256_of(path) for path in inspection.files}
        and not any(record.changed_files(job.out)[0])
        and _has_labels_of(job, inspection)
    )


def _record(job: Job) -> Record | None:
    """What a converted folder says of itself; None if it is none, or says nothing readable."""
    try:
        return Record.read(job.out)
    except InputError:
        return None


def _was_verified(record: Record, job: Job) -> bool:
    """Whether all that the job makes has a verdict, and no verdict is in the way.

    Formats that were exported into the folder since may lack one.
    """
    others = {kind.file_name for name, kind in FORMATS.items() if name not in job.options.formats}
    return recorded_pass(record) is not False and others.issuperset(unverified(record))


def _is_planned_so(record: Record, job: Job, inspection: Inspection) -> bool:
    options = recorded_options(job.options, ConvertedFolder(job.out))
    planned = json.loads(json.dumps(planned_record(inspection) | {"options": options}))
    return all(record.fields.get(key) == value for key, value in planned.items())


def _has_labels_of(job: Job, inspection: Inspection) -> bool:
    config = inspection.output_config(job.options.labels)
    return ConvertedFolder(job.out).config.to_dict() == config.to_dict()
