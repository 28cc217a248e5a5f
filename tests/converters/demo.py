"""The bundled checkpoint, and where it is converted to once for all tests of a session."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image

DEMO = Path(__file__).parents[2] / "checkpoints" / "fashion_mnist"
CHECKPOINT = DEMO / "RegNetY-FashionMNIST.pyth"
LABELS = DEMO / "labels.json"

WARNED = (
    "warning: not understood: the data set fashion_mnist (in the cfg; nothing was done about it, "
    "so check that it does not matter)\n"
)
"""What is said on stderr of a data set that pycls does not have."""

FILES = (
    *("README.md", "config.json", "conversion.json", "golden.safetensors", "model.onnx"),
    *("model.safetensors", "model.torchscript.pt", "preprocessor_config.json"),
)
"""All that a conversion writes."""


def labels() -> list[str]:
    return cast("list[str]", json.loads(LABELS.read_text()))


def sample_images(folder: Path, count: int) -> list[tuple[Path, str]]:
    """Save held-out images as PNG; return each with the name of its true class."""
    with np.load(DEMO / "samples.npz") as samples:
        pixels, classes = samples["images"][:count], samples["labels"][:count]
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{index}.png" for index in range(count)]
    for path, image in zip(paths, pixels, strict=True):
        Image.fromarray(image).save(path)
    names = labels()
    return [(path, names[int(label)]) for path, label in zip(paths, classes, strict=True)]


def snapshot(folder: Path) -> dict[str, bytes | None]:
    """Everything below a folder: relative path to content, None for what is no file."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(folder.rglob("*"))
    }
