"""Messages between a command and a program that it does not trust: JSON, and arrays as they lie.

A message is the length of its head (8 bytes, little-endian), the head as JSON, and the elements of
its arrays one after another, row-major and little-endian. Nothing in it can name code.
"""

from __future__ import annotations

import json
import math
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    Arrays = Mapping[str, NDArray[Any]]

_LENGTH = 8
_LONGEST_HEAD = 16 << 20
"""Bytes; 100,000 arrays of long names need no more."""

_MOST_AXES = 32
_PIECE = 1 << 22


class MalformedMessageError(Exception):
    """A message that breaks the rules, or ends too early."""


def send(stream: IO[bytes], head: Mapping[str, Any], arrays: Arrays) -> None:
    """Write one message.

    Args:
        stream: A pipe, or a file.
        head: What JSON can hold.
        arrays: Of numbers or truth values, by name.

    Raises:
        BrokenPipeError: If nobody reads.
    """
    plain = {  # row-major and little-endian; a copy only of what is not
        name: np.asarray(array, array.dtype.newbyteorder("<"), order="C")
        for name, array in arrays.items()
    }
    table = [[name, array.dtype.name, list(array.shape)] for name, array in plain.items()]
    text = json.dumps({"head": dict(head), "arrays": table}).encode("ascii")
    stream.write(len(text).to_bytes(_LENGTH, "little") + text)
    for array in plain.values():
        stream.write(array.reshape(-1).view(np.uint8).data)
    stream.flush()


def receive(stream: IO[bytes], largest: int) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read one message.

    Args:
        stream: A pipe, or a file.
        largest: Bytes that all its arrays may have together.

    Returns:
        The head, and the arrays by name, of any shapes and dtypes.

    Raises:
        MalformedMessageError: If it is none, is larger, or ends too early.
    """
    length = int.from_bytes(_exactly(stream, _LENGTH), "little")
    if length > _LONGEST_HEAD:
        raise MalformedMessageError(f"a head of {length} bytes")
    try:
        message = json.loads(_exactly(stream, length))
        head = dict(message["head"])
        table = [_described(entry) for entry in message["arrays"]]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedMessageError("a head that cannot be read") from error
    if sum(size for *_, size in table) > largest:
        raise MalformedMessageError(f"arrays of more than {largest} bytes")
    return head, {
        name: np.frombuffer(_exactly(stream, size), dtype).reshape(shape)
        for name, dtype, shape, size in table
    }


def _described(entry: Any) -> tuple[str, np.dtype[Any], tuple[int, ...], int]:
    """Name, dtype, shape and bytes of an array.

    Raises:
        TypeError: If its entry is no such thing; ValueError and KeyError likewise.
    """
    name, kind, shape = entry
    dtype = np.dtype(str(kind)).newbyteorder("<")
    if dtype.kind not in "biuf" or not isinstance(name, str) or len(shape) > _MOST_AXES:
        raise ValueError("no array of numbers")
    if any(type(size) is not int or size < 0 for size in shape):
        raise ValueError("no shape")
    return name, dtype, tuple(shape), dtype.itemsize * math.prod(shape)


def _exactly(stream: IO[bytes], size: int) -> bytearray:
    """So many bytes; memory is taken as they come.

    Raises:
        MalformedMessageError: If there are fewer.
    """
    data = bytearray()
    while len(data) < size:
        piece = stream.read(min(_PIECE, size - len(data)))
        if not piece:
            raise MalformedMessageError("an end before its time")
        data += piece
    return data
