"""kecam (keras_cv_attention_models) on tf_keras and TensorFlow's CPU: builds and saves RegNets."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import tf_keras
from keras_cv_attention_models.resnet_family import RegNetY

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def build(network: Network, images: np.ndarray) -> tf_keras.Model:
    return RegNetY(
        num_blocks=list(network.depths),
        out_channels=list(network.widths),
        group_size=network.group_width,
        se_ratio=0.25 if network.layer_type == "y" else 0,
        input_shape=(*images.shape[2:], images.shape[1]),
        num_classes=network.classes,
        activation="relu",
        classifier_activation="softmax",
        pretrained=None,
    )


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
    model.save_weights(path)
    model.layers[-1].activation = tf_keras.activations.linear
    return model(images.transpose(0, 2, 3, 1), training=False).numpy()


if __name__ == "__main__":
    main(record)
