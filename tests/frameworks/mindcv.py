"""MindCV in its own environment: builds, trains a step of and saves RegNets on MindSpore's CPU.

The small networks are saved in three ways: "y" as a network alone; "x" as MindCV's trainer saves
what it trains, with momentum and averages beside it; "odd" with tensors in several pieces, as large
ones have, and a checksum behind them.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import mindspore as ms
from mindcv.models.regnet import RegNet
from mindcv.utils.train_step import TrainStep
from mindspore.train import serialization

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

NORM = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
"""MindSpore's leaves of a batch norm to torch's."""


def build(network: Network) -> RegNet:
    return RegNet(
        network.w_a,
        network.w_0,
        network.w_m,
        network.depth,
        network.group_width,
        num_classes=network.classes,
        se_r=0.25 if network.layer_type == "y" else 0.0,
    )


def draw_into(model: RegNet) -> None:
    """Give every parameter weights."""
    draw = Draw()
    for parameter in model.get_parameters():
        shape, leaf = tuple(parameter.shape), parameter.name.rpartition(".")[2]
        if leaf in NORM:
            values = draw.norm(NORM[leaf], shape)
        elif leaf == "bias":
            values = draw.bias(shape)
        else:
            values = draw.kernel(shape, prod(shape[1:]))
        parameter.set_data(ms.Tensor(values))


def training(model: RegNet) -> TrainStep:
    """What MindCV trains and saves, with averages of weights and the state of its optimiser."""
    loss = ms.nn.WithLossCell(model, ms.nn.CrossEntropyLoss())
    optimiser = ms.nn.Momentum(model.trainable_params(), learning_rate=0.1, momentum=0.9)
    step = TrainStep(loss, optimiser, ms.Tensor(1.0, ms.float32), ema=True)
    for average in step.ema_weight:
        average.set_data(average * 0.5)
    return step


def logits(model: RegNet, images: np.ndarray) -> np.ndarray:
    model.set_train(mode=False)
    computed: np.ndarray = model(ms.Tensor(images)).asnumpy()
    return computed


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    model = build(network)
    draw_into(model)
    is_small = network.depth < 10
    if is_small and network.layer_type == "x":
        ms.save_checkpoint(training(model), str(path), append_dict={"epoch_num": 3, "note": "a"})
    elif is_small and network.classes % 2:
        serialization.SLICE_SIZE = 4  # kB
        ms.save_checkpoint(model, str(path), async_save=False, crc_check=True)
    else:
        ms.save_checkpoint(model, str(path))
    return logits(model, images)


if __name__ == "__main__":
    main(record)
