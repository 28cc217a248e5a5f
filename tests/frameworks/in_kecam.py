"""kecam (keras_cv_attention_models) on tf_keras and TensorFlow's CPU: saves and loads RegNets."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
os.environ["TF_USE_LEGACY_KERAS"] = "1"

import numpy as np
import tf_keras
from keras_cv_attention_models.aotnet import AotNet
from keras_cv_attention_models.download_and_load import reload_model_weights
from keras_cv_attention_models.resnet_family import RegNetY

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
    "vv": "weight",
}

EVO_NORM = {
    "use_evo_norm": True,
    "evo_norm_group_size": 16,
    "bn_epsilon": 1e-3,
    "strides": [1, 2, 2, 2],
    "stem_type": "deep2",
    "stem_last_strides": 2,
}
WIDER = {"z": {"strides": [2, 2, 2, 2], "stem_type": "kernel_3x3"}, "evo": EVO_NORM}
"""By the stem of a file's name: what its RegNetZ-B16 and its RegNetZ-D8 with EvoNorm have."""

BLOCKS, WIDTHS, STEM = [1, 1, 1, 2], [16, 16, 32, 32], 16
"""Of the small ones."""


def build(network: Network, path: Path, images: np.ndarray) -> tf_keras.Model:
    """Build a network, or the one of its own that a file is called by."""
    if path.stem in WIDER:
        return build_z(images, **WIDER[path.stem])
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


def build_z(images: np.ndarray, **kind: object) -> tf_keras.Model:
    """Build a RegNetZ as kecam does: blocks three times as wide inside as their input."""
    inputs = [STEM, *WIDTHS]
    return AotNet(
        num_blocks=BLOCKS,
        out_channels=WIDTHS,
        hidden_channel_ratio=[
            [3 * before / width] + [3] * (blocks - 1)
            for before, width, blocks in zip(inputs, WIDTHS, BLOCKS, strict=False)
        ],
        use_block_output_activation=False,
        stem_width=STEM,
        stem_downsample=False,
        se_ratio=0.25,
        attn_params={"activation": "relu"},
        group_size=8,
        shortcut_type=None,
        output_num_features=64,
        input_shape=(*images.shape[2:], images.shape[1]),
        num_classes=10,
        activation="swish",
        classifier_activation="softmax",
        **kind,
    )


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model, draw = build(network, path, images), Draw()
    for weight in model.weights:
        shape, leaf = tuple(weight.shape), weight.name.split("/")[-1].removesuffix(":0")
        if leaf in LEAVES:
            weight.assign(draw.norm(LEAVES[leaf], shape))
        elif leaf == "bias":
            weight.assign(draw.bias(shape))
        else:
            weight.assign(draw.kernel(shape, prod(shape[:-1])))
    model.save(path) if path.suffix == ".keras" else model.save_weights(path)
    return logits(model, images)


def logits(model: tf_keras.Model, images: np.ndarray) -> np.ndarray:
    model.layers[-1].activation = tf_keras.activations.linear
    return model(images.transpose(0, 2, 3, 1), training=False).numpy()


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    """Load strictly, layer by layer in Keras' order, and by names as kecam does: it is one."""
    strictly, by_names = (build(network, path, images) for _ in range(2))
    strictly.load_weights(path)
    reload_model_weights(by_names, {}, "", pretrained=str(path))
    for one, other in zip(strictly.get_weights(), by_names.get_weights(), strict=True):
        assert np.array_equal(one, other)
    return logits(strictly, images)


if __name__ == "__main__":
    main(record, run)
