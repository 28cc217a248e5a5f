"""Hugging Face transformers in Flax, in its own environment: builds, saves and loads RegNets."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import TYPE_CHECKING

import numpy as np
from flax.serialization import msgpack_restore
from flax.traverse_util import flatten_dict, unflatten_dict
from transformers import FlaxRegNetForImageClassification, RegNetConfig
from transformers.models.regnet import modeling_flax_regnet

from tests.frameworks.drawn import Draw, Network, main, save

if TYPE_CHECKING:
    from pathlib import Path


class Collection(modeling_flax_regnet.FlaxRegNetXLayerCollection):
    """With the argument that RegNetX gives it and it lacks, so that none could ever be built."""

    in_channels: int = 0


modeling_flax_regnet.FlaxRegNetXLayerCollection = Collection

STATISTICS = {"mean": "running_mean", "var": "running_var"}


def config(network: Network) -> RegNetConfig:
    return RegNetConfig(
        hidden_sizes=list(network.widths),
        depths=list(network.depths),
        groups_width=network.group_width,
        layer_type=network.layer_type,
        num_labels=network.classes,
    )


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    side = images.shape[-1]
    model = FlaxRegNetForImageClassification(config(network), input_shape=(1, side, side, 3))
    draw = Draw()
    drawn = {}
    for name, value in flatten_dict(model.params).items():
        leaf, shape = STATISTICS.get(name[-1], name[-1]), value.shape
        if leaf == "scale":
            drawn[name] = draw.norm("weight", shape)
        elif "normalization" in name:
            drawn[name] = draw.norm(leaf, shape)
        elif leaf == "bias":
            drawn[name] = draw.bias(shape)
        else:
            drawn[name] = draw.kernel(shape, prod(shape[:-1]))
    params = unflatten_dict(drawn)
    save(partial(model.save_pretrained, params=params), "flax_model.msgpack", path)
    return np.asarray(model(images, params=params).logits)


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    assert RegNetConfig.from_pretrained(path).depths == list(network.depths)
    model = FlaxRegNetForImageClassification.from_pretrained(path)
    # Which only warns where weights are missing, or are more than it has.
    stored = msgpack_restore((path / "flax_model.msgpack").read_bytes())
    shapes = {name: value.shape for name, value in flatten_dict(model.params).items()}
    assert {name: value.shape for name, value in flatten_dict(stored).items()} == shapes
    return np.asarray(model(images).logits)


if __name__ == "__main__":
    main(record, run)
