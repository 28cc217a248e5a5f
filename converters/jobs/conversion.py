"""The main job: from a checkpoint that is there to a proven, deployable folder."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from converters.checkpoint.digests import sha256_of
from converters.errors import InputError, require_torch
from converters.families.manifest import require_published
from converters.families.options import SourceOptions
from converters.folder.folder import CARD_NAME, ConvertedFolder
from converters.formats.beside import Beside, beside, torch_beside
from converters.formats.format import ExportOptions
from converters.formats.memory import memory_of_all
from converters.formats.registry import (
    DEFAULT_FORMATS,
    FORMATS,
    are_traced,
    require_writable,
    takers,
    write_artefacts,
)
from converters.progress import SILENT
from converters.staging.staged import require_place, require_space, staged_folder
from converters.weights.inspection import Inspection, inspected
from converters.weights.stream import write_weights
from regnet.files.safetensors_file import parse_size, plan_shards
from regnet.files.system import sync

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.parity.report import Report
    from converters.parity.verify import Verification
    from converters.progress import Progress
    from converters.weights.stream import Written
    from regnet.config import RegNetConfig
    from regnet.files.dtypes import DType


@dataclass(frozen=True, slots=True)
class ConvertOptions(SourceOptions):
    """How to convert: the keywords of :func:`converters.jobs.convert.convert`, for all it calls.

    Attributes:
        max_shard_size: In bytes.
    """

    dtype: DType | None = None
    labels: Sequence[str] | None = None
    formats: Sequence[str] = DEFAULT_FORMATS
    share_weights: bool = False
    calibration_images: Sequence[Path] = ()
    max_shard_size: int | None = None
    force: bool = False
    allow_nonfinite: bool = False
    verify: bool = True


def shard_size(size: int | str | None) -> int | None:
    """Read ``max_shard_size`` as bytes.

    Raises:
        InputError: If it is no size.
    """
    try:
        return None if size is None else parse_size(size)
    except ValueError as error:
        raise InputError(f"--max-shard-size: {error}") from error


@dataclass(frozen=True, slots=True)
class Conversion:
    """A finished conversion: what was converted and what was measured, None if nothing was."""

    inspection: Inspection
    report: Report | None


def run_conversion(
    path: Path,
    out: Path,
    options: ConvertOptions,
    progress: Progress = SILENT,
    planned: Callable[[Inspection], object] = lambda _: None,
) -> Conversion:
    """Convert a checkpoint that lies there; see :func:`converters.jobs.convert.convert`."""
    _require_usable(path, out, options)
    if options.verify:
        require_torch()
    with (
        torch_beside() if _is_torch_apart(options) else nullcontext() as torch,
        inspected(path, options, options.dtype) as (checkpoint, inspection),
        staged_folder(out, force=options.force, keep=_weight_names(inspection, options)) as folder,
    ):
        config = inspection.output_config(options.labels)
        planned(inspection)
        require_space(folder, inspection.plan.nbytes, out)
        needed = memory_of_all(config, inspection.source.transform.crop)
        with beside(needed, torch) if options.verify else Beside() as others:
            report = _fill(folder, checkpoint, inspection, config, options, progress, others)
        if report:
            report.require_pass(f"{path.name} was converted but not published")
    return Conversion(inspection, report)


def _is_torch_apart(options: ConvertOptions) -> bool:
    return options.verify and not are_traced(options.formats)


def plan_conversion(path: Path, out: Path, options: ConvertOptions) -> Inspection:
    """Plan :func:`run_conversion` and write nothing; what it refuses to begin is refused."""
    from regnet.image_processor import RegNetImageProcessor

    _require_usable(path, out, options)
    with inspected(path, options, options.dtype) as (_, inspection):
        inspection.output_config(options.labels)
        _weight_names(inspection, options)
        RegNetImageProcessor(**inspection.source.preprocessor_fields())
        require_place(out, inspection.plan.nbytes, force=options.force)
    return inspection


def _require_usable(path: Path, out: Path, options: ConvertOptions) -> None:
    """Check all that can be known of a conversion before its checkpoint is opened."""
    if out.resolve() in (path.resolve(), *path.resolve().parents):
        raise InputError(
            f"{path} lies inside {out}, which would replace it; choose another output."
        )
    require_formats(options)


def require_formats(options: ConvertOptions) -> None:
    """Check that artefacts can be written as they are asked for, whatever the checkpoint.

    Raises:
        InputError: If a format is not known, an option says nothing about any of them, or there
            are no images to calibrate on.
        StorageError: If a package is missing.
    """
    require_writable(options.formats, _export_options(options))
    if calibrated := takers("calibration_images", options.formats):
        from converters.folder.images import find_images

        if not options.calibration_images:
            raise InputError(
                f"The ranges of {calibrated[0]} are set by images; name some with "
                "--calibration-images."
            )
        find_images(options.calibration_images)


def _export_options(options: ConvertOptions, written: Written | None = None) -> ExportOptions:
    return ExportOptions(
        options.share_weights,
        written.weights if written else None,
        calibration_images=options.calibration_images,
    )


def recorded_options(options: ConvertOptions, folder: ConvertedFolder) -> dict[str, Any]:
    """Options that neither the plan nor ``config.json`` tells, without the names of files.

    A published checkpoint's own channel order counts as asked for, since its file does not tell.

    Args:
        options: How it was converted.
        folder: To which images of a calibration may belong.
    """
    images = None
    if takers("calibration_images", options.formats):
        from converters.formats.onnx.calibration import images_sha256

        images = images_sha256(folder, options.calibration_images)
    published_order = options.published.channel_order if options.published else None
    return {
        "framework": options.framework,
        "channel_order": options.channel_order or published_order,
        "weights": options.weights,
        "head": options.head,
        "formats": list(options.formats),
        "share_weights": options.share_weights,
        "calibration_images": images,
        "max_shard_size": options.max_shard_size,
        "allow_nonfinite": options.allow_nonfinite,
    }


def _weight_names(inspection: Inspection, options: ConvertOptions) -> set[str]:
    specs = [step.target for step in inspection.plan.steps]
    return {shard.file_name for shard in plan_shards(specs, options.max_shard_size)}


def _fill(  # noqa: PLR0913, PLR0917 -- the stages of one pipeline
    folder: Path,
    checkpoint: Checkpoint,
    inspection: Inspection,
    config: RegNetConfig,
    options: ConvertOptions,
    progress: Progress,
    others: Beside,
) -> Report | None:
    """Write everything into the staging folder and verify it."""
    from converters.parity.recording import record_of_conversion, with_files
    from converters.reports.card import write_card
    from regnet.image_processor import RegNetImageProcessor

    resumes = any(folder.iterdir())
    title = "taking up an interrupted conversion" if resumes else "weights"
    progress.step(title, inspection.plan.nbytes)
    written = write_weights(
        checkpoint,
        inspection.plan,
        folder,
        max_shard_size=options.max_shard_size,
        allow_nonfinite=options.allow_nonfinite,
        advance=progress.advance,
    )
    require_published(written.source)
    config.save_pretrained(folder)
    RegNetImageProcessor(**inspection.source.preprocessor_fields()).save_pretrained(folder)
    converted = ConvertedFolder(folder)
    export_options = _export_options(options, written)
    artefacts = {name: folder / FORMATS[name].file_name for name in options.formats}
    verification = _verification(converted, written, others) if options.verify else None
    begun = verification is not None and all(map(_is_begun_at_once, artefacts))
    begin = verification.begin if verification and begun else None
    write_artefacts(converted, artefacts, export_options, progress, begin)
    digests: dict[str, Callable[[], str]] = {
        file.relative_to(folder).as_posix(): partial(sha256_of, file)
        for name, path in artefacts.items()
        for file in FORMATS[name].at(path)
    }
    report = None
    if verification:
        for name, path in artefacts.items() if not begun else ():
            verification.begin(name, path)
        verification.truth.begin()
        for name in (*written.weights, *digests):
            others.begin(sync, folder / name)  # so that in the end there is nothing to wait for
        digests.update((name, others.begin(digest)) for name, digest in digests.items())
        report = _verify(converted, verification, progress)
    progress.step("report")
    if report is None or report.passed:
        recorded = recorded_options(options, converted)
        known = dict(written.weights) | {name: digest() for name, digest in digests.items()}
        written = replace(written, weights=known)
        record = record_of_conversion(inspection, written, report, recorded, folder)
        write_card(folder, record)
        with_files(record, folder, [CARD_NAME]).write(folder)
    return report


def _is_begun_at_once(name: str) -> bool:
    """Whether an artefact is judged while others are written, and does not become a link later."""
    return FORMATS[name].runs_beside and FORMATS[name].may_equal is None


def _verification(converted: ConvertedFolder, written: Written, others: Beside) -> Verification:
    from converters.parity.truth import Truth
    from converters.parity.verify import Verification, fresh_inputs

    truth = Truth(converted, fresh_inputs(converted), others)
    return Verification(converted, truth, others, weights_sha256=written.weights)


def _verify(converted: ConvertedFolder, verification: Verification, progress: Progress) -> Report:
    """Store the golden vectors, and wait for the verdicts."""
    from converters.parity.golden import write_golden

    progress.step("the oracle in float64")
    truth = verification.truth
    write_golden(converted.path, truth.inputs, truth.oracle)
    return verification.report(progress)
