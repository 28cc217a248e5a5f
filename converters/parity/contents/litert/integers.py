"""What the integers of a ``.tflite`` file are worth, and what LiteRT's kernels take for granted.

Rules: https://ai.google.dev/edge/litert/conversion/tensorflow/quantization/quantization_spec
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import printable
from converters.formats.onnx.int8_graph import BIAS, WEIGHT
from converters.parity.contents.held import LARGEST_BIAS
from converters.parity.contents.litert.codes import Code, OtherOperatorError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from converters.parity.contents.litert.model import Grid, LiteRtModel, Step, Tensor

INTEGERS = {"int8": WEIGHT, "int32": BIAS}
"""Types of weights in integers, and what follows their names."""

LEAST, MOST = -128, 127

_SIGMOID = 1 / 256
"""Steps of the one grid that LiteRT's sigmoid gives."""

_RELU = 1

_FUSED = {Code.ADD: 0, Code.MUL: 0, Code.FULLY_CONNECTED: 0, Code.CONV_2D: 3}
"""Where options say what an operator does to its result."""

_MULTIPLYING = (Code.CONV_2D, Code.FULLY_CONNECTED)
_OF_TWO = (Code.ADD, Code.MUL)
_KERNELS = {*_MULTIPLYING, *_OF_TWO, Code.MEAN, Code.LOGISTIC, Code.PAD}
"""What may compute in integers."""


def own_name(tensor: Tensor) -> str:
    """The name of a weight without what says that it is in integers."""
    return tensor.name.removesuffix(INTEGERS.get(tensor.dtype, ""))


def least_steps(model: LiteRtModel) -> dict[str, NDArray[np.float64]]:
    """What a step of each channel of a kernel is worth at least, for its bias to fit, by name."""
    found = {}
    for step in model.steps:
        weight, *biases = (model.tensors[place] for place in step.inputs[1:] or step.inputs)
        if step.code in _MULTIPLYING and weight.dtype == "int8" and weight.grid:
            (bias,) = biases
            numbers = np.abs(bias.elements().astype(np.float64))
            found[weight.name] = numbers / LARGEST_BIAS * weight.grid.scale
    return found


def check_grid(model: LiteRtModel, place: int) -> Grid:
    """The grid of an activation.

    Raises:
        OtherOperatorError: If it has none.
    """
    tensor = model.tensors[place]
    grid, name = tensor.grid, printable(tensor.name)
    if grid is None or (len(grid.scale), len(grid.zero)) != (1, 1):
        raise OtherOperatorError(f"{name} has no grid of 256 steps")
    if not (np.isfinite(grid.scale[0]) and grid.scale[0] > 0):
        raise OtherOperatorError(f"{name} has steps of {grid.scale[0]:g}")
    if not LEAST <= grid.zero[0] <= MOST:
        raise OtherOperatorError(f"{name} has a zero that is none of its steps")
    return grid


def check_step(model: LiteRtModel, step: Step, what: str) -> None:
    """Hold an operator that computes in integers to what its kernel takes for granted.

    Raises:
        OtherOperatorError: If it mixes integers and floats, or its grids do not fit together.
    """
    read = step.inputs if step.code in _OF_TWO else step.inputs[:1]
    activations = [*read, *step.outputs]
    if all(model.tensors[place].dtype == "float32" for place in activations):
        if step.code in _MULTIPLYING and _kinds(model, step.inputs[1:]) != ["float32"] * 2:
            raise OtherOperatorError(f"{what} has weights in integers, and computes in floats")
        return
    if step.code not in _KERNELS or any(
        model.tensors[place].dtype != "int8" for place in activations
    ):
        raise OtherOperatorError(f"{what} mixes integers and floats")
    first, *_, made = (check_grid(model, place) for place in activations)
    if step.code in _MULTIPLYING:
        _check_weights(model, step, first, what)
    if step.code == Code.LOGISTIC and made.scale[0] != _SIGMOID:
        raise OtherOperatorError(f"{what} has other steps than 1/256")
    if step.code == Code.PAD and (made.scale[0], made.zero[0]) != (first.scale[0], first.zero[0]):
        raise OtherOperatorError(f"{what} has other steps around zeros than within")
    never_negative = step.code == Code.LOGISTIC or any(
        step.code == code and step.option(field) == _RELU for code, field in _FUSED.items()
    )
    if never_negative and made.zero[0] != LEAST:
        raise OtherOperatorError(f"{what} has a zero that is not step -128, though never negative")


def _check_weights(model: LiteRtModel, step: Step, value: Grid, what: str) -> None:
    if _kinds(model, step.inputs[1:]) != ["int8", "int32"]:
        raise OtherOperatorError(f"{what} computes in integers, and its weights are floats")
    weight, bias = (model.tensors[place].grid for place in step.inputs[1:])
    if weight is None or bias is None or weight.axis or bias.axis:
        raise OtherOperatorError(f"{what} does not say what each channel's integers are worth")
    if not np.array_equal(bias.scale, value.scale * weight.scale):
        raise OtherOperatorError(f"the biases of {what} have other steps than input and weights")
    if any(each.zero.any() or len(each.zero) != len(each.scale) for each in (weight, bias)):
        raise OtherOperatorError(f"the weights of {what} have a zero that is not 0")
    if not (weight.scale > 0).all() or not np.isfinite(bias.scale).all():
        raise OtherOperatorError(f"the weights of {what} have steps that are no sizes")


def _kinds(model: LiteRtModel, places: tuple[int, ...]) -> list[str]:
    return [model.tensors[place].dtype for place in places]
