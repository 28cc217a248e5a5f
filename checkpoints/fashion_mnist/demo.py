"""Export a converted folder to more formats; classify the bundled images with all, side by side.

Usage: python checkpoints/fashion_mnist/demo.py build/demo [--all]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from rich.table import Table

import converters
from converters.cli.console import Output
from converters.errors import is_installed
from converters.folder.folder import ConvertedFolder
from converters.formats.registry import DEFAULT_FORMATS, FORMATS
from converters.formats.runtime import softmax
from converters.jobs.bench import bench
from converters.jobs.evaluate import count
from converters.jobs.predict import EAGER, open_runtime

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

SAMPLES = Path(__file__).parent / "samples.npz"

COLUMNS = (
    "format",
    "computes in",
    "verdict",
    "accuracy",
    "agreement",
    "difference",
    "size",
    "ms/image",
)
"""Agreement is that of the best class with eager PyTorch, difference the largest of any logit."""

WRITTEN = set(DEFAULT_FORMATS)
"""What `regnet convert` has written."""

OTHERS = {"onnx-web", "onnx-preprocessing", "onnx-tuned", "onnx-int8-tuned"}
"""What is the same file, takes other images, or is searched for by the minute."""

COMPILED = {"aotinductor", "executorch"}
"""What takes minutes, and is written if it is asked for."""

_TILE = 112
_CAPTION = 26
_COLUMNS = 5
_BATCH = 100
_ROUNDS = 20


def main() -> None:
    """Print a table of the formats and write a picture of a few predictions beside the folder."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="what `regnet convert` wrote")
    names = " and ".join(sorted(COMPILED))
    parser.add_argument("--all", action="store_true", help=f"{names} too, which take minutes")
    arguments = parser.parse_args()
    folder = ConvertedFolder(arguments.folder)
    with np.load(SAMPLES) as samples:
        images, labels = samples["images"], samples["labels"]
    export(folder, images, installed(OTHERS if arguments.all else OTHERS | COMPILED))
    title = (
        f"{len(images)} held-out images, on which int8 was calibrated; agreement and largest "
        "difference are with PyTorch"
    )
    table = Table(*COLUMNS, title=title, title_justify="left")
    for row in format_rows(folder, images, labels):
        table.add_row(*row)
    output = Output()
    output.result(table)

    picture = folder.path.with_name(f"{folder.path.name}-predictions.png")
    chosen = np.arange(0, len(images), len(images) // (2 * _COLUMNS))
    ((pixels, _),) = batches(folder, images[chosen], labels[chosen])
    logits = open_runtime(folder, "onnx")(pixels)["logits"]
    id2label = folder.config.id2label
    contact_sheet(images[chosen], labels[chosen], logits, id2label).save(picture)
    output.result(f"A few predictions as a picture: {picture}")
    if not arguments.all:
        sys.stderr.write(f"{names} take minutes and are left out; --all writes them too\n")


def installed(left_out: set[str]) -> list[str]:
    """The formats that can be written and run on this machine, beside those that there are."""
    return [
        name
        for name, kind in FORMATS.items()
        if name not in WRITTEN | left_out
        and (kind.needs is None or is_installed(kind.needs[0]))
        and kind.lacks() is None
    ]


def export(folder: ConvertedFolder, images: NDArray[np.uint8], formats: Sequence[str]) -> None:
    """Write and verify formats, int8 calibrated on images (N, H, W, 3), RGB."""
    with TemporaryDirectory() as scratch:
        for index, image in enumerate(images):
            Image.fromarray(image).save(Path(scratch) / f"{index:03}.png")
        converters.export(folder.path, formats, calibration_images=scratch)


def format_rows(
    folder: ConvertedFolder, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Iterator[list[str]]:
    """What is to be said of every format in a folder, as `COLUMNS` name it.

    Latency is of one image on one thread, everything in turn (see docs/predict.md).

    Args:
        folder: A converted folder.
        images: (N, H, W, 3), RGB.
        labels: (N,), the true classes.
    """
    timed = bench(folder.path, batch_sizes=(1,), rounds=_ROUNDS)
    for name, why in timed.absent.items():
        sys.stderr.write(f"{name} is left out: {why}\n")
    runtimes = {name: open_runtime(folder, name) for name in timed.runtimes}
    evaluation = count(runtimes, batches(folder, images, labels))
    for entry in timed.entries:
        name, (timing,) = entry.contender.runtime, entry.timings
        score, same, largest = evaluation.scores[name], evaluation.images, 0.0
        if name != EAGER:
            agreement = evaluation.between(EAGER, name)
            same, largest = agreement.same, agreement.largest
        yield [
            *(entry.title, entry.precision, entry.verdict),
            *(f"{score.top1 / score.images:.2%}", f"{same / score.images:.2%}", f"{largest:.1e}"),
            f"{entry.size / 1e6:.2f} MB",
            timing if isinstance(timing, str) else f"{timing.median * 1e3:.2f}",
        ]


def batches(
    folder: ConvertedFolder, images: NDArray[np.uint8], labels: NDArray[np.int64]
) -> Iterator[tuple[NDArray[np.float32], NDArray[np.int64]]]:
    """Pixels (N, 3, S, S) as the folder's processor makes them, and classes (N,)."""
    processor = folder.processor
    for start in range(0, len(images), _BATCH):
        pictures = [Image.fromarray(image) for image in images[start : start + _BATCH]]
        yield np.stack(processor(pictures)["pixel_values"]), labels[start : start + _BATCH]


def contact_sheet(
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    logits: NDArray[np.floating],
    names: dict[int, str],
) -> Image.Image:
    """Tile images with the predicted class under each, green if right and red if not.

    Args:
        images: (N, H, W, 3), RGB.
        labels: (N,), the true classes.
        logits: (N, classes).
        names: Class to name.
    """
    rows = -(-len(images) // _COLUMNS)
    size = (_COLUMNS * _TILE, rows * (_TILE + _CAPTION))
    sheet = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(sheet)
    probabilities = softmax(logits)
    for index, image in enumerate(images):
        left, top = index % _COLUMNS * _TILE, index // _COLUMNS * (_TILE + _CAPTION)
        tile = Image.fromarray(image).resize((_TILE - 4, _TILE - 4), Image.Resampling.NEAREST)
        sheet.paste(tile, (left + 2, top + 2))
        best = int(logits[index].argmax())
        colour = "darkgreen" if best == labels[index] else "red"
        caption = f"{names[best]} {probabilities[index, best]:.0%}"
        draw.text((left + 4, top + _TILE + 4), caption, fill=colour)
    return sheet


if __name__ == "__main__":
    main()
