"""keras-image-models (kimm) on Keras 3 and TensorFlow's CPU: builds, saves and loads RegNets."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from kimm._src.models.regnet import RegNet

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def build(network: Network, side: int) -> RegNet:
    """Build a network as kimm does by itself: pixels of 0 to 255 in, probabilities out."""
    return RegNet(
        w0=network.w_0,
        wa=network.w_a,
        wm=network.w_m,
        group_size=network.group_width,
        depth=network.depth,
        se_ratio=0.25 if network.layer_type == "y" else 0.0,
        input_shape=(side, side, 3),
        classes=network.classes,
    )


def draw_weights(model: keras.Model) -> None:
    """Give every weight of a network of Keras 3 numbers."""
    draw = Draw()
    for weight in model.weights:
        shape, leaf = tuple(weight.shape), weight.name
        if leaf in LEAVES:
            weight.assign(draw.norm(LEAVES[leaf], shape))
        elif leaf == "bias":
            weight.assign(draw.bias(shape))
        else:
            weight.assign(draw.kernel(shape, prod(shape[:-1])))


def logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """What comes out before the last activation, for images normalised by ``drawn``."""
    model.layers[-1].activation = keras.activations.linear
    pixels = images.transpose(0, 2, 3, 1)
    norm = next((one for one in model.layers if isinstance(one, keras.layers.Normalization)), None)
    if norm is not None:  # undone in float64, with the deviations that this layer divides by
        mean, variance = (np.asarray(said, np.float64) for said in (norm.mean, norm.variance))
        pixels = ((pixels * np.sqrt(variance) + mean) * 255).astype(np.float32)
    return np.asarray(model(pixels, training=False))


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model = build(network, images.shape[-1])
    draw_weights(model)
    model.save(path)
    return logits(model, images)


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model = keras.saving.load_model(path, compile=False)
    ours = {layer.name: [tuple(w.shape) for w in layer.weights] for layer in model.layers}
    theirs = build(network, images.shape[-1]).layers
    known = {layer.name: [tuple(w.shape) for w in layer.weights] for layer in theirs}
    assert {n: s for n, s in ours.items() if s} == {n: s for n, s in known.items() if s}
    return logits(model, images)


if __name__ == "__main__":
    main(record, run)
