"""What pycls has had since its release 0.1.1, of that release's own parts.

The block of RegNetZ, the head with a convolution and the activation of the cfg are a few lines
around modules of 0.1.1; the keys that its cfg lacks are added to the text.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import pycls.core.builders as pycls_builders
import torch
import yaml
from pycls.core.config import cfg
from pycls.models import anynet
from torch import nn

from tests.oracles.pycls import settings
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import Tensor

LINEAR = "res_bottleneck_linear_block"
_ACTIVATIONS = {"relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU}


class LinearBlock(nn.Module):
    """A bottleneck without an activation at its end, added to its input where it has its shape."""

    def __init__(self, w_in: int, w_out: int, stride: int, *sizes: Any) -> None:
        super().__init__()
        self.has_skip = (w_in, stride) == (w_out, 1)
        self.f = anynet.BottleneckTransform(w_in, w_out, stride, *sizes)

    def forward(self, x: Tensor) -> Tensor:
        added: Tensor = self.f(x)
        return x + added if self.has_skip else added


class Head(nn.Module):
    """A convolution with norm and activation, the mean, the classifier."""

    def __init__(self, w_in: int, head_w: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(w_in, head_w, 1, bias=False)
        self.bn = nn.BatchNorm2d(head_w, eps=cfg.BN.EPS)
        self.af = nn.ReLU()
        self.pooled = anynet.AnyHead(head_w, classes)
        self.fc = self.pooled.fc
        del self.pooled.fc

    def forward(self, x: Tensor) -> Tensor:
        features = self.pooled.avg_pool(self.af(self.bn(self.conv(x))))
        logits: Tensor = self.fc(features.flatten(1))
        return logits


@contextmanager
def _with_linear_blocks() -> Iterator[None]:
    known = anynet.get_block_fun
    with patch.object(
        anynet, "get_block_fun", lambda kind: LinearBlock if kind == LINEAR else known(kind)
    ):
        yield


def build(values: dict[str, Any], *, seed: int = 0) -> nn.Module:
    """The network of a cfg with weights and statistics like a trained one's, for evaluation.

    Args:
        values: Section to key to value, as :func:`yaml.safe_load` gives them.
        seed: Same seed, same weights.
    """
    section = values[values["MODEL"]["TYPE"].upper()]
    pairs = [
        (f"{name}.{key}", value)
        for name in ("MODEL", "BN", "REGNET", "ANYNET")
        for key, value in values.get(name, {}).items()
        if key in cfg[name]
    ]
    with settings({}), _with_linear_blocks():
        cfg.merge_from_list([item for pair in pairs for item in pair])
        network: nn.Module = pycls_builders.build_model()
        if width := section.get("HEAD_W", 0):
            last = network.head.fc  # type: ignore[union-attr]
            network.head = Head(last.in_features, width, last.out_features)  # type: ignore[union-attr, arg-type]
    activation = _ACTIVATIONS[values["MODEL"].get("ACTIVATION_FUN", "relu")]
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.ReLU):
                setattr(module, name, activation())
    return randomise(network, seed=seed)


def save(path: Path, network: nn.Module, values: dict[str, Any] | None) -> Path:
    """Save what a training run saves: without a cfg if there are no values."""
    tree: dict[str, Any] = {"epoch": 99, "model_state": network.state_dict()}
    if values is not None:
        tree |= {"cfg": yaml.safe_dump(values), "test_err": 20.0}
    torch.save(tree, path)
    return path
