"""What one honest evaluation of a module gets wrong: computed, not sampled.

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

In float16 weights, results, and inputs, which a runtime may hand on before they are rounded, err by
the spread of one rounding, 0.42 * 2**-11; sums are float32's. In int8 a weight and a value are off
by an even part of their step, which has the spread of a step over the root of 12.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
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
from regnet.files.dtypes import COMPUTED
from regnet.layers import group_deviation

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from regnet.architecture import Operation

    Ends = Mapping[str, tuple[float, float]]

_U = float(np.finfo(np.float32).eps) / 2
_LEAST = float(np.finfo(np.float32).tiny)
"""Below it float32 has fewer digits, or a runtime takes numbers for 0."""

_LANES = 16

_HALF = 0.42 * 2.0**-11
_LEAST_HALF = 2.0**-24
"""Of float16 as of float32 above."""

_NORM_ROUNDINGS = 4
"""Of a value on its way through such a norm: less its mean, squared, divided, scaled."""

_STEPS = 255
_UNIFORM = 12**-0.5
_LARGEST, _LARGEST_BIAS = 127, 2.0**30
"""Steps of a weight, and of what is added to a product."""


@dataclass(frozen=True, slots=True)
class Rounding:
    """What an artefact rounds weights and values to.

    Attributes:
        precision: ``float32``, ``float16`` or ``int8``.
        grids: Of values in integers the least and the largest that each can be, by its name.
        limits: Between which numbers such a value must be right: its grid's ends, or those of what
            natural images make of it, whichever lie further out.
    """

    precision: str = COMPUTED
    grids: Ends = field(default_factory=dict)
    limits: Ends = field(default_factory=dict)

    def step(self, name: str) -> float:
        """What an integer of a value is worth; 0 of floats."""
        least, most = self.grids.get(name, (0.0, 0.0))
        return (most - least) / _STEPS


def honest_error(
    operation: Operation,
    inputs: Sequence[Tensor],
    truth: Tensor,
    stored: Mapping[str, Tensor],
    rounding: Rounding,
) -> Tensor:
    """The RMS error by channel to expect of one evaluation of an operation.

    Args:
        operation: Which.
        inputs: What it reads, float64, (N, C, H, W) or (N, C).
        truth: Its value, float64, with channels as the second axis.
        stored: The state dict.
        rounding: What the artefact rounds to.

    Returns:
        (channels,), float64; 0 where nothing is rounded.
    """
    error = _float32_error(operation, inputs, truth, stored)
    exact = isinstance(operation, Act) and operation.function == "relu"
    if rounding.precision == "float16" and not (exact or isinstance(operation, Flatten | Output)):
        return error + _float16_error(operation, inputs, truth, stored)
    if rounding.precision == "int8":
        read = [rounding.step(name) for name in operation.inputs]
        own = rounding.step(operation.name)
        multiplies = isinstance(operation, Conv | Linear) and read[0] > 0
        of_inputs = _of_steps(operation, inputs, stored, read[0]) if multiplies else sum(read)
        return error + _UNIFORM * (of_inputs + own)
    return error


def _float16_error(
    operation: Operation, inputs: Sequence[Tensor], truth: Tensor, stored: Mapping[str, Tensor]
) -> Tensor:
    """Of what is rounded once: weights and inputs relative to the terms, and the result."""
    size, held = _rms(truth), tensors_of(operation, stored, truth.dtype)
    match operation:
        case Conv() | Linear():
            terms = 2 * _root_of_squares(operation, held[0], inputs[0])
            if isinstance(operation, Conv) and operation.norm:
                scale, shift = _norm_terms(operation.norm, stored)
                terms = terms * scale + shift
            elif len(held) > 1:
                terms = terms + held[1].abs()
        case Norm():
            scale, shift = _norm_terms(operation, stored)
            terms = 2 * scale * _rms(inputs[0]) + shift
        case GroupNorm() | EvoNorm():
            weight, bias = (tensor.abs() for tensor in held[:2])
            deviation = group_deviation(inputs[0], operation.groups, operation.eps)
            terms = _NORM_ROUNDINGS * weight * _rms(inputs[0] / deviation) + bias
        case Normalise():
            mean, std = (each.flatten() for each in held)
            terms = (mean.abs() + _rms(inputs[0])) / std
        case Softmax():  # of which each term errs as its exponent does
            terms = _rms(truth * inputs[0].abs().amax(1, keepdim=True)) + size
        case Pool():
            terms = inputs[0].abs().mean(dim=(0, 2, 3))
        case Act(function="sigmoid"):
            terms = torch.ones_like(size)
        case _:
            terms = sum((_rms(value) for value in inputs), torch.zeros_like(size))
    return _HALF * (terms + size) + _LEAST_HALF


def _of_steps(
    operation: Operation, inputs: Sequence[Tensor], stored: Mapping[str, Tensor], read: float
) -> Tensor:
    """What steps of weights make, and of what they multiply, which may be read before it has any.

    ``read`` is the size of a step of that.
    """
    weight, *biases = tensors_of(operation, stored, torch.float64)
    bias = biases[0] if biases else torch.zeros(len(weight), dtype=torch.float64)
    if isinstance(operation, Conv) and operation.norm:
        norm = operation.norm
        gamma, beta, mean, variance = tensors_of(norm, stored, torch.float64)
        scale = gamma * (variance + norm.eps).rsqrt()
        weight = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
        bias = beta - mean * scale
    largest = weight.abs().flatten(1).amax(1) / _LARGEST
    steps = torch.maximum(largest, bias.abs() / (_LARGEST_BIAS * read))
    by_weights = steps * _root_of_squares(operation, torch.ones_like(weight), inputs[0])
    return by_weights + read * weight.square().flatten(1).sum(1).sqrt()


def _float32_error(  # noqa: C901, PLR0911 -- one for each kind
    operation: Operation, inputs: Sequence[Tensor], truth: Tensor, stored: Mapping[str, Tensor]
) -> Tensor:
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
