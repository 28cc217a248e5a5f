"""Back again: a converted folder as another framework's own file, so any format becomes any other.

What is written is read back like any checkpoint before it is published, and must be the same
network, every tensor of the same bytes.
"""

from __future__ import annotations

import hashlib
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.checkpoint import open_any
from converters.errors import ConversionError, InputError
from converters.families.family import Network, tensor_chunks
from converters.families.keymap import REFERENCE
from converters.families.known import target_named
from converters.families.options import SourceOptions
from converters.families.source import EvalTransform
from converters.folder.folder import REPORT_NAME, ConvertedFolder
from converters.jobs.conversion import Conversion, ConvertOptions, run_conversion
from converters.progress import SILENT
from converters.staging.staged import require_place, staged_file, staged_folder, working_folder
from converters.staging.unfinished import partial_name
from converters.weights.inspection import inspected
from regnet.architecture import COUNTER
from regnet.files.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from converters.checkpoint import Checkpoint
    from converters.families.family import Family
    from converters.parity.report import Report
    from converters.progress import Progress
    from converters.weights.inspection import Inspection

_CONVERTED = "converted"
"""The folder in between, of a checkpoint that is converted first."""


class ReadBackError(ConversionError):
    """What was written does not read back as the network it was written from."""

    exit_status = 1


@dataclass(frozen=True, slots=True)
class WrittenBack(Conversion):
    """A finished job; there is no report if the source was converted before.

    Attributes:
        path: The file or folder of the framework.
        framework: Whose.
        tensors: How many were written, and compared when they were read back.
        unsaid: What the framework's file cannot say of the evaluation transform, in words; empty if
            it says all.
    """

    path: Path
    framework: str
    tensors: int
    unsaid: str


def write_back(  # noqa: PLR0913, PLR0917 -- from what to what, how, and who is told of it
    source: Path,
    out: Path,
    framework: str,
    options: ConvertOptions | None = None,
    progress: Progress = SILENT,
    planned: Callable[[Inspection], object] = lambda _: None,
) -> WrittenBack:
    """Write a converted folder, or a checkpoint that is converted first, for another framework.

    Args:
        source: A folder that `regnet convert` wrote, taken as it is unless ``options`` ask for
            another dtype; or any checkpoint that lies there.
        out: The file to be made; for timm, the folder.
        framework: One of :func:`converters.families.known.written_back`.
        options: As :func:`converters.jobs.convert.convert` takes them, which says what is raised.
        progress: Who wants to know how far it is.
        planned: Called once a checkpoint is recognised and planned, before anything is written.
    """
    options = options or ConvertOptions()
    target = target_named(framework)
    inspection = plan_write_back(source, out, framework, options)
    with (
        _staged(out, target, force=options.force) as staging,
        _converted(source, out, options, progress, planned) as (folder, report),
    ):
        progress.step(f"{framework}'s own {'folder' if target.loads_folder else 'file'}")
        with open_any(folder.path) as checkpoint:
            network = _network(folder, checkpoint, target)
            network.write(staging)
            progress.step("reading it back")
            unsaid = _require_same(staging, network)
    return WrittenBack(inspection, report, out, framework, len(network.tensors), unsaid)


def plan_write_back(source: Path, out: Path, framework: str, options: ConvertOptions) -> Inspection:
    """Plan :func:`write_back` and write nothing; what it refuses to begin is refused."""
    target = target_named(framework)
    _require_meant(source, options)
    _require_place(out, target, force=options.force)
    dtype = options.dtype
    if _is_converted(source):
        options = replace(options, framework=REFERENCE.framework)
        if dtype is None:
            found = ConvertedFolder(source).dtype
            dtype = next((known for known in DTYPES if known == found), None)
    with inspected(source, options, dtype) as (_, inspection):
        config, classifies = inspection.source.config, inspection.source.has_classifier
        stored = inspection.plan.dtype
        target.require_expressible(config, source.name, stored, has_classifier=classifies)
    return inspection


def _is_converted(source: Path) -> bool:
    return (source / REPORT_NAME).is_file()


NO_FOLDER = (
    "--to writes files of another framework; leave out --format, --share-weights, "
    "--max-shard-size, --calibration-images and --labels."
)
"""For whoever asks for what only a converted folder has."""


def _require_meant(source: Path, options: ConvertOptions) -> None:
    """Refuse options that would say nothing of what is written."""
    of_folders = (options.share_weights, options.max_shard_size, options.calibration_images)
    if any(of_folders) or options.labels is not None:
        raise InputError(NO_FOLDER)
    decided = options.channel_order or options.head or options.weights != "best"
    if decided and _is_converted(source):
        raise InputError(
            f"{source.name} is converted already, with one order of channels and one set of "
            "weights; leave out --channel-order, --weights and --head, or give the checkpoint "
            "that it was converted from."
        )


@contextmanager
def _converted(
    source: Path,
    out: Path,
    options: ConvertOptions,
    progress: Progress,
    planned: Callable[[Inspection], object],
) -> Iterator[tuple[ConvertedFolder, Report | None]]:
    """The source itself if it is converted, else a proven conversion that lasts for the block."""
    if _is_converted(source):
        folder = ConvertedFolder(source)
        if options.dtype in {None, folder.dtype}:
            yield folder, None
            return
        # What was recognised and decided is in the folder already, all but the dtype.
        options = replace(options, framework=REFERENCE.framework)
    with working_folder(out, keep={partial_name(_CONVERTED)}) as work:
        converted = work / _CONVERTED
        options = replace(options, formats=())
        report = run_conversion(source, converted, options, progress, planned).report
        yield ConvertedFolder(converted), report


def _network(folder: ConvertedFolder, checkpoint: Checkpoint, target: Family) -> Network:
    """A converted folder, to be read under the names of a target."""
    config, processor = folder.config, folder.processor
    stated = None
    if processor.do_resize:
        stated = EvalTransform.of(processor).for_channels(config.num_channels)
    return Network(
        target=target,
        checkpoint=checkpoint,
        stored=folder.tensors,
        config=config,
        has_classifier=folder.has_classifier,
        stated=stated,
        where=folder.path.name,
    )


@contextmanager
def _staged(out: Path, target: Family, *, force: bool) -> Iterator[Path]:
    """A hidden place beside ``out`` that becomes ``out`` when the block succeeds."""
    if target.loads_folder:
        with staged_folder(out, force=force) as staging:
            yield staging
        return
    with staged_file(out.absolute()) as staging:
        yield staging


def _require_place(out: Path, target: Family, *, force: bool) -> None:
    """Check that a target's file or folder may be made."""
    if target.loads_folder:
        require_place(out, 0, force=force)
        return
    framework = target.keymap.framework
    if out.is_dir():
        raise InputError(f"{out} is a folder, and {framework} loads a file; name a file in it.")
    if out.exists() and not force:
        raise InputError(f"{out} exists already; choose another output or replace it with --force.")
    if not out.absolute().parent.is_dir():
        raise InputError(f"{out.parent} is no folder; make it, or choose another output.")


def _require_same(written: Path, network: Network) -> str:
    """Read what was written as any checkpoint is read, and compare it with the folder.

    Returns:
        What the file cannot say of the evaluation transform.

    Raises:
        ReadBackError: If it cannot be read, a tensor is missing or has other bytes, or the file
            says another transform.
    """
    target = network.target
    framework = target.keymap.framework
    options = SourceOptions(framework, target.preprocessing.channel_order)
    try:
        with inspected(written, options) as (checkpoint, inspection):
            tensors = _different_tensors(checkpoint, inspection, network)
            read, config = inspection.source.transform, inspection.source.config
    except InputError as error:
        raise ReadBackError(
            f"What was written for {framework} cannot be read back ({error}); nothing was "
            "published, please report it."
        ) from error
    if tensors:
        raise ReadBackError(
            f"What was written for {framework} differs from the converted network in "
            f"{len(tensors)} tensors, first {tensors[0]}; nothing was published, please "
            "report it."
        )
    for name in ("hidden_act", "downsample_in_first_stage"):  # which no tensor shows
        if getattr(config, name) != getattr(network.config, name):
            raise ReadBackError(
                f"What was written for {framework} is another network than the converted one "
                f"({name} is {getattr(config, name)}); nothing was published, please report it."
            )
    if network.stated is None:  # and the target's file can say so, or says nothing of images
        return ""
    different = network.transform.differences(read)
    if wrong := sorted(different & target.says_of_images):
        raise ReadBackError(
            f"What was written for {framework} is evaluated otherwise than the converted network "
            f"({', '.join(wrong)}: {read.in_words}); nothing was published, please report it."
        )
    return network.transform.in_words if different else ""


def _different_tensors(
    checkpoint: Checkpoint, inspection: Inspection, network: Network
) -> list[str]:
    """The tensors that do not read back with the type, shape and bytes they have in the folder."""
    steps = {step.target.name: step for step in inspection.plan.steps}
    different = sorted(steps.keys() ^ network.stored.keys())
    for name in steps.keys() & network.stored.keys():
        ours, theirs = network.stored[name], steps[name].tensor
        if name.endswith(COUNTER) and not network.target.keymap.leaves.count_batches:
            continue
        if theirs is None or (theirs.dtype, theirs.shape) != (ours.dtype, ours.shape):
            different.append(name)
            continue
        read = tensor_chunks(checkpoint, theirs, flip=steps[name].flip)
        if _digest(read) != _digest(network.checkpoint.chunks(ours)):
            different.append(name)
    return different


def _digest(chunks: Iterable[bytes]) -> bytes:
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return digest.digest()
