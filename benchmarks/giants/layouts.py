"""How each framework lays its checkpoints out, by name of the layout."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, cast

from benchmarks.giants import vissl
from converters.families.classy_vision import SWAG
from converters.families.family import write_flat
from converters.families.known import target_named
from converters.families.transformers import FAMILY as TRANSFORMERS
from converters.families.vissl import FAMILY as VISSL
from regnet.architecture import BASE_PREFIX, CLASSIFIER
from regnet.files.safetensors_file import WEIGHTS_NAME

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from benchmarks.giants.giant import Giant
    from converters.families.family import Family, Network

LAYOUTS = {
    "pycls": ("trainer", "flat"),
    "timm": ("flat",),
    "torchvision": ("flat",),
    "classy-vision": ("trainer", "flat"),
    "vissl": ("consolidated", "shards", "slices"),
    "mmpretrain": ("trainer",),
    "transformers": ("flat", "folder"),
}
"""Framework to its layouts, the first of which is the default: ``trainer`` is as the framework's
own trainer saves; ``flat`` a bare state dict, in ClassyVision's case SWAG's."""

_BIN_NAME = "pytorch_model.bin"


def target_of(
    framework: str, layout: str, ranks: int = 2, parts: Sequence[Sequence[int]] = ()
) -> Family:
    """Give the target that writes a giant in a layout.

    Args:
        framework: Key of :data:`LAYOUTS`.
        layout: One of its layouts.
        ranks: Processes of the training run, for VISSL's shards.
        parts: Where VISSL cuts the stages; nothing for the first version of its trunk.

    Raises:
        ValueError: If the framework has no such layout.
    """
    if layout not in LAYOUTS.get(framework, ()):
        raise ValueError(
            f"{framework} has no layout {layout}; choose one of "
            f"{', '.join(LAYOUTS.get(framework, LAYOUTS))}."
        )
    if framework == "vissl":
        write = partial(vissl.WRITERS[layout], parts=parts, ranks=ranks)
        return replace(VISSL, write=write, any_channels=True, headless=True)
    if framework == "transformers":
        write_ours = _transformers_folder if layout == "folder" else _transformers
        return replace(TRANSFORMERS, write=write_ours, any_channels=True, headless=True)
    target = target_named(framework)
    if layout == "trainer":
        return target
    keymap = SWAG if framework == "classy-vision" else target.keymap
    return replace(target, keymap=keymap, loads_folder=False, write=write_flat)


def _transformers(path: Path, network: Network) -> None:
    """The reference's names, with the prefix of the class that has a classifier."""
    prefix = BASE_PREFIX if network.has_classifier else ""
    state = OrderedDict(
        (name if name.startswith(CLASSIFIER) else prefix + name, part)
        for name, part in network.state_dict().items()
    )
    network.save(path, state)


def _transformers_folder(path: Path, network: Network) -> None:
    path.mkdir(exist_ok=True)
    network.config.save_pretrained(path)
    container = cast("Giant", network).writer.container
    _transformers(path / (WEIGHTS_NAME if container == "safetensors" else _BIN_NAME), network)
