"""Hugging Face transformers in TensorFlow, in its own environment: builds, saves, loads."""

from __future__ import annotations

import os
from math import prod
from typing import TYPE_CHECKING

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras  # noqa: F401 -- before tensorflow, whose lazy loader does not find it
import tensorflow  # noqa: F401, ICN001
from transformers import RegNetConfig, TFRegNetForImageClassification

from tests.frameworks.drawn import Draw, Network, main, save

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

LEAVES = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}


def config(network: Network) -> RegNetConfig:
    return RegNetConfig(
        hidden_sizes=list(network.widths),
        depths=list(network.depths),
        groups_width=network.group_width,
        layer_type=network.layer_type,
        num_labels=network.classes,
    )


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model = TFRegNetForImageClassification(config(network))
    model(images)  # which makes the weights
    draw = Draw()
    for weight in model.weights:
        shape, leaf = tuple(weight.shape), weight.name.split("/")[-1].removesuffix(":0")
        if leaf in LEAVES:
            weight.assign(draw.norm(LEAVES[leaf], shape))
        elif leaf == "bias":
            weight.assign(draw.bias(shape))
        else:
            weight.assign(draw.kernel(shape, prod(shape[:-1])))
    save(model.save_pretrained, "tf_model.h5", path)
    return model(images).logits.numpy()


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model, loading = TFRegNetForImageClassification.from_pretrained(path, output_loading_info=True)
    assert not any(loading.values()), loading
    assert model.config.depths == list(network.depths)
    again = TFRegNetForImageClassification(model.config)
    again(images)
    again.load_weights(path / "tf_model.h5")  # by Keras itself, which goes by the order
    logits = model(images).logits.numpy()
    assert (again(images).logits.numpy() == logits).all()
    return logits


if __name__ == "__main__":
    main(record, run)
