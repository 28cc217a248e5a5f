"""How the operators of a ``.tflite`` file have to compute each operation of a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.parity.contents.litert.codes import Code, OtherOperatorError
from converters.parity.contents.litert.walk import (
    NOTHING,
    SAME,
    THEN_RELU,
    VALID,
    Walk,
)
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

if TYPE_CHECKING:
    from collections.abc import Callable

    from converters.parity.contents.litert.model import Step
    from converters.parity.contents.litert.walk import Found
    from regnet.architecture import Operation

_SELU_ABOVE = 1.0507009873554805
_SELU_BELOW = _SELU_ABOVE * 1.6732632423543772
"""Slope above zero, and the height below it."""

_DILATIONS = (4, 5)
"""Options of a convolution."""


@dataclass(frozen=True, slots=True)
class Reading:
    """An operation that is looked for.

    Attributes:
        walk: What has been found so far.
        operation: Which.
        found: Where its value is.
    """

    walk: Walk
    operation: Any
    found: Found

    @property
    def name(self) -> str:
        """Of the operation, for messages."""
        return called(self.operation)

    def step(self, code: Code) -> Step:
        """The operator that makes the operation's value, with what comes after it."""
        return self.walk.step(self.found.tensor, code, self.name, self.found.after)

    def inner(self, tensor: int, code: Code) -> tuple[int, ...]:
        """What an operator on the way to the value reads."""
        return self.walk.step(tensor, code, f"a part of {self.name}").inputs

    def value(self, tensor: int) -> None:
        """Say that a tensor has to be the one value that the operation reads."""
        self.walk.value(self.operation.inputs[0], tensor)

    def constant(self, tensor: int, wanted: Any) -> None:
        """Hold a constant of the operation to its numbers."""
        self.walk.constant(tensor, wanted, f"a constant of {self.name}")


def called(operation: Operation) -> str:
    """The module that an operation computes; of a convolution and its norm the one around both."""
    takes_norm = isinstance(operation, Conv) and operation.norm
    return operation.around if takes_norm else operation.name


def read_operation(walk: Walk, operation: Operation, found: Found) -> None:
    """Look for an operation; what it reads has to be where its operators read it.

    Raises:
        ValueError: If its operators are others, or there are none.
    """
    _READERS[type(operation)](Reading(walk, operation, found))


def _conv(reading: Reading) -> None:
    walk, conv = reading.walk, reading.operation
    step, stride = reading.step(Code.CONV_2D), conv.stride
    value, *weights = step.inputs
    _read_weights(reading, weights)
    is_padded = conv.kernel_size > 1 and stride > 1 and conv.padding != "same"
    padding = step.option(0)
    if padding not in ({VALID} if is_padded else {SAME} if conv.kernel_size > 1 else {SAME, VALID}):
        raise OtherOperatorError(f"{reading.name} has padding {padding}, which is the other one")
    walk.options(step, reading.name, width=(1, "<i4", stride), height=(2, "<i4", stride))
    for field in _DILATIONS:
        if (dilation := step.option(field, "<i4", 1)) != 1:
            raise OtherOperatorError(f"{reading.name} has a dilation of {dilation}")
    if is_padded:
        value, zeros = reading.inner(value, Code.PAD)
        around = [conv.kernel_size // 2] * 2
        reading.constant(zeros, [[0, 0], around, around, [0, 0]])
    reading.value(value)


def _read_weights(reading: Reading, weights: list[int]) -> None:
    operation = reading.operation
    if isinstance(operation, Conv) and operation.norm:
        names = [operation.around + FOLDED_WEIGHT, operation.around + FOLDED_BIAS]
    else:
        names = [slot.name for slot in operation.slots]
        if len(names) == 1:
            *weights, bias = weights
            integers = reading.walk.model.tensors[bias].dtype == "int32"
            zeros = [0 if integers else 0.0] * operation.slots[0].shape[0]
            reading.constant(bias, zeros)
    if len(names) != len(weights):
        raise OtherOperatorError(f"{reading.name} reads {len(weights)} tensors, not {len(names)}")
    for tensor, name in zip(weights, names, strict=True):
        reading.walk.weight(tensor, name)


def _norm(reading: Reading) -> None:
    scaled, bias = reading.step(Code.ADD).inputs
    value, weight = reading.inner(scaled, Code.MUL)
    reading.walk.weight(weight, reading.operation.name + FOLDED_WEIGHT)
    reading.walk.weight(bias, reading.operation.name + FOLDED_BIAS)
    reading.value(value)


def _group_norm(reading: Reading) -> None:
    centred, deviation = _affine(reading)
    value = _centred(reading, centred)
    _deviation(reading, deviation, centred)
    reading.value(value)


def _evonorm(reading: Reading) -> None:
    activated, deviation = _affine(reading)
    square = _deviation(reading, deviation)
    value = _centred(reading, square)
    if len(reading.operation.slots) > 2:  # noqa: PLR2004 -- weight and bias; v makes it an activation
        first, gate = reading.inner(activated, Code.MUL)
        (sloped,) = reading.inner(gate, Code.LOGISTIC)
        second, slope = reading.inner(sloped, Code.MUL)
        reading.walk.weight(slope, reading.operation.slots[2].name)
        activated = first
        reading.value(second)
    reading.value(activated)
    reading.value(value)


def _affine(reading: Reading) -> tuple[int, int]:
    """A norm's last operators: what is scaled, and the deviations that it is divided by."""
    weight, bias, *_ = reading.operation.slots
    scaled, shift = reading.step(Code.ADD).inputs
    value, scale = reading.inner(scaled, Code.MUL)
    factor, deviation = reading.inner(scale, Code.DIV)
    reading.walk.weight(factor, weight.name)
    reading.walk.weight(shift, bias.name)
    return value, deviation


def _centred(reading: Reading, tensor: int) -> int:
    """The value that the means of its groups were taken from."""
    value, mean = reading.inner(tensor, Code.SUB)
    if _of_groups(reading, _repeated(reading, mean)) != value:
        raise OtherOperatorError(f"{reading.name} has the mean of another value")
    return value


def _deviation(reading: Reading, tensor: int, centred: int | None = None) -> int:
    """What was squared; held to what is centred, where that is known."""
    (variance,) = reading.inner(_repeated(reading, tensor), Code.SQRT)
    variance, eps = reading.inner(variance, Code.ADD)
    reading.constant(eps, float(reading.operation.eps))
    one, other = reading.inner(_of_groups(reading, variance), Code.MUL)
    if one != other or centred not in {None, one}:
        raise OtherOperatorError(f"{reading.name} has the variance of another value")
    return one


def _repeated(reading: Reading, tensor: int) -> int:
    """What was repeated for each channel of a group."""
    channels = reading.operation.slots[0].shape[0]
    each, shape = reading.inner(tensor, Code.RESHAPE)
    reading.constant(shape, [-1, 1, 1, channels])
    grouped, times = reading.inner(each, Code.TILE)
    reading.constant(times, [1, 1, 1, channels // reading.operation.groups])
    return grouped


def _of_groups(reading: Reading, tensor: int) -> int:
    """What the means of groups, (N, 1, groups, 1), were taken from."""
    channels, groups = reading.operation.slots[0].shape[0], reading.operation.groups
    of_channels, shape = reading.inner(_mean(reading, tensor, [3]), Code.RESHAPE)
    reading.constant(shape, [-1, 1, groups, channels // groups])
    return _mean(reading, of_channels, [1, 2])


def _mean(reading: Reading, tensor: int, axes: list[int], after: int = NOTHING) -> int:
    """What a mean over axes that stay was taken from."""
    step = reading.walk.step(tensor, Code.MEAN, f"a mean of {reading.name}", after)
    value, over = step.inputs
    reading.constant(over, axes)
    reading.walk.options(step, reading.name, keep_dims=(0, "<i1", 1))
    return value


def _pool(reading: Reading) -> None:
    reading.value(_mean(reading, reading.found.tensor, [1, 2], reading.found.after))


def _average_pool(reading: Reading) -> None:
    step, stride = reading.step(Code.AVERAGE_POOL_2D), reading.operation.stride
    reading.walk.options(
        step,
        reading.name,
        padding=(0, "<i1", SAME),
        stride_width=(1, "<i4", stride),
        stride_height=(2, "<i4", stride),
        width=(3, "<i4", 2),
        height=(4, "<i4", 2),
    )
    (value,) = step.inputs
    reading.value(value)


def _of_two(code: Code) -> Callable[[Reading], None]:
    def read(reading: Reading) -> None:
        one, other = reading.step(code).inputs
        first, second = reading.operation.inputs
        reading.walk.value(first, one)
        reading.walk.value(second, other)

    return read


def _flatten(reading: Reading) -> None:
    value, shape = reading.step(Code.RESHAPE).inputs
    reading.constant(shape, [-1, reading.walk.model.tensors[value].shape[-1]])
    reading.value(value)


def _linear(reading: Reading) -> None:
    step = reading.step(Code.FULLY_CONNECTED)
    value, *weights = step.inputs
    _read_weights(reading, weights)
    reading.walk.options(step, reading.name, weights=(1, "<i1", 0), keep_num_dims=(2, "<i1", 0))
    reading.value(value)


def _normalise(reading: Reading) -> None:
    centred, std = reading.step(Code.DIV).inputs
    value, mean = reading.inner(centred, Code.SUB)
    reading.constant(mean, [float(each) for each in reading.operation.mean])
    reading.constant(std, [float(each) for each in reading.operation.std])
    reading.value(value)


def _softmax(reading: Reading) -> None:
    step = reading.step(Code.SOFTMAX)
    beta = step.options and float(step.options.number(0, "<f4"))
    if beta != 1:
        raise OtherOperatorError(f"the slope of {reading.name} is {beta} where 1 belongs")
    (value,) = step.inputs
    reading.value(value)


def _act(reading: Reading) -> None:
    _FUNCTIONS[reading.operation.function](reading)


def _of_one(code: Code, **options: tuple[int, str, int]) -> Callable[[Reading], None]:
    def read(reading: Reading) -> None:
        step = reading.step(code)
        reading.walk.options(step, reading.name, **options)
        (value,) = step.inputs
        reading.value(value)

    return read


def _relu(reading: Reading) -> None:
    """An operator of its own, or part of the one that makes its value."""
    if reading.walk.makes(reading.found.tensor, Code.RELU):
        _of_one(Code.RELU)(reading)
    else:
        reading.walk.value(reading.operation.inputs[0], reading.found.tensor, THEN_RELU)


def _silu(reading: Reading) -> None:
    value, gate = reading.step(Code.MUL).inputs
    (same,) = reading.inner(gate, Code.LOGISTIC)
    reading.value(value)
    reading.value(same)


def _selu(reading: Reading) -> None:
    above, below = reading.step(Code.ADD).inputs
    positive, slope = reading.inner(above, Code.MUL)
    reading.constant(slope, _SELU_ABOVE)
    (value,) = reading.inner(positive, Code.RELU)
    bent, height = reading.inner(below, Code.MUL)
    reading.constant(height, _SELU_BELOW)
    (least,) = reading.inner(bent, Code.ELU)
    same, zero = reading.inner(least, Code.MINIMUM)
    reading.constant(zero, 0.0)
    reading.value(value)
    reading.value(same)


_FUNCTIONS: dict[str, Callable[[Reading], None]] = {
    "relu": _relu,
    "gelu": _of_one(Code.GELU, approximate=(0, "<i1", 0)),
    "gelu_new": _of_one(Code.GELU, approximate=(0, "<i1", 1)),
    "selu": _selu,
    "sigmoid": _of_one(Code.LOGISTIC),
    "silu": _silu,
}

_READERS: dict[type[Operation], Callable[[Reading], None]] = {
    Conv: _conv,
    Norm: _norm,
    GroupNorm: _group_norm,
    EvoNorm: _evonorm,
    Act: _act,
    Pool: _pool,
    AveragePool: _average_pool,
    Scale: _of_two(Code.MUL),
    Add: _of_two(Code.ADD),
    Flatten: _flatten,
    Linear: _linear,
    Normalise: _normalise,
    Softmax: _softmax,
}
