"""The tables of a ``.tflite`` file, as far as a RegNet needs them, and their numbers.

Fields are in the order of ``schema.fbs`` (schema version 3), where the numbers are too:
https://github.com/google-ai-edge/LiteRT, ``tflite/converter/schema/schema.fbs``. The version of an
operator is the oldest that says what is written here, for an interpreter refuses those that are
newer than it: ``tflite/tools/versioning/op_version.cc``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.formats.litert.flatbuffer import Table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from converters.formats.litert.flatbuffer import Data, Field

IDENTIFIER = b"TFL3"
_SCHEMA_VERSION = 3

_LARGEST_OLD_CODE = 127
"""Codes were one byte once, and readers of that time find this in its place."""

TYPES = {"float32": 0, "float16": 1, "int32": 2, "int8": 9}
"""Element types: NumPy's names to ``TensorType``."""

SAME, VALID = np.int8(0), np.int8(1)
"""``Padding``: as many zeros as give ``ceil(n / stride)``, or none."""

NONE, RELU_FUSED = np.int8(0), np.int8(1)
"""``ActivationFunctionType``: what an operator does to its own result."""

PLAIN_WEIGHTS = np.int8(0)
"""``FullyConnectedOptionsWeightsFormat``: row-major."""


@dataclass(frozen=True, slots=True)
class Operator:
    """A built-in operator.

    Attributes:
        code: ``BuiltinOperator``.
        options: ``BuiltinOptions``: which table says how; 0 if none does.
        activation: Which field of these options is a fused activation; None if none is.
        version: The oldest that is enough.
    """

    code: int
    options: int = 0
    activation: int | None = None
    version: int = 1


ADD = Operator(0, options=11, activation=0)
AVERAGE_POOL_2D = Operator(1, options=5, activation=5)
CONV_2D = Operator(3, options=1, activation=3)
GROUPED_CONV_2D = Operator(3, options=1, activation=3, version=6)
DEQUANTIZE_INT8 = Operator(6, options=38, version=2)
DEQUANTIZE_FLOAT16 = Operator(6, options=38, version=3)
FULLY_CONNECTED = Operator(9, options=8, activation=0)
LOGISTIC = Operator(14)
MUL = Operator(18, options=21, activation=0)
RELU = Operator(19)
RESHAPE = Operator(22, options=17)
SOFTMAX = Operator(25, options=9)
PAD = Operator(34, options=22)
MEAN = Operator(40, options=27)
SUB = Operator(41, options=28, activation=0)
DIV = Operator(42, options=29, activation=0)
MINIMUM = Operator(57, options=39)
TILE = Operator(69, options=51)
SQRT = Operator(75)
QUANTIZE = Operator(114)
ELU = Operator(111)
GELU = Operator(150, options=116)


@dataclass(frozen=True, slots=True)
class Steps:
    """What the integers of a tensor are worth: ``scale * (integer - zero_point)``.

    Attributes:
        scale: Of a step: one for all, or one for each index of the first axis.
        zero_point: The integer that is zero, the same for all.
    """

    scale: NDArray[np.float32]
    zero_point: int = 0

    @property
    def table(self) -> Table:
        """``QuantizationParameters``."""
        zeros = np.full(len(self.scale), self.zero_point, np.int64)
        return Table((None, None, self.scale, zeros, None, None, np.int32(0)))


def model(  # noqa: PLR0913, PLR0917 -- the fields of the table
    operators: Sequence[Operator],
    subgraph: Table,
    buffers: Sequence[Data | None],
    description: str,
    signature: Table,
    metadata: Mapping[str, int],
) -> Table:
    """``Model``: the root.

    Args:
        operators: What :func:`operator` counts.
        subgraph: The network.
        buffers: What :func:`tensor` counts; None holds nothing, as the first must.
        description: For people.
        signature: The names of inputs and outputs.
        metadata: What else is said, by name: which buffer says it.
    """
    return Table(
        (
            np.uint32(_SCHEMA_VERSION),
            [_operator_code(each) for each in operators],
            [subgraph],
            description,
            [Table((data,)) for data in buffers],
            None,
            [Table((name, np.uint32(place))) for name, place in metadata.items()] or None,
            [signature],
        )
    )


def _operator_code(operator: Operator) -> Table:
    old = np.int8(min(operator.code, _LARGEST_OLD_CODE))
    return Table((old, None, np.int32(operator.version), np.int32(operator.code)))


def subgraph(
    name: str,
    tensors: Sequence[Table],
    inputs: Sequence[int],
    outputs: Sequence[int],
    operators: Sequence[Table],
) -> Table:
    """``SubGraph``: tensors, which of them come from and go to the caller, and operators."""
    return Table((list(tensors), _indices(inputs), _indices(outputs), list(operators), name))


def tensor(  # noqa: PLR0913, PLR0917 -- the fields of the table
    name: str,
    shape: Sequence[int],
    element: str,
    buffer: int,
    signature: Sequence[int] | None = None,
    steps: Steps | None = None,
) -> Table:
    """``Tensor``.

    Args:
        name: For people, and for what looks values up.
        shape: Sizes, of an open one the one that memory is first planned for.
        element: A key of :data:`TYPES`.
        buffer: Which buffer holds its elements; 0 if none does.
        signature: The same sizes with -1 for those that are open; None if none is.
        steps: What its integers are worth; None if they count, or are none.
    """
    open_sizes = None if signature in {None, tuple(shape)} else _indices(signature)
    return Table(
        (
            _indices(shape),
            np.int8(TYPES[element]),
            np.uint32(buffer),
            name,
            steps.table if steps else None,
            None,
            None,
            open_sizes,
        )
    )


def operator(
    code: int, inputs: Sequence[int], output: int, kind: Operator, options: Sequence[Field]
) -> Table:
    """``Operator``: one step.

    Args:
        code: Which of the model's operators.
        inputs: Indices of tensors.
        output: Likewise.
        kind: The operator itself.
        options: The fields of its table of options.
    """
    how = (np.uint8(kind.options), Table(tuple(options))) if kind.options else ()
    return Table((np.uint32(code), _indices(inputs), _indices([output]), *how))


def signature(key: str, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> Table:
    """``SignatureDef``: names for callers to the indices of tensors."""
    named = (
        [Table((name, np.uint32(index))) for name, index in each.items()]
        for each in (inputs, outputs)
    )
    return Table((*named, key))


def _indices(numbers: Sequence[int]) -> np.ndarray:
    return np.array(numbers, np.int32)
