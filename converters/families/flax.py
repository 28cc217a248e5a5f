"""Flax's RegNets of Hugging Face transformers 4.x: ``flax_model.msgpack``, alone or in its folder.

Source: transformers 4.45.2 ``models/regnet/modeling_flax_regnet.py`` (names, padding, which is
torch's) and ``modeling_flax_utils.py`` (its files). Kernels keep channels last, and a linear
layer's inputs come first. Batch norms of Flax count no batches. Its RegNetX cannot be built: the
class of a block's layers lacks the ``in_channels`` that it is given.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.checkpoint.msgpack_container import PARAMETERS, STATISTICS
from converters.checkpoint.msgpack_writer import write_msgpack
from converters.families.family import Family
from converters.families.keymap import Leaves, of_transformers
from converters.families.source import EvalTransform
from converters.families.tensor_layout import CHANNELS_LAST
from converters.families.transformers import PREPROCESSING, SAYS, in_model, read, write_beside

if TYPE_CHECKING:
    from pathlib import Path

    from converters.families.family import Network

WEIGHTS_NAME = "flax_model.msgpack"

LINEN = Leaves(
    conv="kernel",
    norm={"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    affine={"weight": "kernel", "bias": "bias"},
)
"""What Flax calls the tensors of a layer."""

_MEASURED = ("mean", "var")
"""What batch norms keep among the statistics, and not among the parameters."""


def _write(path: Path, network: Network) -> None:
    path.mkdir(exist_ok=True)
    tree: dict[str, Any] = {PARAMETERS: {}, STATISTICS: {}}
    for name in network.tensors:
        *levels, leaf = in_model(name, network).split(".")
        at = tree[STATISTICS if leaf in _MEASURED else PARAMETERS]
        for level in levels:
            at = at.setdefault(level, {})
        at[leaf] = network.array(name)
    write_msgpack(path / WEIGHTS_NAME, tree)
    write_beside(path, network)


FAMILY = Family(
    keymap=of_transformers("flax", LINEN),
    title="Hugging Face transformers in Flax",
    package="transformers",
    read=read,
    preprocessing=PREPROCESSING,
    layout=CHANNELS_LAST,
    write=_write,
    says=SAYS,
    says_of_images=EvalTransform.fields(),
    loads_folder=True,
    shortcut_last=True,
    lacks={"x": "transformers' Flax builds none: the class of its layers lacks an argument"},
    always_squeezes_with_relu=True,
    headless=True,
)
