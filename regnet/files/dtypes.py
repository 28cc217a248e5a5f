"""The types that weights are stored in: what others call each, and how numbers pass between them.

A type is called by torch's name, without ``torch.``. A cast rounds to nearest, ties to even, and
gives what torch's ``Tensor.to`` gives, bit for bit. That includes its way to 16 bits, which leads
through float32 also from float64 (``c10/util/Half.h`` and ``BFloat16.h`` convert from float alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

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

_THROUGH_FLOAT32 = ("float16", "bfloat16")
_PIECE = 1 << 20  # elements; a cast needs some ten times as many bytes on the way


def item_size(dtype: str) -> int:
    """The bytes that one element takes."""
    return int(ELEMENT_TYPES[dtype].numpy[2:])


def widened(array: NDArray[Any], dtype: str) -> NDArray[Any]:
    """Give numbers that NumPy can compute with.

    Args:
        array: As a checkpoint gives it, of any shape: NumPy has no bfloat16, so that is its bits,
            in uint16.
        dtype: torch's name of its type.

    Returns:
        float32 for bfloat16, its upper half; ``array`` itself for any other type.
    """
    import numpy as np

    if dtype != "bfloat16":
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def cast(array: NDArray[Any], dtype: str, to: str) -> NDArray[Any]:
    """Cast as torch does; what is too large becomes infinite in silence, and NaN stays NaN.

    Args:
        array: Of any shape; bfloat16 as its bits, in uint16.
        dtype: torch's name of its type.
        to: torch's name of the type wanted.

    Returns:
        The same shape; bfloat16 as its bits again.
    """
    import numpy as np

    if dtype == to:
        return array
    numbers = widened(array, dtype)
    with np.errstate(all="ignore"):
        if to in _THROUGH_FLOAT32:
            numbers = numbers.astype(np.float32, copy=False)
        return _bfloat16(numbers) if to == "bfloat16" else numbers.astype(to, copy=False)


def repeated(number: float, size: int, dtype: str) -> bytes:
    """One number, over and over, in as many bytes as are asked for.

    Args:
        number: What all elements are.
        size: In bytes, a multiple of an element's.
        dtype: torch's name of the type.
    """
    if not number:
        return bytes(size)
    import numpy as np

    one = cast(np.array([number], np.float64), "float64", dtype).tobytes()
    return one * (size // len(one))


def _bfloat16(numbers: NDArray[np.float32]) -> NDArray[np.uint16]:
    """The upper halves of float32s, rounded by what is cut off."""
    import numpy as np

    bits = np.ascontiguousarray(numbers).view(np.uint32)
    kept = bits >> 16
    # Of half a unit exactly, the one is added that makes an odd number even.
    rounded = (bits + 0x7FFF + (kept & 1)) >> 16
    # Rounding could carry a NaN's bits into infinity, or past the sign; a quiet NaN stays one.
    return np.where(np.isnan(numbers), kept | 0x40, rounded).astype(np.uint16)


def cast_pieces(
    array: NDArray[Any], dtype: str, to: str
) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """Cast a large array with little memory beside it.

    Args:
        array: As for :func:`cast`.
        dtype: torch's name of its type.
        to: torch's name of the type wanted.

    Yields:
        One piece after another in row-major order, each twice, (elements,): before the cast, in
        the dtype of ``array``, and after it, as :func:`cast` gives it.
    """
    flat = array.reshape(-1)
    for start in range(0, flat.size, _PIECE):
        piece = flat[start : start + _PIECE]
        yield piece, cast(piece, dtype, to)


def dtypes_that_hold(number: float) -> list[DType]:
    """Name the types, of :data:`DTYPES`, in which a finite number stays finite."""
    import numpy as np

    exact = np.array(number, np.float64)
    return [dtype for dtype in DTYPES if np.isfinite(widened(cast(exact, "float64", dtype), dtype))]
