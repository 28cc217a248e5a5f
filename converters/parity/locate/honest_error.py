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
- a mean of n: ``u * sqrt(n / 3 + 1)`` times the mean of the magnitudes, and how far a float32 sum
  of one term after the other is off, because equal terms are all rounded the same way.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from converters.parity.locate.walk import Step
    from regnet.model import RegNetForImageClassification, RegNetModel

_U = float(np.finfo(np.float32).eps) / 2
_LEAST = float(np.finfo(np.float32).tiny)
"""Below it float32 has fewer digits, or a runtime takes numbers for 0."""

_LANES = 16


def honest_error(
    step: Step,
    model: RegNetModel | RegNetForImageClassification,
    inputs: Sequence[Tensor],
    truth: Tensor,
) -> Tensor:
    """The RMS error by channel to expect of one float32 evaluation of a step.

    Args:
        step: Of the network.
        model: The reference model in float64.
        inputs: Of the step, float64, (N, C, H, W) or (N, C).
        truth: Its value, float64, with channels as the second axis.

    Returns:
        (channels,), float64; 0 where nothing is rounded.
    """
    modules = [model.get_submodule(name) for name in step.modules]
    match modules:
        case [nn.Conv2d() | nn.Linear() as layer]:
            bias = torch.zeros(()) if layer.bias is None else layer.bias.abs()
            error = _U * (_sum_error(layer, inputs[0]) + bias + _rms(truth) / 2)
        case [nn.Conv2d() as layer, nn.BatchNorm2d() as norm]:
            scale, terms = _norm_terms(norm)
            summed = (_sum_error(layer, inputs[0]) + _root_of_squares(layer, inputs[0])) * scale
            error = _U * (summed + terms + _rms(truth) / 2)
        case [nn.BatchNorm2d() as norm]:
            scale, terms = _norm_terms(norm)
            error = _U * (scale * _rms(inputs[0]) + terms + _rms(truth) / 2)
        case [nn.AdaptiveAvgPool2d()]:
            error = _mean_error(inputs[0], truth)
        case [nn.Sigmoid()]:
            error = torch.full_like(_rms(truth), _U)
        case [nn.ReLU() | nn.Flatten() | nn.Identity()]:
            error = torch.zeros_like(_rms(truth))
        case _:
            error = _error_of_operation(step, model, inputs, truth)
    return error


def _error_of_operation(
    step: Step,
    model: RegNetModel | RegNetForImageClassification,
    inputs: Sequence[Tensor],
    truth: Tensor,
) -> Tensor:
    """Of a step without a module: sum, product, activation, or the mere name of an output."""
    if not step.applied or (step.is_activation and model.config.hidden_act == "relu"):
        return torch.zeros_like(_rms(truth))
    magnitude = _rms(inputs[0]) if step.is_activation else _rms(truth)
    return _U * magnitude + _LEAST


def _rms(value: Tensor) -> Tensor:
    """Of each channel, the second axis."""
    return value.square().mean(dim=[axis for axis in range(value.ndim) if axis != 1]).sqrt()


def _root_of_squares(layer: nn.Conv2d | nn.Linear, value: Tensor) -> Tensor:
    """By output channel, the root of the mean sum of the squared terms."""
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    weight = layer.weight
    squares = weight.square().reshape(groups, len(weight) // groups, weight.shape[1], -1).sum(-1)
    powers = _rms(value).square().reshape(groups, -1, 1)
    root: Tensor = (squares @ powers).flatten().sqrt()
    return root


def _sum_error(layer: nn.Conv2d | nn.Linear, value: Tensor) -> Tensor:
    """By output channel, in units of u."""
    blocks = layer.weight[0].numel() / _LANES + 1
    return math.sqrt(blocks) * _root_of_squares(layer, value)


def _norm_terms(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """The magnitudes by channel of the scale, and of the two terms besides ``scale * x``."""
    assert norm.running_mean is not None and norm.running_var is not None  # noqa: S101, PT018
    scale = norm.weight.abs() * (norm.running_var + norm.eps).rsqrt()
    return scale, scale * norm.running_mean.abs() + norm.bias.abs()


def _mean_error(value: Tensor, truth: Tensor) -> Tensor:
    terms = value.flatten(2)
    added = np.cumsum(terms.float().numpy(), axis=-1, dtype=np.float32)[..., -1]  # in turn
    in_turn_error = _rms(torch.from_numpy(added).double() / terms.shape[-1] - truth.flatten(1))
    magnitudes = terms.abs().mean(dim=(0, 2))
    return _U * math.sqrt(terms.shape[-1] / 3 + 1) * magnitudes + in_turn_error
