"""mlx-image: safetensors of Apple's MLX, which keeps the channels of kernels last.

Source: mlx-image 0.1.10 ``model/regnet/regnet.py`` (a port of torchvision's),
``model/regnet/_factory.py`` (its configurations), ``model/_utils.py`` (its files). What it
publishes are torchvision's second weights. Batch norms of MLX count no batches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.families.family import Family
from converters.families.keymap import Leaves, keymap
from converters.families.reading import family_source
from converters.families.source import BILINEAR, EvalTransform, Preprocessing
from converters.families.tensor_layout import TensorLayout
from regnet.architecture import BATCH_NORM_LEAVES, COUNTER

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.family import Network

MLX_IMAGE = keymap(
    "mlx-image",
    "trunk_output.{stage}.blocks.{block}",
    stem=("stem.layers.0", "stem.layers.1"),
    shortcut=("proj.layers.0", "proj.layers.1"),
    reduce=("f.a.layers.0", "f.a.layers.1"),
    grouped=("f.b.layers.0", "f.b.layers.1"),
    expand=("f.c.layers.0", "f.c.layers.1"),
    attention=("f.se.fc1", "f.se.fc2"),
    classifier="fc",
    leaves=Leaves(norm={leaf: leaf for leaf in BATCH_NORM_LEAVES if leaf != COUNTER}),
)


def _write(path: Path, network: Network) -> None:
    network.save_safetensors(path, made_for="mlx")


FAMILY = Family(
    keymap=MLX_IMAGE,
    title="mlx-image",
    package="mlxim",
    read=family_source,
    preprocessing=Preprocessing(
        EvalTransform(232, 224, BILINEAR),
        "what mlx-image's configurations mean; its code squashes to 240 and crops 232",
    ),
    layout=TensorLayout(kernel="OHWI"),
    write=_write,
    headless=True,
)
