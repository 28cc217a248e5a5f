"""`regnet evaluate` and `converters.evaluate`: accuracy of runtimes, and how far they agree."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError
from converters.folder.folder import CARD_NAME, REPORT_NAME
from converters.folder.images import UnreadableImagesError, read_in_batches
from converters.folder.record import Record
from converters.formats.registry import FORMATS
from converters.jobs.evaluate_classes import labelled_images
from converters.jobs.predict import (
    BATCH_SIZE,
    NotRunHereError,
    classifier_folder,
    open_runtime,
    present_runtimes,
    probabilities_of,
    scores_of,
)
from converters.parity.recording import with_files
from converters.progress import SILENT
from converters.reports.card import is_ours, read_card, with_scores
from converters.staging.staged import staged_update

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.runtime import Runtime
    from converters.progress import Progress
    from converters.published.located import Place

_FIVE = 5


@dataclass(slots=True)
class Score:
    """How often one runtime is right.

    Attributes:
        images: How many it has seen.
        top1: For how many its best class is the true one.
        top5: For how many the true class is among its five best; None for a network of at most five
            classes.
    """

    images: int = 0
    top1: int = 0
    top5: int | None = None

    def add(self, logits: NDArray[np.floating], truth: NDArray[np.int64]) -> None:
        """Count a batch.

        Args:
            logits: (N, classes). An image with a logit that is not finite counts as wrong.
            truth: (N,).
        """
        finite = np.isfinite(logits).all(axis=1)
        best = np.argsort(-logits, axis=1, kind="stable")[:, :_FIVE]
        hits = (best == truth[:, None]) & finite[:, None]
        self.images += len(truth)
        self.top1 += int(hits[:, 0].sum())
        if logits.shape[1] > _FIVE:
            self.top5 = (self.top5 or 0) + int(hits.sum())

    @property
    def shares(self) -> dict[str, float]:
        """``top-1`` and, where there is one, ``top-5``: shares of all images."""
        counts = {"top-1": self.top1, "top-5": self.top5}
        return {name: n / self.images for name, n in counts.items() if n is not None}

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; shares of all images."""
        shares = self.shares
        return {"images": self.images, "top1": shares["top-1"], "top5": shares.get("top-5")}


@dataclass(slots=True)
class Agreement:
    """How far two runtimes agree.

    Attributes:
        images: How many both have seen.
        same: For how many they name the same best class.
        largest: Largest difference of any logit, or probability; not finite if one is not.
    """

    images: int = 0
    same: int = 0
    largest: float = 0.0
    _sum: float = 0.0
    _values: int = 0

    @property
    def mean(self) -> float:
        """Mean absolute difference of all logits."""
        return self._sum / self._values if self._values else 0.0

    def add(self, first: NDArray[np.floating], second: NDArray[np.floating]) -> None:
        """Count a batch of logits, (N, classes)."""
        difference = np.abs(first.astype(np.float64) - second)
        self.images += len(first)
        self.same += int((first.argmax(axis=1) == second.argmax(axis=1)).sum())
        self.largest = float(np.maximum(self.largest, difference.max()))  # a NaN stays
        self._sum += float(difference.sum())
        self._values += difference.size

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; None for what is not finite."""
        return {
            "top1_agreement": self.same / self.images,
            "mean_difference": self.mean if math.isfinite(self.mean) else None,
            "largest_difference": self.largest if math.isfinite(self.largest) else None,
        }


@dataclass(frozen=True)
class Evaluation:
    """What was counted.

    Attributes:
        scores: Key of a runtime to its score.
        agreements: Keys of two runtimes, in the order of the scores, to their agreement.
        compared: What runtimes were compared by: ``logits``, or ``probabilities`` where one of them
            gives no others.
    """

    scores: Mapping[str, Score]
    agreements: Mapping[tuple[str, str], Agreement] = field(default_factory=dict)
    compared: str = "logits"

    @classmethod
    def of(cls, runtimes: Sequence[str]) -> Evaluation:
        """Nothing counted yet."""
        pairs = combinations(runtimes, 2)
        return cls({name: Score() for name in runtimes}, {pair: Agreement() for pair in pairs})

    @property
    def images(self) -> int:
        """How many images were counted."""
        return next(iter(self.scores.values())).images

    def between(self, first: str, second: str) -> Agreement:
        """The agreement of two runtimes, in either order."""
        pair = (first, second)
        return self.agreements[pair if pair in self.agreements else (second, first)]

    def add(self, logits: Mapping[str, NDArray[np.floating]], truth: NDArray[np.int64]) -> None:
        """Count a batch.

        Args:
            logits: Key of every runtime to (N, classes).
            truth: True classes, (N,).
        """
        for name, score in self.scores.items():
            score.add(logits[name], truth)
        for (first, second), agreement in self.agreements.items():
            agreement.add(logits[first], logits[second])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "images": self.images,
            "runtimes": {name: score.to_dict() for name, score in self.scores.items()},
            "agreement": [
                {"runtimes": list(pair), **agreement.to_dict()}
                for pair, agreement in self.agreements.items()
            ],
            **({"compared": self.compared} if self.compared != "logits" else {}),
        }


def count(
    runtimes: Mapping[str, Runtime],
    batches: Iterable[tuple[NDArray[np.float32], NDArray[np.int64]]],
) -> Evaluation:
    """Run classifiers on the same batches, and count; no batch is kept.

    Args:
        runtimes: Key to what runs the network.
        batches: Pixels (N, num_channels, H, W) and true classes (N,).

    Raises:
        InputError: If a runtime cannot run a batch.
    """
    evaluation = Evaluation.of(list(runtimes))
    for pixels, truth in batches:
        scores = {name: scores_of(network, pixels) for name, network in runtimes.items()}
        if any(each.are_probabilities for each in scores.values()):
            evaluation = replace(evaluation, compared="probabilities")
            evaluation.add({n: probabilities_of(each) for n, each in scores.items()}, truth)
        else:
            evaluation.add({name: each.values for name, each in scores.items()}, truth)
    return evaluation


@dataclass(frozen=True, slots=True)
class FolderEvaluation:
    """What was counted on a folder of images.

    Attributes:
        evaluation: The counts.
        matched_by: How class folders were matched to classes, in words.
        unreadable: One sentence for each image that could not be read and was left out.
        absent: Runtime to why it cannot be run on this machine, in a sentence.
    """

    evaluation: Evaluation
    matched_by: str
    unreadable: Sequence[str]
    absent: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            **self.evaluation.to_dict(),
            "matched_by": self.matched_by,
            "unreadable": list(self.unreadable),
            **({"absent": dict(self.absent)} if self.absent else {}),
        }


def evaluate(  # noqa: PLR0913 -- one keyword per option
    folder: Place,
    images: Place,
    *,
    runtimes: Sequence[str] = (),
    labels: Sequence[str] | None = None,
    limit: int | None = None,
    batch_size: int = BATCH_SIZE,
    threads: int = 1,
    card: str | None = None,
    progress: Progress = SILENT,
) -> FolderEvaluation:
    """Measure accuracy on labelled images, and how far runtimes agree.

    >>> result = evaluate("out", "val", runtimes=["onnx"])
    >>> result.evaluation.scores["onnx"].top1
    4

    Args:
        folder: What :func:`convert` wrote, of a classifier.
        images: One folder for each class, see
            :func:`converters.jobs.evaluate_classes.labelled_images`.
        runtimes: Keys of :data:`converters.formats.registry.FORMATS`, and ``torch``; empty for all
            that the folder has.
        labels: Names of class folders in class order; None where they speak for themselves.
        limit: At most so many images, spread evenly.
        batch_size: Images that go through a network at once.
        threads: How many compute.
        card: What the data set is called, on the Hub if it is there: the accuracies enter the
            folder's model card under that name, if every image could be read.
        progress: Who wants to know how many images are done.

    Raises:
        InputError: If something cannot be used, or the folder has no card of ours for ``card``.
        UnreadableImagesError: If no image could be read.
    """
    converted = classifier_folder(folder)
    if card is not None:
        _own_card(converted)
    labelled = labelled_images(Path(images), converted.config.id2label, labels).limited(limit)
    opened, absent = _open(converted, runtimes, threads)
    progress.step("evaluating", len(labelled.classes))
    unreadable: list[str] = []
    processor = converted.processor

    def batches() -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
        reading = read_in_batches(labelled.classes, processor, batch_size, unreadable)
        for files, pixels in reading:
            yield pixels, np.array([labelled.classes[file] for file in files])
            progress.advance(len(files))

    evaluation = count(opened, batches())
    if not evaluation.images:
        raise UnreadableImagesError(*unreadable)
    if card is not None and not unreadable:
        _enter(converted, card, evaluation)
    return FolderEvaluation(evaluation, labelled.matched_by, unreadable, absent)


def _own_card(folder: ConvertedFolder) -> str:
    card = read_card(folder.path)
    if card is None or not is_ours(card):
        raise InputError(
            f"{folder.path} has no {CARD_NAME} that was written here, which --card would add to; "
            "leave it out."
        )
    return card


def _enter(folder: ConvertedFolder, data_set: str, evaluation: Evaluation) -> None:
    """Put accuracies into the model card, and the card's new digest on record."""
    path, record = folder.path, Record.read(folder.path)
    weights = ", ".join(file.name for file in folder.weight_files)
    files = {name: kind.file_name for name, kind in FORMATS.items()} | {"torch": weights}
    scores = {files.get(name, name): score.shares for name, score in evaluation.scores.items()}
    text = with_scores(_own_card(folder), data_set, evaluation.images, scores)
    names = [CARD_NAME, *([REPORT_NAME] if record is not None else [])]
    with staged_update(path, names) as staging:
        (staging / CARD_NAME).write_text(text, encoding="utf-8", newline="\n")
        if record is not None:
            with_files(record, staging, [CARD_NAME]).write(staging)


def _open(
    folder: ConvertedFolder, runtimes: Sequence[str], threads: int
) -> tuple[dict[str, Runtime], dict[str, str]]:
    """What was asked for, or all that the folder has and this machine can run; else why not."""
    opened: dict[str, Runtime] = {}
    absent: dict[str, str] = {}
    for name in dict.fromkeys(runtimes or present_runtimes(folder)):
        try:
            opened[name] = open_runtime(folder, name, threads)
        except NotRunHereError as error:
            if runtimes:
                raise
            absent[name] = str(error)
    return opened, absent
