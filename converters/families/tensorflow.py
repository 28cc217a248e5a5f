"""TensorFlow's RegNets of Hugging Face transformers 4.x: ``tf_model.h5``, alone or in its folder.

Source: transformers 4.45.2 ``models/regnet/modeling_tf_regnet.py`` (names, padding, which is
torch's) and ``modeling_tf_utils.py`` (its files). Kernels keep channels last, and a linear layer's
inputs come first. Batch norms of Keras count no batches.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.checkpoint.hdf5_writer import TYPES, write_hdf5
from converters.families.family import Family
from converters.families.keymap import KERAS, of_transformers
from converters.families.source import EvalTransform
from converters.families.tensor_layout import CHANNELS_LAST
from converters.families.transformers import PREPROCESSING, SAYS, in_model, read, write_beside

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint.array import Array
    from converters.families.family import Network

WEIGHTS_NAME = "tf_model.h5"

_SCOPES = {True: "tf_reg_net_for_image_classification", False: "tf_reg_net_model"}
"""What the names of weights begin with, with a classifier and without."""

_KERAS = "2.15.0"
"""The last version that transformers runs on; all of Keras 2 have one layout of files."""


def _write(path: Path, network: Network) -> None:
    path.mkdir(exist_ok=True)
    scope = _SCOPES[network.has_classifier]
    # The model's layers; the one that flattens has no weights.
    layers: dict[str, dict[str, Array]] = {"regnet": {}}
    if network.has_classifier:
        layers |= {"flatten": {}, "classifier.1": {}}
    # Keras puts what is trained before what is measured.
    for name in sorted(network.tensors, key=lambda name: ".moving_" in name):
        levels = re.sub(r"\.(?!\d)", "/", in_model(name, network))  # a number is part of a level
        levels = levels if network.has_classifier else f"regnet/{levels}"
        weights = layers[levels.partition("/")[0]]
        weights[f"{scope}/{levels}:0"] = network.array(name)
    write_hdf5(path / WEIGHTS_NAME, layers, _KERAS)
    write_beside(path, network)


FAMILY = Family(
    keymap=of_transformers("tensorflow", KERAS),
    title="Hugging Face transformers in TensorFlow",
    package="transformers",
    read=read,
    preprocessing=PREPROCESSING,
    layout=CHANNELS_LAST,
    write=_write,
    says=SAYS,
    says_of_images=EvalTransform.fields(),
    loads_folder=True,
    dtypes=TYPES,
    needs=("h5py", "keras"),
    always_squeezes_with_relu=True,
    any_channels=True,
    headless=True,
)
