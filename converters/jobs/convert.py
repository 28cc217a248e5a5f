"""`regnet convert` and `converters.convert`: a checkpoint to a folder, or to a framework's file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converters.formats.registry import DEFAULT_FORMATS
from converters.jobs.conversion import (
    Conversion,
    ConvertOptions,
    plan_conversion,
    run_conversion,
    shard_size,
)
from converters.jobs.writeback import plan_write_back, write_back
from converters.progress import SILENT
from converters.published.located import located, paths

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from converters.families.source import ChannelOrder, WeightsChoice
    from converters.progress import Progress
    from converters.published.located import Place
    from converters.weights.inspection import Inspection
    from regnet.files.dtypes import DType


def convert(  # noqa: PLR0913 -- one keyword per option
    checkpoint: Place,
    out: Place,
    *,
    to: str | None = None,
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice = "best",
    head: str | None = None,
    dtype: DType | None = None,
    labels: Sequence[str] | None = None,
    formats: Sequence[str] = DEFAULT_FORMATS,
    share_weights: bool = False,
    calibration_images: Place | Iterable[Place] = (),
    max_shard_size: int | str | None = None,
    force: bool = False,
    allow_nonfinite: bool = False,
    verify: bool = True,
    dry_run: bool = False,
    progress: Progress = SILENT,
    planned: Callable[[Inspection], object] = lambda _: None,
) -> Conversion:
    """Convert a checkpoint; ``out`` appears only when every verdict is pass.

    Weights of a conversion into ``out`` that was killed are taken up.

    >>> conversion = convert("RegNetY-FashionMNIST.pyth", "new", formats=[], verify=False)
    >>> conversion.inspection.source.framework
    'pycls'
    >>> ConvertedFolder("new").config.layer_type
    'y'
    >>> convert("new", "net.pth", to="torchvision").tensors
    208

    Args:
        checkpoint: A file or folder of any framework, or the name of a published checkpoint.
        out: The folder to be made; with ``to`` the file, or for timm the folder.
        to: Write this framework's own file instead, one of
            :func:`converters.families.known.written_back`. A converted folder is then taken as it
            is, unless ``dtype`` is another; any other checkpoint is converted first.
        framework: Whose checkpoint it is, as `regnet convert --from` spells it; None recognises it.
        channel_order: Of the images the network was trained on; None as the checkpoint says.
        weights: Which set, where the checkpoint has raw and averaged ones.
        head: Which head, where the checkpoint has several.
        dtype: What to store the weights in; None is float32, but a converted folder that is
            written for another framework keeps its own.
        labels: Names of the classes, in order; None leaves them as the checkpoint has them.
        formats: Artefacts to write, as `--format` spells them.
        share_weights: Whether ONNX points into ``model.safetensors``.
        calibration_images: What int8 is calibrated on: files, folders, patterns.
        max_shard_size: Split weights into files of at most so many bytes; also ``"5GB"``.
        force: Whether an existing output may be replaced.
        allow_nonfinite: Whether weights may hold NaN, infinity or a negative variance.
        verify: Whether the network is run and every artefact judged before ``out`` appears.
        dry_run: Whether to plan only, and write nothing; what the conversion would refuse to begin
            is refused. Weights are not read, so what is wrong with their bytes is not seen.
        progress: Who wants to know how far it is.
        planned: Called once the checkpoint is recognised and planned, before anything is written.

    Returns:
        What was converted, and the verdicts; with ``to`` a
        :class:`converters.jobs.writeback.WrittenBack`.

    Raises:
        InputError: If the checkpoint or the options cannot be used, or the framework has no such
            network.
        UnsafeInputError: If the checkpoint would run code.
        StorageError: If a package is missing, the disk is full or a file cannot be read or written.
        VerificationError: If an artefact differs from the oracle; nothing is published.
        ReadBackError: If what was written for a framework is not what was converted; likewise.
    """
    options = ConvertOptions(
        framework,
        channel_order,
        weights,
        head,
        dtype=dtype,
        labels=labels,
        formats=formats,
        share_weights=share_weights,
        calibration_images=paths(calibration_images),
        max_shard_size=shard_size(max_shard_size),
        force=force,
        allow_nonfinite=allow_nonfinite,
        verify=verify,
    )
    path, options = located(checkpoint, options, progress)
    out = Path(out)
    if to is not None:
        if dry_run:
            return Conversion(plan_write_back(path, out, to, options), None)
        return write_back(path, out, to, options, progress, planned)
    if dry_run:
        return Conversion(plan_conversion(path, out, options), None)
    return run_conversion(path, out, options, progress, planned)
