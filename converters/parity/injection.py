"""The rounding errors of one evaluation in float32, injected behind every operation.

Whoever computes in float32 rounds after every addition and product, in an order of their own. What
that does to an operation's result is known as a distribution: its size follows from the length of a
sum and from its terms. A run of the network in which every result is moved by one draw from it is
what some honest runtime could have computed. `docs/parity.md` derives the sizes.

The draws are twice as large (:data:`AMPLIFIED`), and the outputs' errors are divided by that. To
first order this changes nothing, and the rounding of the run itself, in float32 like any other,
counts for a quarter: it adds a twentieth to the root mean square. So a draw costs a pass in
float32. Much larger draws would leave the first order where a gate saturates.
"""

from __future__ import annotations

import math
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from converters.folder.inputs import SEED
from converters.formats.lockstep import Arithmetic
from converters.formats.operations import EXACT, normalised, tensors_of
from converters.parity.metrics import AMPLIFIED
from regnet.architecture import Conv
from regnet.layers import group_deviation

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from converters.formats.operations import Call
    from regnet.architecture import Operation

_UNIT = 2.0**-24 * AMPLIFIED
"""Half of the distance from 1 to the next float32, amplified."""

_ROUNDING = 0.18
"""Mean square of the relative error of one rounding, in squares of half that distance: uniform
within half a step, whose share of the value falls with the value's mantissa, (1 - 1/4) / 2 ln 2 of
1/3."""

_ROUNDINGS_OF_A_NORM = 4
"""On the way to its scale: of the variance plus epsilon, of its root, of one divided by that, and
times gamma. One more makes the mean times the scale."""

_LANES = (1, 8, 16)
"""How many sums runtimes keep side by side for the mean of a map."""

LANES_OF_GROUPS = (4, 8, 16)
"""Likewise for that of a group of channels: nobody adds up so many one after the other."""

_POOL = 1 << 20
_PIECE = 1 << 15


class Injection:
    """Computes torch's functions, each with the error that float32 may make in it.

    The same seed gives the same draws on every machine.

    Args:
        copies: How many draws are made at once: the images of a batch come that often, one copy
            after another, and each copy gets errors of its own.
        seed: Of the draws.
    """

    def __init__(self, copies: int, seed: int = 0) -> None:
        self._random = np.random.default_rng([SEED, seed])
        self._copies = copies
        self._kernel: Tensor | None = None
        self._kernel_squares = torch.empty(0)

    def __call__(
        self, function: Call, value: Tensor, *others: Any, magnitude: Tensor | None = None
    ) -> Tensor:
        """What ``function(value, *others)`` might be; tensors have images on their first axis.

        ``magnitude`` (out,) is that of the numbers from which a convolution's bias was computed, if
        not its own.
        """
        if function is torch.conv2d:
            return self._convolution(value, *others, magnitude=magnitude)
        if own := _OWN_ERRORS.get(function):
            return own(self, value, *others)
        result = function(value, *others).contiguous()
        if function in EXACT:
            return result
        if function in _BY_ARGUMENT:  # 1 + erf(x) and the like cancel where the function is small
            return self._approximated(result, value, 0.5)
        self._scattered(result, result, _UNIT * math.sqrt(_ROUNDING))
        if function is functional.adaptive_avg_pool2d:
            self._reordered(value, result)
        elif function in _ABSOLUTE:
            self._approximated(result, torch.ones(()), _ABSOLUTE[function])
        return result

    def _approximated(self, result: Tensor, sizes: Tensor, share: float) -> Tensor:
        """Runtimes' polynomials err at each value, and alike at values that are near each other."""
        self._scattered(result, sizes, share * _UNIT)
        noise = self._channels(result.shape[:2]).view(*result.shape[:2], *[1] * (result.ndim - 2))
        return result.addcmul_(sizes, noise, value=share * _UNIT)

    def _convolution(
        self,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None = None,
        *settings: Any,
        magnitude: Tensor | None = None,
    ) -> Tensor:
        """A sum of n terms, one after the other: its partial sums are a walk that ends at it.

        Each pixel has errors of its own, but those of weights, of the bias and of a norm's scale
        are the same for all pixels of a channel.
        """
        result = torch.conv2d(hidden, weight, None, *settings)
        count = weight[0].numel()
        shape = result.shape[:2]
        own, shared = self._terms(self._one(hidden), weight, settings[-1])
        own *= _UNIT * math.sqrt(_ROUNDING * (count / 6 + 1))
        shared *= _UNIT * math.sqrt(_ROUNDING)
        shift = self._channels(shape) * shared
        if bias is not None:
            size = (
                magnitude * math.sqrt(_ROUNDINGS_OF_A_NORM + 1) if magnitude is not None else bias
            )
            shift += bias + self._channels(shape) * size * (_UNIT * math.sqrt(_ROUNDING))
        scale = 1 + self._channels(shape) * (_UNIT * math.sqrt(_ROUNDING * _ROUNDINGS_OF_A_NORM))
        relative = _UNIT * math.sqrt(_ROUNDING * (count / 3 + 1))
        return self._moved(result, relative, own.view(-1), scale.view(-1), shift.view(-1))

    def _linear(self, hidden: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        kernel = weight[:, :, None, None]
        return self._convolution(hidden[:, :, None, None], kernel, bias, 1, 0, 1, 1)[:, :, 0, 0]

    def _reordered(self, hidden: Tensor, result: Tensor) -> Tensor:
        """The mean over a map: by how much the orders differ in which runtimes add it up."""
        error = self._channels(result.shape[:2]) * self._spread(hidden)
        return result.add_(error[:, :, None, None])

    def _deviation(self, hidden: Tensor, groups: int, eps: float) -> Tensor:
        """Of groups of channels: as wrong as the mean of the squares is, alike in all of them."""
        result = group_deviation(hidden, groups, eps)
        return result * (1 + self._deviations(hidden, groups, eps)[:, :, None, None])

    def _deviations(self, hidden: Tensor, groups: int, eps: float) -> Tensor:
        """Errors of the deviation relative to it, (N, C)."""
        grouped = _grouped(hidden, groups)
        squares = (grouped - grouped.mean((2, 3), keepdim=True)).square()
        wrong = self._spread(squares, LANES_OF_GROUPS) / (squares.mean((2, 3)) + eps) / 2
        rounded = _UNIT * math.sqrt(2 * _ROUNDING)  # the sum with epsilon, the root
        error = self._channels(wrong.shape) * wrong + self._channels(wrong.shape) * rounded
        return error.repeat_interleave(hidden.shape[1] // groups, 1)

    def _spread(self, hidden: Tensor, lanes: Sequence[int] = _LANES) -> Tensor:
        """How far means over maps are off by their order, amplified, (N, C)."""
        spread = torch.from_numpy(spread_of_orders(self._one(hidden).contiguous().numpy(), lanes))
        return (spread * AMPLIFIED).float().repeat(self._copies, 1)

    def _group_norm(
        self, hidden: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float
    ) -> Tensor:
        grouped, per_group = _grouped(hidden, groups), hidden.shape[1] // groups
        mean = grouped.mean((2, 3))
        off = self._channels(mean.shape) * self._spread(grouped, LANES_OF_GROUPS)
        mean, off = (each.repeat_interleave(per_group, 1) for each in (mean, off))
        scale = weight / group_deviation(hidden, groups, eps)[:, :, 0, 0]
        result = functional.group_norm(hidden, groups, weight, bias, eps)
        deviations = self._deviations(hidden, groups, eps)
        return self._normed(result, hidden, scale, bias, mean, deviations, off)

    def _batch_norm(
        self,
        hidden: Tensor,
        mean: Tensor,
        variance: Tensor,
        weight: Tensor,
        bias: Tensor,
        *settings: Any,
    ) -> Tensor:
        """One that no convolution takes in: its statistics are given, and exact."""
        result = functional.batch_norm(hidden, mean, variance, weight, bias, *settings)
        scale = (weight * (variance + settings[-1]).rsqrt())[None]
        relative = self._channels(result.shape[:2]) * (_UNIT * math.sqrt(2 * _ROUNDING))
        return self._normed(result, hidden, scale, bias, mean[None], relative, torch.zeros(()))

    def _normalisation(self, pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        """Of an image: as of a norm, whose scale and shift are rounded numbers too."""
        result = normalised(pixels, mean, std)
        shape = (1, result.shape[1])
        relative = self._channels(result.shape[:2]) * (_UNIT * math.sqrt(_ROUNDING))
        scale, bias = (1 / std).view(shape), torch.zeros(shape[1])
        none = torch.zeros(())
        return self._normed(result, pixels, scale, bias, mean.view(shape), relative, none)

    def _softmax(self, logits: Tensor, axis: int) -> Tensor:
        """Each class errs by its exponent, which is rounded, and by the function; all by the sum.

        The rounding of an exponent ``x`` is a part of ``exp(x)`` as large as ``x``. Three more are
        those of the function, which errs by one or two, and of the quotient.
        """
        result = torch.softmax(logits, axis)
        below = logits.amax(axis, keepdim=True) - logits
        one = _UNIT * math.sqrt(_ROUNDING)
        of_sum = self._noise(len(logits))[:, None] * (one * math.sqrt(logits.shape[1] / 3 + 1))
        result = result * (1 + of_sum)
        return self._scattered(result, (result * (below.square() + 3).sqrt()).contiguous(), one)

    def _normed(  # noqa: PLR0913, PLR0917 -- the parts of a norm
        self,
        result: Tensor,
        hidden: Tensor,
        scale: Tensor,
        bias: Tensor,
        mean: Tensor,
        relative: Tensor,
        off: Tensor,
    ) -> Tensor:
        """A norm, which may be ``(hidden - mean) * scale + bias`` or the same multiplied out.

        Args:
            result: Of torch, changed in place.
            hidden: What it reads, (N, C, H, W).
            scale: (N, C), as are ``mean``, ``relative`` and ``off``; or (1, C).
            bias: (C,).
            mean: What is subtracted.
            relative: Errors of the deviation, relative to it.
            off: Errors of the mean.
        """
        one = _UNIT * math.sqrt(_ROUNDING)
        shape = result.shape[:2]
        relative = relative + self._channels(shape) * (one * math.sqrt(2))
        shift = self._channels(shape) * (one * torch.hypot(mean * scale, bias)) + off * scale
        result += (result - bias[:, None, None]) * relative[:, :, None, None]
        result += shift[:, :, None, None]
        self._scattered(result, (hidden * scale[:, :, None, None]).contiguous(), one)
        return self._scattered(result, result.clone(), one)

    def _one(self, values: Tensor) -> Tensor:
        """The first of the copies."""
        return values[: len(values) // self._copies]

    def _terms(self, hidden: Tensor, weight: Tensor, groups: int) -> tuple[Tensor, Tensor]:
        """The root of the sum of squares of a sum's terms, (N, C) for all copies.

        Squares are taken for their mean over the map: of the values, and of the values' mean, which
        is what terms have in common in all pixels.
        """
        if self._kernel is not weight:  # the same computes all batches
            squares = weight.flatten(2).square()
            squares = squares.sum(2) if squares.shape[2] > 1 else squares[:, :, 0]
            squares = squares.view(groups, -1, weight.shape[1])
            self._kernel, self._kernel_squares = weight, squares.transpose(1, 2)
        sizes = torch.linalg.vector_norm(hidden, dim=(2, 3)) / math.sqrt(hidden[0, 0].numel())
        if not torch.isfinite(sizes).all():
            sizes = hidden.double().square().mean((2, 3)).sqrt().float()
        both = torch.cat([sizes, hidden.mean((2, 3))])
        peak = both.abs().amax().clamp(min=1e-30)
        grouped = (both / peak).square().view(len(both), groups, -1).transpose(0, 1)
        terms = torch.bmm(grouped, self._kernel_squares).transpose(0, 1).flatten(1).sqrt() * peak
        own, shared = terms.chunk(2)
        return own.repeat(self._copies, 1), shared.repeat(self._copies, 1)

    def _scattered(self, values: Tensor, sizes: Tensor, factor: float) -> Tensor:
        """Add ``factor * sizes * noise`` to each value, in place; a scalar size is for all."""
        flat, by = values.view(-1), sizes.reshape(-1)
        for begin in range(0, len(flat), _PIECE):
            piece = flat[begin : begin + _PIECE]
            size = by[begin : begin + _PIECE] if sizes.ndim else by
            piece.addcmul_(size, self._noise(len(piece)), value=factor)
        return values

    def _moved(
        self, values: Tensor, relative: float, own: Tensor, scale: Tensor, shift: Tensor
    ) -> Tensor:
        """Values (N, C, H, W) with all errors of a sum, in place, a piece that fits a cache each.

        Args:
            values: The sums.
            relative: Size of each value's error relative to it.
            own: Size of each value's error, for each of the N times C maps.
            scale: Factor of each map.
            shift: Summand of each map.
        """
        rows = values.view(values.shape[0] * values.shape[1], -1)
        columns = [size[:, None] for size in (own, shift, scale)]
        width = min(rows.shape[1], _PIECE)
        height = max(1, _PIECE // width)
        for top in range(0, len(rows), height):
            size, summand, factor = (column[top : top + height] for column in columns)
            for left in range(0, rows.shape[1], width):
                piece = rows[top : top + height, left : left + width]
                piece.addcmul_(piece, self._noise(piece.numel()).view(piece.shape), value=relative)
                piece.addcmul_(size, self._noise(piece.numel()).view(piece.shape))
                torch.addcmul(summand, piece, factor, out=piece)
        return values

    def _channels(self, shape: tuple[int, ...]) -> Tensor:
        """Noise for each channel of each image, (N, C)."""
        return self._noise(math.prod(shape)).view(shape)

    def _noise(self, count: int) -> Tensor:
        """As many normal numbers, from a random place of the pool."""
        if count > _PIECE:
            return torch.cat([self._noise(_PIECE), self._noise(count - _PIECE)])
        start = int(self._random.integers(_POOL - count))
        return noise_pool()[start : start + count]


_OWN_ERRORS: dict[Call, Callable[..., Tensor]] = {
    functional.linear: Injection._linear,  # noqa: SLF001 -- this and those below are its own
    functional.group_norm: Injection._group_norm,  # noqa: SLF001
    functional.batch_norm: Injection._batch_norm,  # noqa: SLF001
    group_deviation: Injection._deviation,  # noqa: SLF001
    normalised: Injection._normalisation,  # noqa: SLF001
    torch.softmax: Injection._softmax,  # noqa: SLF001
}
"""Functions of which one factor does not tell the error."""

_BY_ARGUMENT = (functional.gelu, functional.silu)

_ABSOLUTE = {torch.sigmoid: 0.5, torch.tanh: 0.5, functional.selu: 1.0}
"""Functions that are computed from 1 or end near it, and by what part of a rounding of 1 they err
however small they are: some runtimes' sigmoid is never below 1e-8."""


def _grouped(hidden: Tensor, groups: int) -> Tensor:
    """(N, C, H, W) as (N, groups, C/groups, H * W)."""
    return torch.unflatten(hidden, 1, (groups, -1)).flatten(3)


class Injected(Arithmetic):
    """Float32 with batch norms folded, and errors of its own in every function of torch.

    Args:
        injections: One for each batch.
    """

    def __init__(self, injections: Sequence[Injection]) -> None:
        super().__init__(torch.float32, folded=True)
        self._injections = injections
        self._magnitude: Tensor | None = None

    def held(self, operation: Operation, stored: Mapping[str, Tensor]) -> list[Tensor]:
        """Kernel and bias; of a fold it is kept of what size of numbers the bias is the sum."""
        held, self._magnitude = super().held(operation, stored), None
        if isinstance(operation, Conv) and operation.norm:
            scale, _, mean, variance = tensors_of(operation.norm, stored, self.dtype)
            factor = scale / torch.sqrt(variance + operation.norm.eps)
            self._magnitude = torch.hypot(held[1], mean * factor) * (factor != 0)
        return held

    def call(self, batch: int, function: Call, *arguments: Any) -> Tensor:
        """What a function might give."""
        return self._injections[batch](function, *arguments, magnitude=self._magnitude)


@cache
def noise_pool() -> Tensor:
    """A million draws of the standard normal distribution, flat, the same on every machine."""
    random = np.random.default_rng(SEED)
    return torch.from_numpy(random.standard_normal(_POOL, dtype=np.float32))


def spread_of_orders(
    values: NDArray[np.float32], lanes: Sequence[int] = _LANES
) -> NDArray[np.float64]:
    """By how much a mean in float32 is off in the worst of the orders in which runtimes add.

    Those are: in pairs, and in some sums side by side, or one after the other. Roundings of equal
    terms all go one way, so no formula replaces adding them up.

    Args:
        values: (N, C, H, W).
        lanes: How many sums there are side by side.

    Returns:
        (N, C).
    """
    images, channels, height, width = values.shape
    rows = np.ascontiguousarray(values.reshape(images * channels, height * width))
    pixels = np.ascontiguousarray(rows.T)
    sums = [rows.sum(1)]
    for count in lanes:
        whole = len(pixels) // count * count
        if whole > count:
            side_by_side = _in_turn(pixels[:whole].reshape(-1, count * pixels.shape[1]))
            rest = pixels[whole:].sum(0)
            sums.append(side_by_side.reshape(count, -1).sum(0) + rest)
    exact = rows.sum(1, dtype=np.float64)
    worst = np.max([np.abs(total - exact) for total in sums], axis=0)
    spread: NDArray[np.float64] = (worst / (height * width)).reshape(images, channels)
    return spread


def _in_turn(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    """The sum of all rows, one after the other; NumPy adds those of one column in pairs."""
    columns = rows.shape[1]
    total: NDArray[np.float32] = np.repeat(rows, 2, axis=1).sum(0) if columns == 1 else rows.sum(0)
    return total[:columns]
