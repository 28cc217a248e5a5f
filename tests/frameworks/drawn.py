"""What the real frameworks are given: networks, weights and images. Needs numpy alone.

Images and weights are drawn, with statistics that keep signals alive through every block. No batch
norm is fresh and no two channels are alike, so that whatever is swapped or transposed shows.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    Action = Callable[["Network", Path, np.ndarray], np.ndarray]

SIDE = 40
"""Pixels: what a stage halves is even in some stages and odd in others."""

SHARD_SIZE = "40KB"
"""Of what is saved in shards."""


@dataclass(frozen=True)
class Network:
    """A RegNet, by the linear rule and by the stages that pycls makes of it."""

    layer_type: str
    depth: int
    w_0: int
    w_a: float
    w_m: float
    group_width: int
    widths: tuple[int, ...]
    depths: tuple[int, ...]
    classes: int

    @property
    def group_widths(self) -> tuple[int, ...]:
        """Channels per group of each stage."""
        return tuple(min(self.group_width, width) for width in self.widths)


SMALL = {
    "x": Network("x", 5, 8, 8.0, 1.6, 8, (8, 16, 24, 32), (1, 1, 1, 2), 10),
    "y": Network("y", 5, 8, 8.0, 1.6, 8, (8, 16, 24, 32), (1, 1, 1, 2), 10),
    "odd": Network("y", 7, 8, 5.0, 1.6, 12, (8, 12, 24, 36), (1, 1, 2, 3), 7),
}
"""Those that are recorded."""

REAL = {
    "RegNetX-200MF": Network("x", 13, 24, 36.44, 2.49, 8, (24, 56, 152, 368), (1, 1, 4, 7), 1000),
    "RegNetY-800MF": Network("y", 14, 56, 38.84, 2.4, 16, (64, 128, 320, 768), (1, 3, 8, 2), 1000),
}
"""Published ones."""

NETWORKS = SMALL | REAL


def images() -> np.ndarray:
    """Two normalised images (2, 3, SIDE, SIDE), float32, the same everywhere."""
    values = random.Random(17)  # noqa: S311 -- whose stream no version changes
    numbers = [4 * values.random() - 2 for _ in range(2 * 3 * SIDE * SIDE)]
    return np.array(numbers, np.float32).reshape(2, 3, SIDE, SIDE)


class Draw:
    """Draws a network's tensors one after another, as float32.

    Args:
        seed: The same seed and the same calls give the same tensors.
    """

    def __init__(self, seed: int = 0) -> None:
        self._random = np.random.default_rng(seed)

    def kernel(self, shape: tuple[int, ...], fan_in: int, gain: float = 1.0) -> np.ndarray:
        """A weight of a convolution or a linear layer; ``fan_in`` inputs make one output."""
        return self._normal(shape, 0, gain / fan_in**0.5)

    def bias(self, shape: tuple[int, ...]) -> np.ndarray:
        """A bias of a convolution or a linear layer."""
        return self._normal(shape, 0, 0.1)

    def norm(self, leaf: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of a batch norm, by torch's name of it."""
        if leaf == "weight":
            return np.abs(self._normal(shape, 0.8, 0.3)) + np.float32(0.05)
        if leaf == "running_var":
            return self._random.uniform(0.2, 0.8, shape).astype(np.float32)
        return self._normal(shape, *{"bias": (-0.1, 0.5), "running_mean": (0, 0.2)}[leaf])

    def _normal(self, shape: tuple[int, ...], mean: float, deviation: float) -> np.ndarray:
        return self._random.normal(mean, deviation, shape).astype(np.float32)


def save(save_pretrained: Callable[..., object], name: str, path: Path) -> None:
    """Have transformers save a network.

    Args:
        save_pretrained: What does.
        name: Of the file that it writes.
        path: Where that file goes. Ending in ``.safetensors`` it is saved as such, and without an
            ending it is the folder of a network that is saved in shards.
    """
    safely = path.suffix == ".safetensors"
    size = "10GB" if path.suffix else SHARD_SIZE
    with TemporaryDirectory() as folder:
        save_pretrained(folder, max_shard_size=size, safe_serialization=safely)
        if path.suffix:
            name = "model.safetensors" if safely else name
            path.write_bytes((Path(folder) / name).read_bytes())
        else:
            copytree(folder, path, dirs_exist_ok=True)


def main(record: Action, run: Action | None = None, train: Action | None = None) -> None:
    """The command line of a framework's script.

    Images are those of :func:`images` unless a file of others is given, whose type of float is that
    which is computed in.

    Args:
        record: Builds a network, draws its weights, saves it at a path and gives its logits of
            images (N, 3, H, W), as (N, classes).
        run: Builds a network, loads a path into it and gives its logits.
        train: The same in training mode, in which norms take the statistics of these images.
    """
    actions: dict[str, Any] = {"record": record, "run": run, "train": train}
    parser = argparse.ArgumentParser()
    parser.add_argument("action", choices=[name for name, action in actions.items() if action])
    parser.add_argument("network", choices=list(NETWORKS))
    parser.add_argument("file", type=Path)
    parser.add_argument("logits", type=Path, help="A .npy to be written.")
    parser.add_argument("--images", type=Path, help="A .npy, (N, 3, H, W).")
    given = parser.parse_args()
    pixels = np.load(given.images) if given.images else images()
    logits = actions[given.action](NETWORKS[given.network], given.file, pixels)
    np.save(given.logits, np.asarray(logits, pixels.dtype))
