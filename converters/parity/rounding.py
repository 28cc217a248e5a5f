"""What an honest artefact of reduced precision computes: the reference, with everything rounded.

Whoever computes in float16 must round weights and what passes between layers to float16; whoever
computes in int8 must round them to 255 steps. This arithmetic is exactly that and nothing else, so
its error is the least that such an artefact can be asked for, and the unit of its verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from converters.errors import InputError
from converters.folder.inputs import SEED
from converters.formats.lockstep import Arithmetic
from converters.formats.onnx.form import INT8, SYMMETRIC_INT8
from converters.formats.operations import EXACT, LINEAR
from converters.parity.injection import noise_pool
from regnet.architecture import Conv, Linear, Normalise

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray
    from torch import Tensor

    from converters.formats.operations import Call
    from regnet.architecture import Operation

PRECISIONS = ("float16", "bfloat16", INT8, SYMMETRIC_INT8)

_PIECE = 1 << 17

_UNIFORM = 12**-0.5
"""Spread of a number that is uniform within one step, in steps."""

_MEAN_STEP = 0.72
"""Of a type's steps at 1, relative to a value: it falls from 1 to 1/2 with the mantissa."""

_STEPS = 255
"""Of eight bits: from least to most of an activation, or half of them to each side of zero."""


def rounded(precision: str, copies: int = 1) -> Arithmetic:
    """The arithmetic of the reference model with weights and activations rounded to a precision.

    Additions run in float32, as the accumulators of processors do. In float16 and bfloat16 every
    number that passes from one operation to the next is rounded: also a gate, a mean, a sum of
    branches. In int8 a weight has the scale of its output channel, symmetric, and an activation one
    that spans what the batch holds, or in symmetric int8 that and its negative, as static
    quantisation with well chosen ranges has; biases are as exact as the sums that they are added
    to. Batch norms are folded first, since that is what gets rounded.

    Args:
        precision: Of :data:`PRECISIONS`.
        copies: How many draws are made at once: the images of a batch come that often, one copy
            after another. The first is rounded to nearest; in the others values that lie between
            two steps go to either, the likelier the nearer.

    Raises:
        InputError: If it is another.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"There is no rule for artefacts that compute in {precision}; verify one in "
            f"float32 or {', '.join(PRECISIONS)}."
        )
    if precision in {INT8, SYMMETRIC_INT8}:
        return _Int8(copies, symmetric=precision == SYMMETRIC_INT8)
    return _Half(getattr(torch, precision), copies)


def rounding_of(values: NDArray[np.floating], precision: str) -> NDArray[np.float64]:
    """Spread of the error that rounding alone makes in each value of an output.

    A draw may miss it: a lone number that happens to lie beside one of float16's is rounded to that
    one in every draw, while an artefact whose sums are a little off is rounded to the next, or is
    not rounded at all.

    Args:
        values: The oracle's.
        precision: As for :func:`rounded`.

    Returns:
        Of the shape of the values; zeros for int8, whose steps depend on what else there is.
    """
    if precision in {INT8, SYMMETRIC_INT8}:
        return np.zeros(values.shape)
    kind = torch.finfo(getattr(torch, precision))
    sizes = np.maximum(np.abs(values), kind.tiny / _MEAN_STEP)
    return np.where(values == 0, 0, sizes * (_UNIFORM * _MEAN_STEP * kind.eps))


class _Rounded(Arithmetic):
    """Noise with the spread of one step of rounding, in all copies but the first."""

    def __init__(self, copies: int) -> None:
        super().__init__(torch.float32, folded=True)
        self._random = np.random.default_rng(SEED)
        self._copies = copies

    def dithered(self, values: Tensor, size: Tensor, factor: float) -> Tensor:
        """``values + factor * size * noise``."""
        own = len(values) // self._copies
        if own == len(values):
            return values
        result = values.clone()
        sizes = size.expand_as(values)[own:].reshape(-1)
        rest = result[own:].view(-1)
        pool = noise_pool()
        for begin in range(0, len(rest), _PIECE):
            piece = rest[begin : begin + _PIECE]
            start = int(self._random.integers(len(pool) - len(piece)))
            noise = pool[start : start + len(piece)]
            piece.addcmul_(sizes[begin : begin + _PIECE], noise, value=factor)
        return result


class _Half(_Rounded):
    """Every number is rounded to nearest, or dithered, and is still in a float32 tensor."""

    def __init__(self, rounded_to: torch.dtype, copies: int) -> None:
        super().__init__(copies)
        self._rounded_to = rounded_to

    def held(self, operation: Operation, stored: Mapping[str, Tensor]) -> list[Tensor]:
        held = super().held(operation, stored)
        if isinstance(operation, Normalise):  # before anything is rounded
            return held
        return [self._nearest(tensor) for tensor in held]

    def call(self, batch: int, function: Call, *arguments: Any) -> Tensor:
        result = super().call(batch, function, *arguments)
        return result if function in EXACT else self.pixels(result)

    def pixels(self, pixels: Tensor) -> Tensor:
        """Below the smallest normal number, where a shut gate may be, all steps have one size."""
        kind = torch.finfo(self._rounded_to)
        between = torch.isfinite(pixels) & (pixels != 0)
        sizes = torch.where(between, pixels.abs().clamp(min=kind.tiny / _MEAN_STEP), 0)
        step = _UNIFORM * (_MEAN_STEP * kind.eps)
        return self._nearest(self.dithered(pixels.contiguous(), sizes, step))

    def _nearest(self, values: Tensor) -> Tensor:
        return values.to(self._rounded_to).float()


class _Int8(_Rounded):
    """Sums of products are of whole numbers; what is computed between them is in float32."""

    def __init__(self, copies: int, *, symmetric: bool) -> None:
        super().__init__(copies)
        self._symmetric = symmetric

    def held(self, operation: Operation, stored: Mapping[str, Tensor]) -> list[Tensor]:
        held = super().held(operation, stored)
        multiplies = isinstance(operation, Conv | Linear)  # what norms hold stays as it is
        return [_per_channel(held[0]), *held[1:]] if multiplies else held

    def call(self, batch: int, function: Call, *arguments: Any) -> Tensor:
        if function not in LINEAR:
            return super().call(batch, function, *arguments)
        value, *others = arguments
        return self._per_tensor(super().call(batch, function, self._per_tensor(value), *others))

    def _per_tensor(self, values: Tensor) -> Tensor:
        """On 255 steps from the least to the largest value, zero among them or in the middle."""
        least, most = values.amin().clamp(max=0), values.amax().clamp(min=0)
        if self._symmetric:
            most = torch.maximum(-least, most)
            least = -most
        scale = ((most - least) / _STEPS).clamp(min=1e-12)
        steps = self.dithered((values / scale).contiguous(), torch.ones(()), _UNIFORM)
        return steps.round() * scale


def _per_channel(weight: Tensor) -> Tensor:
    """Symmetric, 127 steps to each side, one scale per output channel."""
    largest = weight.flatten(1).abs().amax(1).clamp(min=1e-12)
    scale = (largest / (_STEPS // 2)).reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / scale).round() * scale
