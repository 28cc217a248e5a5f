"""`regnet verify` and `converters.verify`: the verdict on a converted folder, again."""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.folder.folder import ConvertedFolder
from converters.folder.images import find_images
from converters.parity.verify import verify_folder
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from converters.families.source import ChannelOrder, WeightsChoice
    from converters.parity.report import Report
    from converters.progress import Progress
    from converters.published.located import Place


def verify(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    *,
    images: Place | Iterable[Place] = (),
    against: Place | None = None,
    framework: str | None = None,
    channel_order: ChannelOrder | None = None,
    weights: WeightsChoice | None = None,
    head: str | None = None,
    artefacts: Place | Iterable[Place] = (),
    runtimes: Sequence[str] = (),
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
        against: The checkpoint that it was made from, to be run by its own framework; read as it
            was when the folder was made, unless one of the following says how.
        framework: Whose checkpoint that is.
        channel_order: Of the images that it was trained on.
        weights: Which set of it.
        head: Which head of it.
        artefacts: Files that lie elsewhere, to be judged by the folder as well: ONNX, TorchScript
            and ``.pt2``, of any tool.
        runtimes: What the folder's artefacts are judged in beside their own runtimes: ``tract``,
            ``mnn``, ``opencv``, ``ort``.
        progress: Who wants to know how far it is.

    Raises:
        InputError: If a file is missing or cannot be read, or the record is damaged.
    """
    options = None
    if framework or channel_order or weights or head:
        if against is None:
            raise InputError(
                "--from, --channel-order, --weights and --head say how the checkpoint of --against "
                "is read; name it, or leave them out."
            )
        options = SourceOptions(framework, channel_order, weights or "best", head)
    checkpoint = None if against is None else Path(against)
    pictures = find_images(images)
    others = [artefacts] if isinstance(artefacts, str | PathLike) else artefacts
    return verify_folder(
        ConvertedFolder(folder),
        progress,
        pictures,
        checkpoint,
        options,
        others=[*map(Path, others)],
        runtimes=runtimes,
    )
