"""Evaluating a converted folder on a folder of images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.folder.images import UnreadableImagesError, read_in_batches
from converters.jobs.evaluate import Evaluation, evaluate
from converters.jobs.evaluate_classes import labelled_images
from converters.jobs.predict import (
    BATCH_SIZE,
    classifier_folder,
    open_runtime,
    present_runtimes,
)
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.progress import Progress


@dataclass(frozen=True, slots=True)
class FolderEvaluation:
    """What was counted on a folder of images.

    Attributes:
        evaluation: The counts.
        matched_by: How class folders were matched to classes, in words.
        unreadable: One sentence for each image that could not be read and was left out.
    """

    evaluation: Evaluation
    matched_by: str
    unreadable: Sequence[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.evaluation.to_dict(),
            "matched_by": self.matched_by,
            "unreadable": list(self.unreadable),
        }


def evaluate_folder(  # noqa: PLR0913 -- one keyword for each choice
    path: Path,
    images: Path,
    *,
    runtimes: Sequence[str] = (),
    classes: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
    progress: Progress = SILENT,
) -> FolderEvaluation:
    """Evaluate a converted folder.

    Args:
        path: The converted folder.
        images: One folder for each class, see
            :func:`converters.jobs.evaluate_classes.labelled_images`.
        runtimes: Keys of :data:`converters.formats.registry.FORMATS`, and ``torch``; empty for all
            that the folder has.
        classes: Names of class folders in class order; None where their names speak for themselves.
        limit: At most so many images, spread evenly.
        batch_size: Images that go through a network at once.
        threads: How many compute.
        progress: Who wants to know how many images are done.

    Raises:
        InputError: If something cannot be used.
        UnreadableImagesError: If no image could be read.
    """
    folder = classifier_folder(path)
    labelled = labelled_images(images, folder.config.id2label, classes)
    labelled = labelled.limited(limit)
    names = list(dict.fromkeys(runtimes)) or present_runtimes(folder)
    opened = {name: open_runtime(folder, name, threads) for name in names}
    progress.step("evaluating", len(labelled.classes))
    unreadable: list[str] = []
    processor = folder.processor

    def batches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        reading = read_in_batches(labelled.classes, processor, batch_size, unreadable)
        for files, pixels in reading:
            yield pixels, np.array([labelled.classes[file] for file in files])
            progress.advance(len(files))

    evaluation = evaluate(opened, batches())
    if not evaluation.images:
        raise UnreadableImagesError(*unreadable)
    return FolderEvaluation(evaluation, labelled.matched_by, unreadable)
