"""Each operation of the network in torch's functions, those that the reference model calls.

Whoever computes a network operation by operation does it with this: the lockstep oracle, with
errors and roundings of its own, and the locator, on an artefact's values. So both get the bits that
the model in :mod:`regnet.model` gets.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch.nn import functional

from regnet.architecture import (
    Act,
    Add,
    AveragePool,
    Conv,
    EvoNorm,
    Flatten,
    GroupNorm,
    Linear,
    Norm,
    Normalise,
    Pool,
    Scale,
    Softmax,
)
from regnet.layers import ACTIVATIONS, group_deviation, same_padded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import Tensor

    from regnet.architecture import Operation

    Call = Callable[..., Tensor]

Value = TypeVar("Value")
"""A tensor, or what stands for several."""

EXACT = (functional.relu, torch.flatten, same_padded)
"""Functions that give numbers which they were given, or zero."""

LINEAR = (torch.conv2d, functional.linear)
"""Functions that multiply by weights."""

_FUNCTIONS = {**ACTIVATIONS, "sigmoid": torch.sigmoid}
_MOMENTUM = 0.1
"""Of a batch norm; only training asks."""


def tensors_of(
    operation: Operation, stored: Mapping[str, Tensor], dtype: torch.dtype
) -> list[Tensor]:
    """Cast what an operation computes with, in the order of its slots.

    Of a normalisation, which has no slots, it is mean and deviation, (channels, 1, 1).

    Args:
        operation: Which.
        stored: The state dict of its network.
        dtype: To which; what has it is not copied.
    """
    if isinstance(operation, Normalise):
        numbers = (operation.mean, operation.std)
        return [torch.tensor(each, dtype=dtype).view(-1, 1, 1) for each in numbers]
    slots = (slot for slot in operation.slots if not slot.is_counter)
    return [stored[slot.name].to(dtype) for slot in slots]


def normalised(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """Images (N, C, H, W) less their mean (C, 1, 1), divided by their deviation."""
    return (pixels - mean) / std


def called(function: Call, *arguments: Any) -> Tensor:
    """What a function of torch gives."""
    return function(*arguments)


def computed(  # noqa: C901, PLR0911, PLR0912 -- one for each kind
    operation: Operation,
    inputs: Sequence[Value],
    held: Sequence[Tensor],
    call: Callable[..., Value],
) -> Value:
    """What an operation makes of the values that it reads.

    Args:
        operation: Which; of a convolution that has taken in its batch norm the convolution.
        inputs: The values, (N, C, H, W) or (N, C), or what stands for them.
        held: Its tensors, as :func:`tensors_of` lists them; a bias may follow any kernel.
        call: Computes a function of torch, given the function and its arguments: values and what
            the operation holds and says.

    Raises:
        RuntimeError: From torch, if the shapes of the inputs do not fit.
    """
    value = inputs[0]
    match operation:
        case Conv(stride=stride, groups=groups, kernel_size=size):
            kernel, bias = (*held, None)[:2]
            padding = size // 2
            if operation.padding == "same":
                value, padding = call(same_padded, value, size, stride), 0
            return call(torch.conv2d, value, kernel, bias, stride, padding, 1, groups)
        case Norm(eps=eps):
            weight, bias, *measured = held
            settings = (False, _MOMENTUM, eps)
            return call(functional.batch_norm, value, *measured, weight, bias, *settings)
        case GroupNorm(groups=groups, eps=eps):
            return call(functional.group_norm, value, groups, *held, eps)
        case EvoNorm():
            return _evonorm(operation, value, held, call)
        case Act(function="gelu_new"):
            return _gelu_new(value, call)
        case Act(function=function):
            return call(_FUNCTIONS[function], value)
        case Pool():
            return call(functional.adaptive_avg_pool2d, value, (1, 1))
        case AveragePool(stride=stride):
            return call(functional.avg_pool2d, value, 2, stride, 0, True, False)
        case Scale():
            return call(torch.mul, *inputs)
        case Add():
            return call(torch.add, *inputs)
        case Flatten():
            return call(torch.flatten, value, 1)
        case Linear():
            return call(functional.linear, value, *held)
        case Normalise():
            mean, std = held
            return call(normalised, value, mean, std)
        case Softmax():
            return call(torch.softmax, value, 1)
    raise NotImplementedError(operation)


def _evonorm(
    operation: EvoNorm, value: Value, held: Sequence[Tensor], call: Callable[..., Value]
) -> Value:
    """:class:`regnet.layers.EvoNormS0a`, function by function."""
    weight, bias, *slope = (tensor.view(-1, 1, 1) for tensor in held)
    deviation = call(group_deviation, value, operation.groups, operation.eps)
    if slope:
        gate = call(torch.sigmoid, call(torch.mul, value, *slope))
        value = call(torch.mul, value, gate)
    value = call(torch.div, value, deviation)
    return call(torch.add, call(torch.mul, value, weight), bias)


def _gelu_new(value: Value, call: Callable[..., Value]) -> Value:
    """:func:`regnet.layers.gelu_new`, function by function."""
    half = call(torch.mul, value, 0.5)
    cubic = call(torch.mul, call(torch.pow, value, 3.0), 0.044715)
    inner = call(torch.mul, call(torch.add, value, cubic), math.sqrt(2.0 / math.pi))
    return call(torch.mul, half, call(torch.add, call(torch.tanh, inner), 1.0))
