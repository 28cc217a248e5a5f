"""The types that numbers are stored in, each with what torch, safetensors and NumPy call it.

Everywhere else a type is called by torch's name, without ``torch.``.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

DType = Literal["float32", "float16", "bfloat16", "float64"]
"""A type that weights are stored in; counters are of :data:`COUNTER_DTYPE` beside any of them."""

DTYPES: tuple[DType, ...] = get_args(DType)

DEFAULT: DType = "float32"
"""What weights are stored in unless somebody asks for another."""

COMPUTED: DType = "float32"
"""What artefacts compute in, whatever a folder stores."""

COUNTER_DTYPE = "int64"
"""What batch norms count the batches of their training in."""


class ElementType(NamedTuple):
    """What others call a type.

    Attributes:
        numpy: NumPy's array-interface code, little-endian, which ends in the size in bytes. NumPy
            has neither bfloat16 nor the eight-bit floats: those are unsigned integers there.
        safetensors: The format's code; None where it has none.
        storage: torch's class of storages (``torch/storage.py``); None where it has none.
    """

    numpy: str
    safetensors: str | None = None
    storage: str | None = None


ELEMENT_TYPES = {
    "complex128": ElementType("<c16", None, "ComplexDoubleStorage"),
    "uint64": ElementType("<u8", "U64"),
    "int64": ElementType("<i8", "I64", "LongStorage"),
    "float64": ElementType("<f8", "F64", "DoubleStorage"),
    "complex64": ElementType("<c8", "C64", "ComplexFloatStorage"),
    "float32": ElementType("<f4", "F32", "FloatStorage"),
    "uint32": ElementType("<u4", "U32"),
    "int32": ElementType("<i4", "I32", "IntStorage"),
    "bfloat16": ElementType("<u2", "BF16", "BFloat16Storage"),
    "float16": ElementType("<f2", "F16", "HalfStorage"),
    "uint16": ElementType("<u2", "U16"),
    "int16": ElementType("<i2", "I16", "ShortStorage"),
    "float8_e5m2fnuz": ElementType("|u1", "F8_E5M2FNUZ"),
    "float8_e4m3fnuz": ElementType("|u1", "F8_E4M3FNUZ"),
    "float8_e4m3fn": ElementType("|u1", "F8_E4M3"),
    "float8_e5m2": ElementType("|u1", "F8_E5M2"),
    "int8": ElementType("|i1", "I8", "CharStorage"),
    "uint8": ElementType("|u1", "U8", "ByteStorage"),
    "bool": ElementType("|b1", "BOOL", "BoolStorage"),
}
"""By torch's name, the widest first, as the safetensors library writes them."""

OF_SAFETENSORS = {
    kind.safetensors: name for name, kind in ELEMENT_TYPES.items() if kind.safetensors
}
"""torch's name by safetensors' code."""

OF_STORAGE = {kind.storage: name for name, kind in ELEMENT_TYPES.items() if kind.storage}
"""torch's name by its class of storages."""


def item_size(dtype: str) -> int:
    """The bytes that one element takes."""
    return int(ELEMENT_TYPES[dtype].numpy[2:])
