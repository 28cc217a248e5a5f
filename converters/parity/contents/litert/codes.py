"""The operators of ``.tflite`` files that a RegNet may have."""

from __future__ import annotations

from enum import IntEnum


class OtherOperatorError(ValueError):
    """An operator is not what it should be; a clause."""


class Code(IntEnum):
    """``BuiltinOperator`` of schema.fbs."""

    ADD = 0
    AVERAGE_POOL_2D = 1
    CONV_2D = 3
    DEQUANTIZE = 6
    FULLY_CONNECTED = 9
    LOGISTIC = 14
    MUL = 18
    RELU = 19
    RESHAPE = 22
    SOFTMAX = 25
    PAD = 34
    MEAN = 40
    SUB = 41
    DIV = 42
    MINIMUM = 57
    TILE = 69
    SQRT = 75
    ELU = 111
    QUANTIZE = 114
    GELU = 150
