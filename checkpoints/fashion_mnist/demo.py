"""Classify the bundled sample images with every format of a converted folder, side by side.

Usage: python checkpoints/fashion_mnist/demo.py build/demo
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw
from rich.console import Console
from rich.table import Table

from converters.artefacts import FORMATS
from converters.folder import ConvertedFolder
from converters.predict import EAGER, open_runtime, softmax
from regnet import RegNetImageProcessor

if TYPE_CHECKING:
    from numpy.typing import NDArray

SAMPLES = Path(__file__).parent / "samples.npz"
_TILE = 112
_CAPTION = 26
_COLUMNS = 5


def main() -> None:
    """Print accuracies and write a picture of a few predictions beside the folder."""
    folder = ConvertedFolder(Path(sys.argv[1]))
    with np.load(SAMPLES) as samples:
        images, labels = samples["images"], samples["labels"]
    processor = RegNetImageProcessor.from_pretrained(folder.path)
    pixels = np.stack(processor([Image.fromarray(image) for image in images])["pixel_values"])
    names = {EAGER: "PyTorch"} | {name: kind.title for name, kind in FORMATS.items()}
    logits = {name: open_runtime(folder, name)(pixels)["logits"] for name in names}

    table = Table(title=f"{len(images)} held-out images", title_justify="left")
    for column in ("format", "accuracy", "agrees with PyTorch", "largest difference in logits"):
        table.add_column(column)
    for name, title in names.items():
        accuracy = np.mean(logits[name].argmax(axis=1) == labels)
        agreement = np.mean(logits[name].argmax(axis=1) == logits[EAGER].argmax(axis=1))
        difference = np.abs(logits[name] - logits[EAGER]).max()
        table.add_row(title, f"{accuracy:.1%}", f"{agreement:.1%}", f"{difference:.1e}")
    Console().print(table)

    picture = folder.path.with_name(f"{folder.path.name}-predictions.png")
    chosen = np.arange(0, len(images), len(images) // (2 * _COLUMNS))
    id2label = folder.config.id2label
    contact_sheet(images[chosen], labels[chosen], logits["onnx"][chosen], id2label).save(picture)
    Console().print(f"A few predictions as a picture: {picture}")


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
