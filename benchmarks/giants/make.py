"""Making a giant, from Python."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from benchmarks.giants.containers import Writer
from benchmarks.giants.content import Content
from benchmarks.giants.giant import giant
from benchmarks.giants.layouts import LAYOUTS, target_of
from benchmarks.giants.networks import STAGE_PARTS, config_of

if TYPE_CHECKING:
    from pathlib import Path

    from regnet.config import RegNetConfig
    from regnet.files.dtypes import DType


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a giant is made like.

    Attributes:
        framework: Key of :data:`benchmarks.giants.layouts.LAYOUTS`.
        layout: One of the framework's; empty for its first.
        container: One of :data:`benchmarks.giants.containers.CONTAINERS`.
        classes: Of the classifier; 0 for a trunk alone.
        dtype: Of the weights.
        density: How much of large tensors is written; see
            :class:`benchmarks.giants.content.Content`.
        seed: Another seed, other numbers.
        ranks: Processes of the training run, for VISSL's shards.
    """

    framework: str
    layout: str = ""
    container: str = "zip"
    classes: int = 1000
    dtype: DType = "float32"
    density: float = 1.0
    seed: int = 0
    ranks: int = 2


def make(network: str | RegNetConfig, out: Path, recipe: Recipe) -> None:
    """Write a checkpoint of random numbers in some tens of MB of memory, whatever its size.

    Args:
        network: A published name, or any configuration with as many labels as the recipe has
            classes.
        out: The file to be made; a folder for the layout ``folder``. Of shards and slices it is
            the list, beside which they are put.
        recipe: What it is made like.

    Raises:
        ValueError: If there is no such network, layout or container.
        InputError: If the framework has no such network.
        OSError: If a file cannot be written.
    """
    config = config_of(network, recipe.classes) if isinstance(network, str) else network
    layout = recipe.layout or LAYOUTS[recipe.framework][0]
    parts = STAGE_PARTS.get(network, ()) if isinstance(network, str) else ()
    if layout == "shards":  # FSDP has the second version of the trunk
        parts = parts or ((),) * len(config.depths)
    target = target_of(recipe.framework, layout, recipe.ranks, parts)
    content = Content(config, recipe.dtype, recipe.seed, recipe.density)
    writer = Writer(recipe.container, content)
    with giant(config, recipe.dtype, recipe.classes, target, writer) as made:
        made.write(out)
