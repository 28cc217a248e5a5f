"""TensorFlow's RegNets of Hugging Face transformers 4.x: ``tf_model.h5``, alone or in its folder.

Source: transformers 4.45.2 ``models/regnet/modeling_tf_regnet.py`` (names, padding, which is
torch's) and ``modeling_tf_utils.py`` (its files). Kernels keep channels last, and a linear layer's
inputs come first. Batch norms of Keras count no batches.
"""

from __future__ import annotations

from converters.families.family import Family
from converters.families.keymap import Leaves, of_transformers
from converters.families.tensor_layout import TensorLayout
from converters.families.transformers import PREPROCESSING, read

KERAS = Leaves(
    conv="kernel",
    norm={
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    affine={"weight": "kernel", "bias": "bias"},
)
"""What Keras calls the tensors of a layer."""

FAMILY = Family(
    keymap=of_transformers("tensorflow", KERAS),
    title="Hugging Face transformers in TensorFlow",
    package="transformers",
    read=read,
    preprocessing=PREPROCESSING,
    layout=TensorLayout(kernel="HWIO", matrix="IO"),
)
