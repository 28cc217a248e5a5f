"""Flax's RegNets of Hugging Face transformers 4.x: ``flax_model.msgpack``, alone or in its folder.

Source: transformers 4.45.2 ``models/regnet/modeling_flax_regnet.py`` (names, padding, which is
torch's) and ``modeling_flax_utils.py`` (its files). Kernels keep channels last, and a linear
layer's inputs come first. Batch norms of Flax count no batches.
"""

from __future__ import annotations

from converters.families.family import Family
from converters.families.keymap import Leaves, of_transformers
from converters.families.tensor_layout import TensorLayout
from converters.families.transformers import PREPROCESSING, read

LINEN = Leaves(
    conv="kernel",
    norm={"weight": "scale", "bias": "bias", "running_mean": "mean", "running_var": "var"},
    affine={"weight": "kernel", "bias": "bias"},
)
"""What Flax calls the tensors of a layer."""

FAMILY = Family(
    keymap=of_transformers("flax", LINEN),
    title="Hugging Face transformers in Flax",
    package="transformers",
    read=read,
    preprocessing=PREPROCESSING,
    layout=TensorLayout(kernel="HWIO", matrix="IO"),
)
