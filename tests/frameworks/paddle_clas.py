"""PaddleClas in its own environment: builds, saves and loads RegNets on Paddle's CPU.

The small networks are saved in three ways: "x" in the pickle protocol of 2020; "y" with today's;
"odd" by the code of 2021, which gives convolutions a bias, and inside of what else is saved.

Of PaddleClas, 2.6.0 is the last that is a package; its RegNetY never had the right widths. What
is put in its place here is of PaddleClas' code of 2026.
"""

from __future__ import annotations

import sys
from importlib.metadata import distribution
from importlib.util import module_from_spec, spec_from_file_location
from math import prod
from types import ModuleType
from typing import TYPE_CHECKING, Any

import paddle
from paddle import nn

from tests.frameworks.drawn import Draw, Network, main

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np

STATISTICS = {"_mean": "running_mean", "_variance": "running_var"}


class SqueezeAndExcitation(nn.Layer):
    """As of 2026, which takes what is named the reduction ratio as the channels between."""

    def __init__(self, num_channels: int, num_filters: int, reduction_ratio: int, **_: str) -> None:
        super().__init__()
        self.pool2d_gap = nn.AdaptiveAvgPool2D(1)
        self.conv_reduce = nn.Conv2D(num_channels, reduction_ratio, 1)
        self.conv_expand = nn.Conv2D(reduction_ratio, num_filters, 1)

    def forward(self, features: Any) -> Any:
        reduced = nn.functional.relu(self.conv_reduce(self.pool2d_gap(features)))
        return features * nn.functional.sigmoid(self.conv_expand(reduced))


def biased(*args: Any, bias_attr: bool, **kwargs: Any) -> nn.Conv2D:
    """A convolution as the code of 2021 makes it."""
    del bias_attr
    return nn.Conv2D(*args, **kwargs)


def regnets() -> Any:
    """PaddleClas' module of RegNets, alone: the package asks for what no RegNet needs."""
    package = "ppcls.arch.backbone.model_zoo"
    loading: Any = ModuleType("ppcls.utils.save_load")
    loading.load_dygraph_pretrain = None
    sys.modules[loading.__name__] = loading
    file = distribution("paddleclas").locate_file("paddleclas/ppcls/arch/backbone/model_zoo")
    spec = spec_from_file_location(f"{package}.regnet", f"{file}/regnet.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_old(network: Network) -> bool:
    return bool(network.classes % 2)


def build(network: Network) -> Any:
    module = regnets()
    module.SELayer = SqueezeAndExcitation
    if is_old(network):
        module.Conv2D = biased
    return module.RegNet(
        network.w_a,
        network.w_0,
        network.w_m,
        network.depth,
        network.group_width,
        bot_mul=1.0,
        se_on=network.layer_type == "y",
        class_num=network.classes,
    )


def draw_into(model: Any) -> None:
    """Give every parameter weights."""
    draw = Draw()
    for name, parameter in model.state_dict().items():
        shape, leaf = tuple(parameter.shape), name.rpartition(".")[2]
        if "_batch_norm" in name:
            values = draw.norm(STATISTICS.get(leaf, leaf), shape)
        elif leaf == "bias":
            values = draw.bias(shape)
        else:
            values = draw.kernel(shape, shape[0] if name == "out.weight" else prod(shape[1:]))
        parameter.set_value(values)


def logits(model: Any, images: np.ndarray) -> np.ndarray:
    model.eval()
    computed: np.ndarray = model(paddle.to_tensor(images)).numpy()
    return computed


def record(network: Network, path: Path, images: np.ndarray) -> np.ndarray:
    model = build(network)
    draw_into(model)
    state = model.state_dict()
    if is_old(network):
        paddle.save({"epoch": 3, "model": state}, str(path))
    else:
        paddle.save(state, str(path), protocol=2 if network.layer_type == "x" else 4)
    return logits(model, images)


if __name__ == "__main__":
    main(record)
