"""NumPy's arrays in pickles: their elements stay in the file, and a note says where.

Up to protocol 4 an array is made empty by ``_reconstruct`` and then given a state, which ends with
its elements as bytes; before protocol 3 these are a text, to be encoded by ``_codecs.encode``. In
protocol 5 ``_frombuffer`` makes it of them. Source: numpy/_core/src/multiarray/methods.c
(``array_reduce_ex``, ``array_setstate``) and numpy/_core/numeric.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Opaque,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
)
from regnet.files.dtypes import ELEMENT_TYPES, item_size

if TYPE_CHECKING:
    from collections.abc import Sequence

ENCODE = "_codecs.encode"
RECONSTRUCT = "numpy._core.multiarray._reconstruct"
FROM_BUFFER = "numpy._core.numeric._frombuffer"
DTYPE = "numpy.dtype"

OF_STATE = frozenset({RECONSTRUCT, DTYPE})
"""What gets its content by a state, of which a second would change what was made of the first."""

_DTYPES = {
    kind.numpy[1:]: name
    for name, kind in ELEMENT_TYPES.items()
    if name != "bfloat16" and not name.startswith("float8")  # which NumPy lacks
}
"""NumPy's code of a type, such as ``f4``, to torch's name."""

_UNSWAPPED = ("<", "=", "|")
_ORDERS = ("C", "F")


def are_elements_next(stack: Sequence[Tree], below: Sequence[Tree]) -> bool:
    """Whether the string that a pickle pushes next holds an array's elements.

    Args:
        stack: What is on the stack above the topmost mark.
        below: What is below that mark, down to the next.
    """
    if not stack and below and _is_name(below[-1], FROM_BUFFER):
        return True
    top = stack or below
    if top and _is_name(top[-1], ENCODE):
        top = top[:-1]
    match top[-2:]:
        case [Opaque(qualified_name="numpy.dtype", args=tuple()), bool()]:
            return True
    return False


def array_of(note: Opaque) -> StoredTensor | None:
    """The array that a note of ``_reconstruct`` stands for; None if it is of another kind.

    Raises:
        ValueError: Its shape does not fit its elements.
        TypeError: Its shape is none.
    """
    if note.qualified_name != RECONSTRUCT or note.args is None:
        return None
    match note.args, note.state:
        case (
            (Opaque(qualified_name="numpy.ndarray", args=None), *_),
            (1, tuple() as shape, Opaque() as kind, bool(is_fortran), content),
        ):
            return _array(content, kind, shape, is_fortran=is_fortran)
    return None


def from_buffer(args: tuple[Tree, ...]) -> Tree:
    """Build ``_frombuffer(buffer, dtype, shape, order)``, or a note of a call of another kind.

    Raises:
        ValueError: The shape does not fit the buffer.
        TypeError: It is none.
    """
    match args:
        case (content, Opaque() as kind, tuple() as shape, str(order)) if order in _ORDERS:
            tensor = _array(content, kind, shape, is_fortran=order == "F")
            if tensor is not None:
                return tensor
    return Opaque(FROM_BUFFER, args)


def without_names(tree: Tree) -> None:
    """Put arrays in the place of pairs of a name and an array, in every dict of a tree.

    Paddle saves a tensor so, with a name of its own, unless what it saves is one state dict.
    Source: paddle/framework/io.py (``reduce_varbase``).
    """
    pending, seen = [tree], set[int]()
    while pending:
        value = pending.pop()
        if id(value) in seen or not isinstance(value, dict | list | tuple):
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            for key, member in value.items():
                match member:
                    case (str(), StoredTensor() as tensor):
                        value[key] = tensor
        pending.extend(value.values() if isinstance(value, dict) else value)


def kind_of(note: Opaque) -> str:
    """What an array is that is not read, in words."""
    said = note.args if note.qualified_name == FROM_BUFFER else note.state
    place = 1 if note.qualified_name == FROM_BUFFER else 2
    kind = said[place] if isinstance(said, tuple) and len(said) > place else None
    match kind:
        case Opaque(qualified_name="numpy.dtype", state=(3, ">", *_)):
            return "a NumPy array of a big-endian machine"
        case Opaque(qualified_name="numpy.dtype", args=(str(code), *_)) if code.startswith("O"):
            return "a NumPy array of objects"
    return "a NumPy array"


def _array(
    content: Tree, kind: Opaque, shape: tuple[Tree, ...], *, is_fortran: bool
) -> StoredTensor | None:
    """An array as a view of its elements; None where those are not numbers that are read."""
    dtype = _dtype_of(kind)
    if dtype is None:
        return None
    _sizes(shape)
    if not isinstance(content, Storage):  # objects; or nothing, which has no place in the file
        return None
    return view_of(content, dtype, shape, is_fortran=is_fortran)


def view_of(
    content: Storage, dtype: str, shape: tuple[Tree, ...], *, is_fortran: bool, start: int = 0
) -> StoredTensor:
    """An array as a view of the bytes that hold its elements and nothing behind them.

    Args:
        content: The bytes.
        dtype: torch's name of the element type.
        shape: The sizes, to be checked.
        is_fortran: Whether the first axis is the one whose steps are smallest.
        start: Where the elements begin in the content, in bytes; a multiple of their size.

    Raises:
        ValueError: The shape does not fit the content.
        TypeError: It is none.
    """
    sizes = _sizes(shape)
    stride = contiguous_stride(sizes)
    if is_fortran:
        stride = tuple(reversed(contiguous_stride(sizes[::-1])))
    tensor = StoredTensor(dtype, sizes, stride, content, start // item_size(dtype))
    most = content.length - start
    least = (most + 1) // 2 if content.is_text else most
    if not least <= tensor.nbytes <= most:
        raise ValueError(
            f"an array of shape {list(sizes)} that needs {tensor.nbytes} bytes and has {most}"
        )
    return tensor


def torch_type(order: str, code: str) -> str | None:
    """Torch's name of a type of NumPy's, such as ``<`` and ``f4``; None if its bytes are others."""
    return _DTYPES.get(code) if order in _UNSWAPPED else None


def _dtype_of(note: Opaque) -> str | None:
    """Torch's name of a type of NumPy's; None if it has none, or the bytes are swapped.

    Source: numpy/_core/src/multiarray/descriptor.c has the state of a plain dtype.
    """
    match note:
        case Opaque(
            qualified_name="numpy.dtype",
            args=(str(code), *_),
            state=(3, str(order), None, None, None, -1, -1, 0),
        ):
            return torch_type(order, code)
    return None


def _sizes(shape: tuple[Tree, ...]) -> tuple[int, ...]:
    """A shape, checked.

    Raises:
        ValueError: It has a negative size, or too many.
        TypeError: It has a size that is no whole number.
    """
    if not all(type(size) is int for size in shape):
        raise TypeError("an array whose sizes are not whole numbers")
    sizes = cast("tuple[int, ...]", shape)
    if len(sizes) > MAX_AXES or max(sizes, default=0) > MAX_SIZE or min(sizes, default=0) < 0:
        raise ValueError("an array with a size, or a number of axes, that no array has")
    return sizes


def _is_name(value: Tree, name: str) -> bool:
    return isinstance(value, Opaque) and value.qualified_name == name and value.args is None
