"""What an honest artefact of reduced precision computes: the reference, with everything rounded.

Whoever computes in float16 must round weights and what passes between layers to float16; whoever
computes in int8 must round them to 255 steps. This arithmetic is exactly that and nothing else, so
its error is the least that such an artefact can be asked for, and the unit of its verdict.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from converters.errors import InputError
from converters.runtimes.lockstep import Arithmetic

if TYPE_CHECKING:
    from torch import Tensor

    from converters.runtimes.lockstep import Rounding

PRECISIONS = ("float16", "bfloat16", "int8")

_STEPS = 255
"""Of eight bits: 127 to each side of zero for weights, 255 from least to most for activations."""


def rounded(precision: str) -> Arithmetic:
    """The arithmetic of the reference model with weights and activations rounded to a precision.

    Additions run in float32, as the accumulators of processors do. In int8 a weight has the scale
    of its output channel, symmetric, and an activation one that spans what the batch holds, as
    static quantisation with well chosen ranges has. Batch norms are folded first, since that is
    what gets rounded.

    Args:
        precision: ``float16``, ``bfloat16`` or ``int8``.

    Raises:
        InputError: If it is another.
    """
    if precision not in PRECISIONS:
        raise InputError(
            f"There is no rule for artefacts that compute in {precision}; verify one in "
            f"float32 or {', '.join(PRECISIONS)}."
        )
    weight, activation = _roundings(precision)
    return Arithmetic(torch.float32, folded=True, weight=weight, activation=activation)


def _roundings(precision: str) -> tuple[Rounding, Rounding]:
    """How weights and how activations are rounded; both stay float32 tensors."""
    if precision == "int8":
        return _per_channel, _per_tensor
    dtype = getattr(torch, precision)

    def to_half(values: Tensor) -> Tensor:
        return values.to(dtype).float()

    return to_half, to_half


def _per_channel(weight: Tensor) -> Tensor:
    """Symmetric, 127 steps to each side, one scale per output channel."""
    largest = weight.flatten(1).abs().amax(1).clamp(min=1e-12)
    scale = (largest / (_STEPS // 2)).reshape(-1, *[1] * (weight.ndim - 1))
    return (weight / scale).round() * scale


def _per_tensor(values: Tensor) -> Tensor:
    """Affine, 255 steps from the least to the largest value, zero among them."""
    least, most = values.amin().clamp(max=0), values.amax().clamp(min=0)
    scale = ((most - least) / _STEPS).clamp(min=1e-12)
    return (values / scale).round() * scale
