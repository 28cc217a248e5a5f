"""A network's values, looked for in the tensors of a ``.tflite`` file from its end to its image.

A value is looked for in the tensor that its readers read. The operators that make this tensor have
to be those that compute the operation, with its attributes; then what they read are the operation's
own values, which are looked for in turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from converters.errors import printable
from converters.parity.contents.litert.codes import Code, OtherOperatorError
from converters.parity.contents.litert.integers import (
    LEAST,
    MOST,
    check_grid,
    check_step,
    own_name,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.parity.contents.litert.model import LiteRtModel, Step


_FUSED = {
    Code.ADD: 0,
    Code.MUL: 0,
    Code.SUB: 0,
    Code.DIV: 0,
    Code.FULLY_CONNECTED: 0,
    Code.CONV_2D: 3,
    Code.AVERAGE_POOL_2D: 5,
}
"""Which option of an operator is what it does to its own result."""

_OPTIONS = {
    Code.ADD: 11,
    Code.MUL: 21,
    Code.SUB: 28,
    Code.DIV: 29,
    Code.FULLY_CONNECTED: 8,
    Code.CONV_2D: 1,
    Code.AVERAGE_POOL_2D: 5,
    Code.MEAN: 27,
    Code.SOFTMAX: 9,
    Code.GELU: 116,
}
"""``BuiltinOptions`` of operators whose options count: others are not looked at."""

NOTHING, THEN_RELU = 0, 1
"""``ActivationFunctionType``."""

SAME, VALID = 0, 1
"""``Padding``."""

_CLOSE = 1e-6
"""Relative: constants are float32."""


class Found(NamedTuple):
    """Where a value of the network is.

    Attributes:
        tensor: Its index.
        after: What the operator does to the value, so that the tensor is what comes of that.
    """

    tensor: int
    after: int = NOTHING


class Walk:
    """What has been found of a network, and what is asked on the way.

    Attributes:
        model: What was read.
        found: Where values of the network are.
        met: Indices of the tensors that were met.
        integers: Whether operators may compute in int8, and values go onto grids and back.
    """

    def __init__(
        self, model: LiteRtModel, outputs: Mapping[str, int], *, integers: bool = False
    ) -> None:
        self.model, self.integers = model, integers
        self.met = set(outputs.values())
        self._makers = {step.outputs[0]: step for step in model.steps if step.outputs}
        self._moved: dict[int, int] = {}
        self.found = {name: Found(self._made(tensor)) for name, tensor in outputs.items()}

    def _made(self, tensor: int) -> int:
        """What was put onto a grid, or taken off one, if that was all that made a tensor.

        Raises:
            OtherOperatorError: If the same was moved into two tensors: each would have its grid.
        """
        step = self._makers.get(tensor)
        if not self.integers or step is None or step.code not in {Code.QUANTIZE, Code.DEQUANTIZE}:
            return tensor
        (made,) = step.inputs
        kinds = [self.model.tensors[index].dtype for index in (made, tensor)]
        if kinds != (["float32", "int8"] if step.code == Code.QUANTIZE else ["int8", "float32"]):
            raise OtherOperatorError(f"{Code(step.code).name} makes {kinds[1]} of {kinds[0]}")
        if self._moved.setdefault(made, tensor) != tensor:
            raise OtherOperatorError(
                f"{printable(self.model.tensors[made].name)} is moved into two tensors"
            )
        check_grid(self.model, made if step.code == Code.DEQUANTIZE else tensor)
        self.met.update((made, tensor))
        return made

    def grids(self) -> dict[str, tuple[float, float]]:
        """The least and the largest number of each value that is in integers."""
        found = {}
        for name, (place, after) in self.found.items():
            if after != NOTHING:  # what is there is another value
                continue
            tensor = self.model.tensors[place]
            if tensor.dtype != "int8" and place in self._moved:
                tensor = self.model.tensors[self._moved[place]]
            if tensor.dtype == "int8" and tensor.grid:
                (scale,), (zero,) = tensor.grid.scale.tolist(), tensor.grid.zero.tolist()
                found[name] = ((LEAST - zero) * scale, (MOST - zero) * scale)
        return found

    def step(self, tensor: int, code: Code, what: str, after: int = NOTHING) -> Step:
        """The operator that makes a tensor.

        Args:
            tensor: Index of the tensor.
            code: Of which kind it has to be.
            what: What it computes, for messages.
            after: What it has to do to its result.

        Raises:
            OtherOperatorError: If it is another.
        """
        tensor = self._made(tensor)
        step = self._makers.get(tensor)
        if step is None or step.code != code:
            raise OtherOperatorError(f"{what} is made by {_named(step)} where {code.name} belongs")
        if code in _OPTIONS and step.options_type != _OPTIONS[code]:
            raise OtherOperatorError(f"{what} has options of kind {step.options_type}")
        fused = step.option(_FUSED[code]) if code in _FUSED else NOTHING
        if fused != after:
            raise OtherOperatorError(f"{what} has the activation {fused} where {after} belongs")
        self.met.update((tensor, *step.inputs))
        if self.integers:
            check_step(self.model, step, what)
        return step

    def makes(self, tensor: int, code: Code) -> bool:
        """Whether such an operator makes a tensor."""
        step = self._makers.get(self._made(tensor))
        return step is not None and step.code == code

    def value(self, name: str, tensor: int, after: int = NOTHING) -> None:
        """Say where a value of the network has to be.

        Raises:
            OtherOperatorError: If another reader reads another tensor for it.
        """
        found = Found(self._made(tensor), after)
        if self.found.setdefault(name, found) != found:
            raise OtherOperatorError(f"{name} is read from two tensors")

    def weight(self, tensor: int, name: str) -> None:
        """Hold a constant to its name; its elements are compared with the weights elsewhere.

        Raises:
            OtherOperatorError: If it has another, or is no constant.
        """
        if self.makes(tensor, Code.DEQUANTIZE):  # from float16
            (tensor,) = self.step(tensor, Code.DEQUANTIZE, name).inputs
        held = self.model.tensors[tensor]
        if own_name(held) != name or held.data is None:
            raise OtherOperatorError(f"{printable(held.name)} is read where {name} belongs")

    def constant(self, tensor: int, wanted: Any, what: str) -> None:
        """Hold a constant to its numbers: integers exactly, floats as float32 has them.

        Raises:
            OtherOperatorError: If it has others.
        """
        held, numbers = self.model.tensors[tensor], np.array(wanted)
        dtype = "int32" if numbers.dtype.kind == "i" else "float32"
        if held.data is None or (held.dtype, held.shape) != (dtype, numbers.shape):
            raise OtherOperatorError(f"{what} is no constant of shape {list(numbers.shape)}")
        if not np.allclose(held.elements(), numbers, _CLOSE if dtype == "float32" else 0, 0):
            raise OtherOperatorError(f"{what} is other than it should be")

    def options(self, step: Step, what: str, **wanted: tuple[int, str, int]) -> None:
        """Hold options of an operator to numbers.

        Args:
            step: The operator.
            what: What it computes, for messages.
            **wanted: By name, the field, its type and the number that belongs there.

        Raises:
            OtherOperatorError: If one is another.
        """
        for name, (place, kind, number) in wanted.items():
            if (found := step.option(place, kind)) != number:
                raise OtherOperatorError(f"the {name} of {what} is {found} where {number} belongs")

    def shape(self, tensor: int, shape: tuple[int, ...], open_axes: int, what: str) -> None:
        """Hold a value to the shape that memory is planned for, and to which axes are open.

        Raises:
            OtherOperatorError: If it has another.
        """
        held = self.model.tensors[tensor]
        signature = (*(-1,) * open_axes, *shape[open_axes:])
        wanted = held.dtype if self.integers and held.dtype == "int8" else "float32"
        if (held.dtype, held.shape, held.signature) != (wanted, shape, signature):
            raise OtherOperatorError(
                f"{what} is {held.dtype} of shape {list(held.signature)}, at first "
                f"{list(held.shape)}, where {list(signature)}, at first {list(shape)}, belongs"
            )


def _named(step: Step | None) -> str:
    if step is None:
        return "nothing"
    return Code(step.code).name if step.code in set(Code) else f"operator {step.code}"
