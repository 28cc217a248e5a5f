"""The unit of error: what an honest computation in the same precision gets wrong.

It is computed, not sampled from runtimes that happen to be there: the network runs with the errors
of its precision drawn at random behind every operation, several times, and the unit is the root
mean square of what that does to an output. Each batch and each output has its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from converters.parity.metrics import AMPLIFIED, Batches, Errors, Inputs, Outputs, rms
from regnet.design_space import complexity

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_BUDGET = 500_000_000
"""Multiply-adds that all draws of images of one shape may cost, unless the fewest cost more."""

_MOST = 8
"""Draws. In small networks errors have few sources, so that draws differ more, and cost little."""

FEWEST = 2
"""Draws, but for a single image."""

_DOUBT = 16.0
"""The square of a unit is wider by this part of the independent errors it was drawn from: the ratio
of an artefact's error to it has the tail of Student's distribution."""

_USUAL_SOURCES = 16
"""Independent errors of a single draw, where no second one tells."""

_FEW_CLASSES, _FEWEST_OF_FEW = 10, 4
"""Below so many outputs there are more draws, since each tells little."""

_LEAST = float(np.finfo(np.float32).tiny)
"""What any runtime may flush to zero."""


class Group(NamedTuple):
    """Batches whose images have one shape, which are computed at once.

    Attributes:
        images: Batch to where its images are among all of the group.
        draws: How often each image is computed.
    """

    images: dict[str, slice]
    draws: int


class Drawn(NamedTuple):
    """What the network puts out with float32's errors drawn behind its operations.

    Attributes:
        groups: Batches whose images have one shape.
        outputs: Of each group, output name to (draws x images, ...).
    """

    groups: list[Group]
    outputs: list[Outputs]


def float32_units(drawn: Drawn, oracle: Batches) -> dict[str, dict[str, Errors]]:
    """The unit of float32 for each output on each batch.

    Args:
        drawn: From :func:`converters.parity.computed.drawn_in_float32`.
        oracle: Batch to output name to array, in float64.

    Returns:
        Batch to output name to unit; not finite if the network is not within float32.
    """
    units: dict[str, dict[str, Errors]] = {batch: {} for batch in oracle}
    for group, outputs in zip(*drawn, strict=True):
        for batch, images in group.images.items():
            for name, output in outputs.items():
                draws = output.reshape(group.draws, -1, *output.shape[1:])[:, images]
                truth = oracle[batch][name]
                unit = root_mean_square(draws, truth, AMPLIFIED).times(widening(draws, truth))
                units[batch][name] = unit.at_least(Errors(_LEAST, _LEAST))
    return units


def groups_of(folder: ConvertedFolder, inputs: Inputs) -> list[Group]:
    """Batches by the shape of their images, and how often to draw errors for each shape."""
    by_shape: dict[tuple[int, ...], list[str]] = {}
    for batch, pixels in inputs.items():
        by_shape.setdefault(pixels.shape[1:], []).append(batch)
    size = max(max(pixels.shape[2:]) for pixels in inputs.values())
    per_pixel = complexity(folder.config, size).flops / size**2
    found = []
    for shape, batches in by_shape.items():
        images, first = {}, 0
        for batch in batches:
            images[batch] = slice(first, first + len(inputs[batch]))
            first = images[batch].stop
        cost = per_pixel * shape[1] * shape[2] * first
        fewest = FEWEST if first > 1 else 1
        if folder.has_classifier and 0 < folder.config.num_labels < _FEW_CLASSES:
            fewest = _FEWEST_OF_FEW
        found.append(Group(images, int(np.clip(_BUDGET / max(cost, 1), fewest, _MOST))))
    return found


def root_mean_square(
    draws: NDArray[np.floating], truth: NDArray[np.floating], amplified: float = 1.0
) -> Errors:
    """Over the draws, which are on the first axis."""
    with np.errstate(invalid="ignore", over="ignore"):
        errors = [Errors.of(output, truth.astype(np.float64)) for output in draws]
        return Errors(
            rms(np.array([error.max for error in errors])) / amplified,
            rms(np.array([error.rms for error in errors])) / amplified,
        )


def widening(draws: NDArray[np.floating], truth: NDArray[np.floating]) -> float:
    """How much wider a unit is because it was drawn so few times.

    What counts is not how many values an output has, but from how many sources their errors come: a
    saturated gate or a norm of tiny variance may make them all. If two draws' errors are vectors,
    the mean of the squared cosine between them is one by their number of dimensions.
    """
    count = len(draws)
    if count == 1:
        return math.sqrt(1 + _DOUBT / min(truth.size, _USUAL_SOURCES))
    with np.errstate(invalid="ignore", over="ignore"):
        errors = (draws - truth).reshape(count, -1)
        errors /= np.maximum(np.linalg.norm(errors, axis=1, keepdims=True), _LEAST)
        cosines = np.square(errors @ errors.T)
    alike = float((cosines.sum() - np.trace(cosines)) / (count * (count - 1)))
    return math.sqrt(1 + _DOUBT * min(alike, 1.0) / count)
