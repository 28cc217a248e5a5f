"""Judging an artefact that prepares images itself, beyond its network.

The network is judged like every other, on normalised pixels. Here the whole is run on pictures,
whose pixels must be the image processor's, whose logits must be the oracle's *on the artefact's own
pixels*, and whose probabilities must follow from its own logits. So each part has a bound of its
own, and none has to make room for another's error.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.folder.inputs import SEED
from converters.formats.onnx.graph import LOGITS
from converters.formats.onnx.preprocessing import PROBABILITIES, TOP_INDICES, TOP_SCORES
from converters.formats.onnx.preprocessing_runtime import ConfinedWhole, WholeWithPreprocessing
from converters.formats.runtime import softmax
from converters.parity.metrics import Errors
from converters.parity.truth import Truth
from converters.parity.verdict import MAX_LIMIT, Measurement, judge
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from regnet.image_processor import RegNetImageProcessor

MOST_STEPS = 1.01
"""How far a pixel may be from the image processor's, in its 255 steps: one, and float32's rounding
of the steps. Pillow's weights are whole numbers, a runtime's may be floats: they part at ties."""

MOST_DIFFERENT = 0.1
"""Which share of pixels may be off by a step. On photographs ONNX Runtime comes to 0.05 % with the
bicubic filter and to 0.5 % with the bilinear one; on drawings of few colours, where many sums are
ties, to 4 %. Truncating instead of rounding would make it half of all."""

_PATCH = 9
_LARGE = 1024
"""Pixels a side; no published network takes more."""
_FLOAT32 = float(np.finfo(np.float32).eps)


def measure_preprocessing(
    folder: ConvertedFolder, path: Path, *, confined: bool = False
) -> tuple[Measurement, ...]:
    """Run the whole artefact on pictures of three sizes, or of the one that it takes.

    Args:
        folder: Whose artefact it is.
        path: From :func:`converters.formats.onnx.preprocessing.export_with_preprocessing`.
        confined: Whether to run it in a process of its own.

    Returns:
        For each size ``pixel_values`` in steps of a byte, ``logits`` and ``probabilities``.

    Raises:
        InputError: If the folder cannot be used.
    """
    processor = folder.processor
    whole = ConfinedWhole(path) if confined else WholeWithPreprocessing(path)
    channels = folder.config.num_channels
    pictures = {
        f"pictures {width} x {height}": sample_pictures(batch, height, width, channels)
        for batch, height, width in sizes_for(processor, whole.sizes)
    }
    values = {batch: whole(images) for batch, images in pictures.items()}
    truth = Truth(folder, {batch: found[PIXELS] for batch, found in values.items()})
    pixels = [
        _pixels(
            batch,
            values[batch][PIXELS],
            processor(list(images), return_tensors="np").pixel_values,
            step_of(processor),
        )
        for batch, images in pictures.items()
    ]
    logits = judge(values, truth.units(), truth.oracle)
    return (*pixels, *logits, *(_probabilities(batch, found) for batch, found in values.items()))


def sample_pictures(batch: int, height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """Patches and lines under noise, (batch, height, width, channels), the same every time."""
    random = np.random.default_rng(SEED)
    grid = random.integers(0, 256, (batch, height // _PATCH + 1, width // _PATCH + 1, channels))
    coarse = grid.repeat(_PATCH, axis=1).repeat(_PATCH, axis=2)[:, :height, :width]
    noise = random.normal(scale=20, size=coarse.shape)
    coarse[:, :: _PATCH + 2] = 255
    return np.clip(coarse + noise, 0, 255).astype(np.uint8)


def step_of(processor: RegNetImageProcessor) -> NDArray[np.float64]:
    """By how much a normalised pixel changes with one step of its byte: (channels,)."""
    scale = processor.rescale_factor if processor.do_rescale else 1.0
    std = np.array(processor.image_std) if processor.do_normalize else np.ones(1)
    return scale / np.broadcast_to(std, len(processor.image_std))


def sizes_for(
    processor: RegNetImageProcessor, fixed: Sequence[int | None]
) -> list[tuple[int, int, int]]:
    """Batch, height and width of pictures: shrunk lying, shrunk standing, enlarged.

    None stands where the processor squashes: there Pillow 13 begins with the height, and all before
    it, like ONNX Runtime, with the width, which is other pixels since it rounds in between.
    """
    batch, height, width = fixed
    edge = processor.size["shortest_edge"]
    sizes = [(2 * edge + 1, 3 * edge), (3 * edge // 2, edge + 7), (edge // 2, edge // 2 + 5)]
    if edge > _LARGE:  # pictures of gigabytes would show no more
        sizes[:2] = [(edge + edge // 8 + 1, edge + edge // 4), (edge + edge // 8, edge + 7)]
    if processor.squashes:
        sizes[1] = sizes[1][::-1]
    images = 2 if edge <= _LARGE else 1
    return list(dict.fromkeys((batch or images, height or h, width or w) for h, w in sizes))


def _pixels(
    batch: str, found: NDArray[np.float32], expected: NDArray[np.float32], step: NDArray[np.float64]
) -> Measurement:
    """Compare with the image processor; both (N, C, H, W), and the size of a step by channel."""
    shape = tuple(found.shape)
    if found.shape != expected.shape:
        words = f"the pixels have shape {shape} where {expected.shape} belongs"
        return Measurement(batch, PIXELS, shape, failure=words)
    steps = (found.astype(np.float64) - expected) / step[:, None, None]
    errors = Errors.of(steps, np.zeros_like(steps))
    unit = Errors(1.0, float(np.sqrt(MOST_DIFFERENT)))
    failure: str | None = None
    if not (errors.max <= MOST_STEPS and errors.rms <= unit.rms):
        failure = (
            f"pixels differ from the image processor's by up to {errors.max:.3g} of 255 steps and "
            f"by {errors.rms:.2g} in the root mean square, limits 1 and {unit.rms:.2g}"
        )
    return replace(Measurement.of(batch, PIXELS, shape, errors, unit), failure=failure)


def _probabilities(batch: str, found: Mapping[str, NDArray[Any]]) -> Measurement:
    """Whether they, and the best classes, follow from the logits."""
    exact = softmax(found[LOGITS])
    probabilities, best = found[PROBABILITIES], found[TOP_INDICES]
    errors = Errors.of(probabilities, exact)
    size = float(np.abs(found[LOGITS]).max())
    honest = _FLOAT32 * max(1.0, size)  # of the exponents' differences, which are as large as that
    failure: str | None = None
    if not errors.max <= MAX_LIMIT * honest:
        failure = f"probabilities are off by {errors.max:.3g}, and do not follow from the logits"
    scores = np.take_along_axis(probabilities, best, axis=1)
    ranked = np.sort(probabilities, axis=1)[:, ::-1][:, : best.shape[1]]
    if not (np.array_equal(scores, ranked) and np.array_equal(scores, found[TOP_SCORES])):
        failure = "the best classes are not those of the largest probabilities"
    shape = tuple(probabilities.shape)
    measured = Measurement.of(batch, PROBABILITIES, shape, errors, Errors(honest, honest))
    return replace(measured, failure=failure)
