"""`regnet predict` and `converters.predict`: classifying images, through any runtime."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import (
    ConversionError,
    InputError,
    StorageError,
    for_shell,
    in_words,
    is_short_of_memory,
)
from converters.folder.folder import ConvertedFolder
from converters.folder.images import UnreadableImagesError, find_images, read_in_batches
from converters.folder.interface import unnormalised
from converters.formats.confined.runtime import ConfinedRuntime
from converters.formats.memory import MemoryShortError
from converters.formats.registry import (
    FORMATS,
    OTHER_RUNTIMES,
    artefacts_in,
    offered_by,
    run_by,
)
from converters.formats.runtime import ArtefactRuntime, softmax
from converters.parity.contents.tensors import is_ours
from regnet.architecture import PROBABILITIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.formats.runtime import Runtime
    from converters.published.located import Place

EAGER = "torch"
"""The runtime that needs no artefact: the reference model itself."""

MOST_THREADS = 256
"""On a machine of fewer cores. More only wait for each other, and thousands for minutes."""

BATCH_SIZE = 8
"""Images that go through the network at once, unless somebody asks for another number."""


class NotRunHereError(StorageError):
    """What runs an artefact is not on this machine, where it can be evaluated and no more."""


@dataclass(frozen=True, slots=True)
class Prediction:
    """The best classes of one image, with their probabilities."""

    image: Path
    classes: tuple[tuple[str, float], ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        classes = [{"label": label, "probability": score} for label, score in self.classes]
        return {"image": str(self.image), "classes": classes}


def predict(
    folder: Place,
    images: Place | Iterable[Place],
    *,
    runtime: str = "onnx",
    top: int = 5,
    batch_size: int = BATCH_SIZE,
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
        InputError: If the folder has no classifier or artefact, or that takes no such batch.
        UnreadableImagesError: If images cannot be read.
    """
    unreadable: list[str] = []
    files = find_images(images)
    predictions = list(predict_each(folder, files, unreadable, runtime, top, batch_size))
    if unreadable:
        raise UnreadableImagesError(*unreadable)
    return predictions


def predict_each(  # noqa: PLR0913, PLR0917 -- as many as :func:`predict` has
    path: Place,
    images: Sequence[Path],
    unreadable: list[str],
    runtime: str,
    top: int,
    batch_size: int,
) -> Iterator[Prediction]:
    """:func:`predict` image files, one batch in memory at a time.

    Args:
        path: The converted folder.
        images: Files that Pillow reads.
        unreadable: Gets one sentence for each file that cannot be read; it is left out.
        runtime: As there, here and below.
        top: How many classes.
        batch_size: How many images.

    Yields:
        What each image shows, in their order.
    """
    folder = classifier_folder(path)
    network = open_runtime(folder, runtime)
    reading = read_in_batches(images, folder.processor, batch_size, unreadable)
    for files, pixels in reading:
        probabilities = probabilities_of(scores_of(network, pixels))
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :top]
        for file, scores, ranking in zip(files, probabilities, best, strict=True):
            classes = ((folder.config.id2label[int(i)], float(scores[i])) for i in ranking)
            yield Prediction(file, tuple(classes))


def classifier_folder(path: Place) -> ConvertedFolder:
    """Open a folder that predicts classes.

    Raises:
        InputError: If it is none, or a trunk.
    """
    folder = ConvertedFolder(path)
    if not folder.has_classifier or not folder.config.num_labels:
        raise InputError(f"{path} has no classifier, so it predicts no classes.")
    return folder


def present_runtimes(folder: ConvertedFolder) -> list[str]:
    """``torch``, and the key of every format whose artefact the folder holds."""
    return [EAGER, *artefacts_in(folder.path)]


def open_runtime(folder: ConvertedFolder, name: str, threads: int = 1) -> ArtefactRuntime:
    """Open a folder's artefact, or the reference model for ``torch``.

    All take normalised pixels; an artefact that normalises itself is given what it makes them of.

    Args:
        folder: A converted folder.
        name: A key of :data:`converters.formats.registry.FORMATS` or of
            :data:`converters.formats.registry.OTHER_RUNTIMES`, or ``torch``.
        threads: How many compute.

    Raises:
        InputError: If there is no such runtime, the folder lacks the artefact, that cannot be
            opened, or there are more threads than :data:`MOST_THREADS` and cores.
        StorageError: If the artefact would not fit into memory.
        NotRunHereError: If what runs it is not on this machine.
    """
    require_known(name)
    if threads > (most := max(MOST_THREADS, os.cpu_count() or 1)):
        raise InputError(f"{threads} threads cannot compute at once; give at most {most}.")
    if name == EAGER:
        from converters.formats.reference import ReferenceRuntime

        return ReferenceRuntime(folder, threads=threads)
    kind = run_by(name)
    path = folder.path / kind.file_name
    if not kind.is_in(folder.path):
        raise InputError(
            f"{folder.path} has no {kind.file_name}; write it with "
            f"`regnet export {for_shell(folder.path)} --format {kind.name}`."
        )
    folder = offered_by(folder, kind.name, path)
    try:
        if name in FORMATS and is_ours(folder, name, path):
            runtime: ArtefactRuntime = FORMATS[name].load(path, folder.output_names, threads)
        else:
            runtime = ConfinedRuntime(folder, name, path, threads)
        if folder.statistics:
            runtime = _TakingNormalised(runtime, folder.statistics)
    except MemoryShortError as error:
        raise StorageError(
            f"{path.name} cannot be run: {error}; take another --runtime or a larger machine."
        ) from error
    except Exception as error:
        if isinstance(error, ConversionError) or is_short_of_memory(error):
            raise
        raise InputError(
            f"{path.name} cannot be opened by {name} ({in_words(error)}); write it again with "
            f"`regnet export {for_shell(folder.path)} --format {kind.name}`."
        ) from error
    if runtime.not_run is not None:
        raise NotRunHereError(
            f"{path.name} cannot be run here ({runtime.not_run}); take another --runtime."
        )
    return runtime


def require_known(name: str) -> None:
    """Do nothing if there is such a runtime.

    Raises:
        InputError: If it is neither ``torch`` nor a key of
            :data:`converters.formats.registry.FORMATS` or of
            :data:`converters.formats.registry.OTHER_RUNTIMES`.
    """
    known = (EAGER, *FORMATS, *OTHER_RUNTIMES)
    if name not in known:
        raise InputError(f"--runtime {name} is not known; choose one of {', '.join(known)}.")


class _TakingNormalised(ArtefactRuntime):
    """An artefact that normalises images itself, of images that are normalised."""

    def __init__(
        self, runtime: ArtefactRuntime, statistics: tuple[tuple[float, ...], tuple[float, ...]]
    ) -> None:
        self._runtime, self._statistics = runtime, statistics
        self.name, self.precision = runtime.name, runtime.precision
        self.sizes, self.not_run = runtime.sizes, runtime.not_run

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        return self._runtime(unnormalised(pixel_values, self._statistics))

    def seconds(self, pixel_values: NDArray[np.float32], calls: int) -> list[float]:
        return self._runtime.seconds(unnormalised(pixel_values, self._statistics), calls)


@dataclass(frozen=True, slots=True)
class Scores:
    """What a classifier gives for a batch, (N, classes).

    Attributes:
        values: Logits or probabilities.
        are_probabilities: Which of them.
    """

    values: NDArray[np.floating]
    are_probabilities: bool = False


def scores_of(network: Runtime, pixels: NDArray[np.float32]) -> Scores:
    """Run a classifier on a batch.

    Args:
        network: What runs it.
        pixels: (N, num_channels, H, W), normalised.

    Raises:
        InputError: If it cannot run such a batch, as one of a fixed shape cannot.
    """
    try:
        outputs = network(pixels)
        if PROBABILITIES in outputs:
            return Scores(outputs[PROBABILITIES], are_probabilities=True)
        return Scores(outputs["logits"])
    except Exception as error:
        shape = " x ".join(map(str, pixels.shape))
        raise InputError(
            f"{network.name} cannot run a batch of {shape} ({in_words(error)}); try "
            "another --batch-size."
        ) from error


def probabilities_of(scores: Scores) -> NDArray[np.floating]:
    """The same as probabilities."""
    return scores.values if scores.are_probabilities else softmax(scores.values)
