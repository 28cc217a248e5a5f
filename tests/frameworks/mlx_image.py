"""mlx-image in its own environment: builds, saves and loads RegNets on MLX's CPU."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from mlxim.model._utils import get_weights, load_weights, save_weights
from mlxim.model.regnet.regnet import BlockParams, RegNet

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path


def build(network: Network) -> RegNet:
    stages = len(network.depths)
    shape = BlockParams(
        depths=list(network.depths),
        widths=list(network.widths),
        group_widths=list(network.group_widths),
        bottleneck_multipliers=[1.0] * stages,
        strides=[2] * stages,
        se_ratio=0.25 if network.layer_type == "y" else None,
    )
    return RegNet(shape, num_classes=network.classes)


def drawn(model: RegNet) -> dict[str, mx.array]:
    """Weights for every parameter; a batch norm is what has a running mean."""
    draw = Draw()
    shapes = {name: tuple(array.shape) for name, array in tree_flatten(model.parameters())}
    found = {}
    for name, shape in shapes.items():
        module, _, leaf = name.rpartition(".")
        if f"{module}.running_mean" in shapes:
            values = draw.norm(leaf, shape)
        elif leaf == "bias":
            values = draw.bias(shape)
        else:
            values = draw.kernel(shape, prod(shape[1:]))
        found[name] = mx.array(values)
    return found


def logits(model: RegNet, images: np.ndarray) -> np.ndarray:
    model.eval()
    return np.array(model(mx.array(images.transpose(0, 2, 3, 1))))


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model = build(network)
    model.load_weights(list(drawn(model).items()), strict=True)
    save_weights(get_weights(model), str(path))
    return logits(model, images)


def run(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    return logits(load_weights(build(network), str(path), strict=True), images)


if __name__ == "__main__":
    main(record, run)
