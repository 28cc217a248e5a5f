"""The layers that blocks are made of, where torch has none or the configuration chooses one.

Activations, EvoNorm, and the convolution with TensorFlow's ``same`` padding.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Callable

    from regnet.config import RegNetConfig


def gelu_new(hidden: Tensor) -> Tensor:
    """GELU by its tanh approximation, elementwise, in the order of transformers' ``gelu_new``."""
    half = 0.5 * hidden  # first, so that gradients are summed in the same order too
    inner = math.sqrt(2.0 / math.pi) * (hidden + 0.044715 * torch.pow(hidden, 3.0))
    return half * (1.0 + torch.tanh(inner))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_new": gelu_new,
    "selu": functional.selu,
    "silu": functional.silu,
}


SQUEEZE_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "silu": nn.SiLU,
}


class EvoNormS0a(nn.Module):
    """EvoNorm S0a, norm and activation in one (timm ``layers/evo_norm.py``, ``EvoNorm2dS0a``).

    Args:
        groups: Of channels, whose variance is taken together, for each image by itself.
        channels: Of the input.
        eps: What is added to the variance.
        activates: Whether it is an activation, too; else it divides by the deviation alone.
    """

    def __init__(self, groups: int, channels: int, eps: float, *, activates: bool) -> None:
        super().__init__()
        self.groups, self.eps = groups, eps
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.v = nn.Parameter(torch.ones(channels)) if activates else None

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, C, H, W) to the same shape."""
        deviation = group_deviation(hidden, self.groups, self.eps)
        if self.v is not None:
            hidden = hidden * torch.sigmoid(hidden * self.v.view(-1, 1, 1))
        hidden = hidden / deviation
        return hidden * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)


def group_deviation(hidden: Tensor, groups: int, eps: float) -> Tensor:
    """The deviation of the group of each channel of each image: (N, C, H, W) to (N, C, 1, 1)."""
    channels = hidden.shape[1]
    variance = torch.unflatten(hidden, 1, (groups, -1)).var(dim=(2, 3, 4), unbiased=False)
    deviation = variance.add(eps).sqrt().unsqueeze(2)
    return deviation.expand(-1, -1, channels // groups).reshape(-1, channels, 1, 1)


def same_padded(hidden: Tensor, kernel_size: int, stride: int) -> Tensor:
    """Put zeros around images, (N, C, H, W), as TensorFlow's ``same`` has it.

    A convolution of ``n`` pixels then gives ``ceil(n / stride)``. An odd number of zeros has one
    more below and to the right: with a stride of 2 even sizes get none above and one row below.
    """
    height, width = (
        (size - 1) // stride * stride + kernel_size - size for size in hidden.shape[2:]
    )
    if stride > kernel_size:  # where some pixels are not read at all
        height, width = max(height, 0), max(width, 0)
    left, top = width // 2, height // 2
    return functional.pad(hidden, (left, width - left, top, height - top))


class SamePadConv2d(nn.Conv2d):
    """A convolution whose input is :func:`same_padded`."""

    def forward(self, hidden: Tensor) -> Tensor:
        """Map (N, in, H, W) to (N, out, H/stride, W/stride), rounded up."""
        return super().forward(same_padded(hidden, self.kernel_size[0], self.stride[0]))


def convolution(  # noqa: PLR0913 -- those of a convolution
    config: RegNetConfig,
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    groups: int = 1,
) -> nn.Conv2d:
    """A convolution without bias, which leaves images as large as they are at a stride of 1."""
    is_same = config.padding == "same" and stride > 1 and kernel_size > 1
    kind, padding = (SamePadConv2d, 0) if is_same else (nn.Conv2d, kernel_size // 2)
    return kind(
        in_channels,
        out_channels,
        kernel_size,
        stride=stride,
        padding=padding,
        groups=groups,
        bias=False,
    )


def norm_layer(config: RegNetConfig, channels: int, *, activates: bool = True) -> nn.Module:
    """The norm of a layer, which with EvoNorm is also its activation, if it has one."""
    if config.norm == "batch":
        return nn.BatchNorm2d(channels, eps=config.norm_eps)
    groups = channels // config.norm_group_size
    if config.norm == "group":
        return nn.GroupNorm(groups, channels, eps=config.norm_eps)
    return EvoNormS0a(groups, channels, config.norm_eps, activates=activates)


def activation_behind_norm(config: RegNetConfig) -> Callable[[Tensor], Tensor] | None:
    """The activation of a layer, unless its norm is one."""
    return None if config.norm == "evonorm-s0a" else ACTIVATIONS[config.hidden_act]
