"""How numbers pass from one of the types that weights are stored in to another.

A cast rounds to nearest, ties to even, and gives what torch's ``Tensor.to`` gives, bit for bit.
That includes its way to 16 bits, which leads through float32 also from float64 (``c10/util/Half.h``
and ``BFloat16.h`` convert from float alone).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from regnet.files.dtypes import DTYPES

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from regnet.files.dtypes import DType

_THROUGH_FLOAT32 = ("float16", "bfloat16")
_PIECE = 1 << 20  # elements; a cast needs some ten times as many bytes on the way


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
    """Name the types, of :data:`~.dtypes.DTYPES`, in which a finite number stays finite."""
    import numpy as np

    exact = np.array(number, np.float64)
    return [dtype for dtype in DTYPES if np.isfinite(widened(cast(exact, "float64", dtype), dtype))]
