"""What one honest float32 evaluation of a module gets wrong: computed, not sampled.

What float32 PyTorch happens to get wrong is one draw. Where a value is saturated, zero or constant
the draw is often 0 or nearly so (``sigmoid(40)`` is exactly 1), and whoever computes it by another
honest formula seems infinitely wrong. So the error of a module is derived from the formula that it
is computed by: every operation rounds its result, relative to the *terms* that it is made of.

With u = 2**-24, the largest relative error of one rounding:

- a sum of n products, in blocks of sixteen: ``u * sqrt(n / 16 + 1)`` times the root of the sum of
  the squared terms, since roundings of partial sums walk;
- a batch norm: u times each of its terms, ``scale * x``, ``scale * mean`` and ``bias``, which may
  cancel; where a convolution has taken it in, its weights are rounded as well;
- a sigmoid: u, whatever its value, as it is half of ``1 + tanh``; likewise u times ``x`` for what
  is ``x`` times such a number;
- a product, a sum: u times the result; a ReLU: nothing;
- a group norm or an EvoNorm: u times each of its terms, and what the order of a sum over the group
  makes in its mean and in that of the squares;
- a mean of n: ``u * sqrt(n / 3 + 1)`` times the mean of the magnitudes, and how far a float32 sum
  of one term after the other is off, because equal terms are all rounded the same way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from converters.formats.operations import tensors_of
from converters.parity.injection import LANES_OF_GROUPS, spread_of_orders
from converters.parity.locate.walk import Output
from regnet.architecture import (
    Act,
    Conv,
    EvoNorm,
    Flatten,
    GroupNorm,
    Linear,
    Norm,
    Normalise,
    Pool,
    Softmax,
)
from regnet.layers import group_deviation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from regnet.architecture import Operation

_U = float(np.finfo(np.float32).eps) / 2
_LEAST = float(np.finfo(np.float32).tiny)
"""Below it float32 has fewer digits, or a runtime takes numbers for 0."""

_LANES = 16


def honest_error(  # noqa: C901, PLR0911 -- one for each kind
    operation: Operation, inputs: Sequence[Tensor], truth: Tensor, stored: Mapping[str, Tensor]
) -> Tensor:
    """The RMS error by channel to expect of one float32 evaluation of an operation.

    Args:
        operation: Which.
        inputs: What it reads, float64, (N, C, H, W) or (N, C).
        truth: Its value, float64, with channels as the second axis.
        stored: The state dict.

    Returns:
        (channels,), float64; 0 where nothing is rounded.
    """
    size, held = _rms(truth), tensors_of(operation, stored, truth.dtype)
    match operation:
        case Conv(norm=Norm() as norm):
            scale, terms = _norm_terms(norm, stored)
            root = _root_of_squares(operation, held[0], inputs[0])
            return _U * ((_walk(held[0]) * root + root) * scale + terms + size / 2)
        case Conv() | Linear():
            bias = held[1].abs() if len(held) > 1 else 0.0
            root = _root_of_squares(operation, held[0], inputs[0])
            return _U * (_walk(held[0]) * root + bias + size / 2)
        case Norm():
            scale, terms = _norm_terms(operation, stored)
            return _U * (scale * _rms(inputs[0]) + terms + size / 2)
        case GroupNorm() | EvoNorm():
            return _grouped_error(operation, inputs[0], held, size)
        case Normalise():
            mean, std = (each.flatten() for each in held)
            return _U * (mean.abs() / std + _rms(inputs[0]) / std + size)
        case Softmax():
            below = inputs[0].amax(1, keepdim=True) - inputs[0]
            return _U * _rms(truth * (below + math.sqrt(truth.shape[1] / 3) + 3)) + _LEAST
        case Pool():
            return _mean_error(inputs[0], truth)
        case Act(function="sigmoid"):
            return torch.full_like(size, _U)
        case Act(function="relu") | Flatten() | Output():
            return torch.zeros_like(size)
        case Act():
            size = _rms(inputs[0])
    return _U * size + _LEAST


def _rms(value: Tensor) -> Tensor:
    """Of each channel, the second axis."""
    return value.square().mean(dim=[axis for axis in range(value.ndim) if axis != 1]).sqrt()


def _root_of_squares(operation: Operation, weight: Tensor, value: Tensor) -> Tensor:
    """By output channel, the root of the mean sum of the squared terms."""
    groups = operation.groups if isinstance(operation, Conv) else 1
    squares = weight.square().reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(-1)
    powers = _rms(value).square().reshape(groups, -1, 1)
    return (squares @ powers).flatten().sqrt()


def _walk(weight: Tensor) -> float:
    """How far roundings of partial sums walk, in units of u and of the terms' root."""
    return math.sqrt(weight[0].numel() / _LANES + 1)


def _norm_terms(norm: Norm, stored: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The magnitudes by channel of the scale, and of the two terms besides ``scale * x``."""
    weight, bias, mean, variance = tensors_of(norm, stored, torch.float64)
    scale = weight.abs() * (variance + norm.eps).rsqrt()
    return scale, scale * mean.abs() + bias.abs()


def _grouped_error(
    norm: GroupNorm | EvoNorm, value: Tensor, held: Sequence[Tensor], size: Tensor
) -> Tensor:
    """Of mean and variance, which are sums over a group; and of what is computed with them."""
    weight, bias = (tensor.abs() for tensor in held[:2])
    deviation = group_deviation(value, norm.groups, norm.eps)
    grouped = torch.unflatten(value, 1, (norm.groups, -1)).flatten(3)
    squares = (grouped - grouped.mean((2, 3), keepdim=True)).square()
    off = _mean_off(squares) / (squares.mean((2, 3)) + norm.eps) / 2
    per_group = value.shape[1] // norm.groups
    relative = off.repeat_interleave(per_group, 1)[:, :, None, None]
    wrong = weight * _rms(value / deviation * relative)
    if isinstance(norm, GroupNorm):  # an EvoNorm subtracts no mean
        shift = _mean_off(grouped).repeat_interleave(per_group, 1)[:, :, None, None]
        wrong += weight * _rms(shift / deviation)
    return _U * (2 * weight * _rms(value / deviation) + bias + size / 2) + wrong


def _mean_off(grouped: Tensor) -> Tensor:
    """How far the mean of a group is off, (N, groups): by the order of its sum, and roundings."""
    spread = torch.from_numpy(spread_of_orders(grouped.float().numpy(), LANES_OF_GROUPS))
    return spread + _U * grouped.abs().mean((2, 3))


def _mean_error(value: Tensor, truth: Tensor) -> Tensor:
    terms = value.flatten(2)
    added = np.cumsum(terms.float().numpy(), axis=-1, dtype=np.float32)[..., -1]  # in turn
    in_turn_error = _rms(torch.from_numpy(added).double() / terms.shape[-1] - truth.flatten(1))
    magnitudes = terms.abs().mean(dim=(0, 2))
    return _U * math.sqrt(terms.shape[-1] / 3 + 1) * magnitudes + in_turn_error
