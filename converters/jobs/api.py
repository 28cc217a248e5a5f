"""The front door's functions: each job by plain paths and keywords, as `import converters` has it.

The jobs themselves take options as one object, so that a batch can send them to another process;
here are the same names and defaults as keywords, and what a command does around its job: a
published checkpoint is fetched by its name, folders and patterns of images are looked through.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from converters.families.options import SourceOptions
from converters.formats.registry import DEFAULT_FORMATS
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from converters.families.source import ChannelOrder, WeightsChoice
    from converters.jobs.bench_folder import Bench
    from converters.jobs.convert import Conversion
    from converters.jobs.evaluate_folder import FolderEvaluation
    from converters.jobs.predict import Prediction
    from converters.parity.compare.comparison import Comparison
    from converters.parity.report import Report
    from converters.progress import Progress
    from converters.weights.inspection import Inspection
    from regnet.files.dtypes import DType

    Place = str | os.PathLike[str]


def convert(  # noqa: PLR0913 -- one keyword per option
    checkpoint: Place,
    out: Place,
    *,
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    dtype: DType | None = None,
    labels: Sequence[str] | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    share_weights: bool = False,
    calibration_images: Iterable[Place] = (),
    max_shard_size: int | str | None = None,
    force: bool = False,
    allow_nonfinite: bool = False,
    verify: bool = True,
    progress: Progress = SILENT,
) -> Conversion:
    """Convert a checkpoint; ``out`` appears only when every verdict is pass.

    >>> conversion = convert("RegNetY-FashionMNIST.pyth", "new", formats=[], verify=False)
    >>> conversion.inspection.source.framework
    'pycls'
    >>> ConvertedFolder("new").config.layer_type
    'y'

    Args:
        checkpoint: A file or folder of any framework, or the name of a published checkpoint.
        out: The folder to be made.
        framework: Whose checkpoint it is, as `regnet convert --from` spells it; None recognises it.
        channel_order: Of the images the network was trained on; None as the checkpoint says.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        dtype: What to store the weights in; None is float32.
        labels: Names of the classes, in order; None leaves them as the checkpoint has them.
        formats: Artefacts to write, as `--format` spells them.
        share_weights: Whether ONNX points into ``model.safetensors``.
        calibration_images: What int8 is calibrated on: files, folders, patterns.
        max_shard_size: Split weights into files of at most so many bytes; also ``"5GB"``.
        force: Whether an existing output may be replaced.
        allow_nonfinite: Whether weights may hold NaN, infinity or a negative variance.
        verify: Whether the network is run and every artefact judged before ``out`` appears.
        progress: Who wants to know how far it is.

    Returns:
        What was converted, and the verdicts; None of those without ``verify``.

    Raises:
        InputError: If the checkpoint or the options cannot be used.
        UnsafeInputError: If the checkpoint would run code.
        StorageError: If the disk is full or a file cannot be read or written.
        VerificationError: If an artefact differs from the oracle; nothing is published.
    """
    from converters.jobs.convert import ConvertOptions
    from converters.jobs.convert import convert as run
    from converters.published.located import located

    source = SourceOptions(framework, channel_order, weights, head)
    path, source = located(Path(checkpoint), source, progress)
    options = ConvertOptions(
        source=source,
        dtype=dtype,
        labels=labels,
        formats=formats,
        share_weights=share_weights,
        calibration_images=_paths(calibration_images),
        max_shard_size=_bytes(max_shard_size),
        force=force,
        allow_nonfinite=allow_nonfinite,
        verify=verify,
    )
    return run(path, Path(out), options, progress)


def inspect(  # noqa: PLR0913 -- one keyword per option
    checkpoint: Place,
    *,
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    progress: Progress = SILENT,
) -> Inspection:
    """Recognise a checkpoint and plan its conversion, from headers alone; no weight is read.

    >>> found = inspect("RegNetY-FashionMNIST.pyth")
    >>> found.source.framework, found.source.config.num_labels
    ('pycls', 10)
    >>> found.plan.steps[0].target.name
    'regnet.embedder.embedder.convolution.weight'

    Args:
        checkpoint: A file or folder of any framework, or the name of a published checkpoint.
        framework: Whose checkpoint it is; None recognises it.
        channel_order: Of the images the network was trained on; None as the checkpoint says.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        progress: Who wants to know how far fetching is.

    Raises:
        InputError: If it cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read.
    """
    from converters.published.located import located
    from converters.weights.inspection import inspected

    source = SourceOptions(framework, channel_order, weights, head)
    path, source = located(Path(checkpoint), source, progress)
    with inspected(path, source) as (_, inspection):
        return inspection


def export(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    formats: Sequence[str] = DEFAULT_FORMATS,
    *,
    share_weights: bool = False,
    opset: int | None = None,
    dynamic: Sequence[str] | None = None,
    shape: tuple[int, ...] | None = None,
    io_float16: bool = False,
    external_data: bool = False,
    calibration_images: Iterable[Place] = (),
    verify: bool = True,
    progress: Progress = SILENT,
) -> Report | None:
    """Write artefacts of a converted folder, again or in another form, all or none.

    >>> export("out", ["onnx-fp16"]).passed
    True

    Args:
        folder: What :func:`convert` or transformers wrote.
        formats: Artefacts to write, as `--format` spells them.
        share_weights: Whether ONNX points into ``model.safetensors``.
        opset: Version of ONNX's operators; None is the one that every runtime takes.
        dynamic: ONNX: of ``batch``, ``height`` and ``width`` those whose size stays open; None is
            all, or with ``shape`` none.
        shape: ONNX: (batch, channels, height, width) of what does not stay open.
        io_float16: Whether ``onnx-fp16`` takes and gives float16 too.
        external_data: Whether ``onnx-web`` and ``onnx-fp16`` put their weights into another file.
        calibration_images: What int8 is calibrated on: files, folders, patterns.
        verify: Whether to verify first; if one artefact fails, none is replaced.
        progress: Who wants to know how far it is.

    Returns:
        The verdicts, or None without ``verify``.

    Raises:
        InputError: If the folder or the options cannot be used.
        StorageError: If a package is missing or a file cannot be written.
        VerificationError: If a verdict is fail.
    """
    from dataclasses import replace

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.form import DEFAULT_FORM, with_sizes
    from converters.jobs.export import export_artefacts

    form = DEFAULT_FORM if opset is None else replace(DEFAULT_FORM, opset=opset)
    if dynamic is not None or shape is not None:
        form = with_sizes(form, ConvertedFolder(folder), dynamic, shape)
    options = ExportOptions(
        share_weights=share_weights,
        form=form,
        io_float16=io_float16,
        external_data=external_data,
        calibration_images=_paths(calibration_images),
    )
    return export_artefacts(Path(folder), formats, options, verify=verify, progress=progress)


def verify(
    folder: Place,
    *,
    images: Iterable[Place] = (),
    against: Place | None = None,
    progress: Progress = SILENT,
) -> Report:
    """Verify a converted folder from nothing but the folder; the report says whether it passed.

    >>> report = verify("out")
    >>> report.passed
    True
    >>> [verdict.artefact for verdict in report.verdicts][1:]
    ['model.safetensors', 'model.onnx', 'model.torchscript.pt']

    Args:
        folder: What :func:`convert` or transformers wrote.
        images: Photographs to verify on as well: files, folders, patterns.
        against: The checkpoint that it was made from, to be run by its own framework, and read as
            it was when the folder was made.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a file is missing or cannot be read, or the record is damaged.
    """
    from converters.folder.folder import ConvertedFolder
    from converters.folder.images import find_images
    from converters.parity.verify import verify_folder

    pictures = find_images(_paths(images))
    source = None if against is None else Path(against)
    return verify_folder(ConvertedFolder(folder), progress, pictures, source)


def compare(  # noqa: PLR0913 -- one keyword per option
    a: Place,
    b: Place,
    *,
    images: Iterable[Place] = (),
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    progress: Progress = SILENT,
) -> Comparison:
    """Find out whether two networks are the same, whatever each is stored as.

    >>> compare("RegNetY-FashionMNIST.pyth", "out").same
    True

    Args:
        a: A converted folder, an ONNX or TorchScript file, a checkpoint of any framework, or the
            name of a published one.
        b: Likewise.
        images: Photographs to run as well: files, folders, patterns.
        framework: Of checkpoints; None recognises it.
        channel_order: Of the images that checkpoints were trained on; None as they say.
        weights: Which set, where a checkpoint has raw and averaged ones.
        head: Which head, where a checkpoint has several.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a side or a photograph cannot be used.
        UnsafeInputError: If one would run code.
        StorageError: If one cannot be read, or there is no room for its weights.
    """
    from converters.folder.images import find_images
    from converters.parity.compare.comparison import compare as run
    from converters.parity.compare.sides import opened
    from converters.published.located import located

    source = SourceOptions(framework, channel_order, weights, head)
    places = [located(Path(side), source, progress) for side in (a, b)]
    with ExitStack() as stack:
        first, second = (stack.enter_context(opened(*place)) for place in places)
        return run(first, second, find_images(_paths(images)), progress)


def predict(
    folder: Place,
    images: Place | Iterable[Place],
    *,
    runtime: str = "onnx",
    top: int = 5,
    batch_size: int = 8,
) -> list[Prediction]:
    """Classify images with a converted folder.

    >>> prediction = predict("out", "0.png", top=1)[0]
    >>> prediction.classes[0][0]
    'T-shirt/top'

    Args:
        folder: What :func:`convert` wrote, of a classifier.
        images: Files, folders, patterns; one or several.
        runtime: What runs it: ``torch``, or a format whose artefact the folder holds.
        top: How many classes to give.
        batch_size: Images that go through the network at once; fewer, if they are very large.

    Returns:
        What each image shows, in their order.

    Raises:
        InputError: If the folder has no classifier or artefact.
        UnreadableImagesError: If images cannot be read.
    """
    from converters.folder.images import UnreadableImagesError, find_images
    from converters.jobs.predict import predict_each

    unreadable: list[str] = []
    pictures = find_images(_paths(images))
    predictions = list(
        predict_each(
            Path(folder), pictures, unreadable, runtime=runtime, top=top, batch_size=batch_size
        )
    )
    if unreadable:
        raise UnreadableImagesError(*unreadable)
    return predictions


def evaluate(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    images: Place,
    *,
    runtimes: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = 8,
    threads: int = 1,
    progress: Progress = SILENT,
) -> FolderEvaluation:
    """Measure accuracy on labelled images, and how far runtimes agree.

    >>> result = evaluate("out", "val", runtimes=["onnx"])
    >>> result.evaluation.scores["onnx"].top1
    4

    Args:
        folder: What :func:`convert` wrote, of a classifier.
        images: One folder of images for each class.
        runtimes: ``torch`` and formats; empty for all that the folder has.
        labels: Names of the class folders in class order; None where they speak for themselves.
        limit: At most so many images, spread evenly.
        batch_size: Images that go through a network at once.
        threads: How many compute.
        progress: Who wants to know how many images are done.

    Raises:
        InputError: If something cannot be used.
        UnreadableImagesError: If no image could be read.
    """
    from converters.jobs.evaluate_folder import evaluate_folder

    return evaluate_folder(
        Path(folder),
        Path(images),
        runtimes=runtimes,
        classes=labels,
        limit=limit,
        batch_size=batch_size,
        threads=threads,
        progress=progress,
    )


def bench(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    *,
    runtimes: Sequence[str] = (),
    batch_sizes: Sequence[int] = (1, 8),
    threads: Sequence[int] = (1,),
    rounds: int = 10,
    image_size: int | None = None,
    progress: Progress = SILENT,
) -> Bench:
    """Time artefacts and eager PyTorch in turn, and say which to deploy on this machine.

    >>> result = bench("out", runtimes=["onnx"], batch_sizes=[1], rounds=1)
    >>> [entry.verdict for entry in result.entries]
    ['pass']

    Args:
        folder: What :func:`convert` wrote.
        runtimes: ``torch`` and formats; empty for all that the folder has.
        batch_sizes: Numbers of images that go through the network at once.
        threads: Numbers of threads.
        rounds: How many turns each has on each batch.
        image_size: Side of the images in pixels; None for the network's own.
        progress: Who wants to know how many turns are done.

    Raises:
        InputError: If the folder cannot be used or lacks an artefact that was asked for.
        UnsafeInputError: If an artefact in it is not safe to be opened.
    """
    from converters.jobs.bench_folder import bench_folder

    return bench_folder(
        Path(folder),
        runtimes=runtimes,
        batches=batch_sizes,
        threads=threads,
        rounds=rounds,
        image_size=image_size,
        progress=progress,
    )


def _paths(places: Place | Iterable[Place]) -> list[Path]:
    """One place or several, as paths."""
    if isinstance(places, str | os.PathLike):
        return [Path(places)]
    return [Path(place) for place in places]


def _bytes(size: int | str | None) -> int | None:
    from converters.errors import InputError
    from regnet.files.safetensors_file import parse_size

    if size is None:
        return None
    try:
        return parse_size(size)
    except ValueError as error:
        raise InputError(str(error)) from error
