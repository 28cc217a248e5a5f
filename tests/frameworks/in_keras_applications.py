"""keras.applications of tf_keras, on TensorFlow's CPU: builds, saves and loads RegNets."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tf_keras
from tf_keras.applications.regnet import RegNetX002, RegNetY008
from tf_keras.src.applications.regnet import RegNet

from tests.frameworks.drawn import REAL, Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
SCALE = 1 / np.float64(np.float32(1 / 255))
"""What undoes the network's own division, by a number that TensorFlow rounds to float32."""

PUBLISHED = {REAL["RegNetX-200MF"]: RegNetX002, REAL["RegNetY-800MF"]: RegNetY008}


def build(network: Network, images: np.ndarray, weights: Path | None = None) -> tf_keras.Model:
    """Build a network as its library does by itself: pixels of 0 to 255 in, logits out."""
    tf_keras.backend.set_floatx(str(images.dtype))
    given = {
        "weights": weights and str(weights),
        "input_shape": (*images.shape[2:], images.shape[1]),
        "classes": network.classes,
    }
    if network in PUBLISHED:
        return PUBLISHED[network](**given)
    return RegNet(
        network.depths,
        network.widths,
        network.group_width,
        network.layer_type.upper(),
        default_size=images.shape[-1],
        model_name=f"regnet{network.layer_type}",
        **given,
    )


def logits(model: tf_keras.Model, images: np.ndarray, *, training: bool = False) -> np.ndarray:
    """What a network makes of images that ``drawn`` normalised."""
    pixels = images.transpose(0, 2, 3, 1) * images.dtype.type(SCALE)
    return model(pixels, training=training).numpy()


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model, draw = build(network, images), Draw()
    for weight in model.weights:
        shape, leaf = tuple(weight.shape), weight.name.split("/")[-1].removesuffix(":0")
        if leaf in LEAVES:
            weight.assign(draw.norm(LEAVES[leaf], shape))
        elif leaf == "bias":
            weight.assign(draw.bias(shape))
        else:
            weight.assign(draw.kernel(shape, prod(shape[:-1])))
    if path.name.startswith("whole") or path.suffix == ".keras":
        model.save(path)  # with its description
    else:
        model.save_weights(path)
    return logits(model, images)


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    return logits(build(network, images, path), images)


def train(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    return logits(build(network, images, path), images, training=True)


if __name__ == "__main__":
    main(record, run, train)
