"""Reads the pickle inside a checkpoint within bounds, and says what is wrong where it cannot.

The standard library's :mod:`pickletools` splits the bytes into instructions, executing none;
:mod:`converters.checkpoint.pickle_machine` gives them their harmless meaning.
"""

from __future__ import annotations

import pickletools
import warnings
from typing import IO, TYPE_CHECKING, cast

from converters.checkpoint.pickle_machine import MAX_VALUES, FindStorage, PickleMachine
from converters.checkpoint.values import printable
from converters.errors import InputError

if TYPE_CHECKING:
    from converters.checkpoint.values import Tree

MAX_PICKLE = 1 << 28
"""In bytes; that of the largest published RegNet has under one megabyte."""

MAX_STRING = 1 << 26
"""In bytes. Weights are not in strings; configurations and notes are."""

MAX_DEPTH = 200
"""Containers inside containers."""


class PickleSource:
    """A stretch of a stream that holds pickles; never gives, nor makes room for, more than is left.

    Args:
        stream: Is moved to ``start``.
        start: The first byte.
        end: One past the last byte.
        label: What messages call the place: ``"model.pyth, archive/data.pkl"``.
    """

    def __init__(self, stream: IO[bytes], start: int, end: int, label: str) -> None:
        stream.seek(start)
        self._stream = stream
        self._position = start
        self._end = end
        self._limit = start + MAX_PICKLE
        self.label = label
        self.exhausted = False

    def read(self, size: int) -> bytes:
        """Return up to ``size`` bytes."""
        if size > MAX_STRING:
            raise ValueError(f"a string of {size} bytes")
        data = self._stream.read(min(size, self._end - self._position))
        self._advance(data)
        self.exhausted |= len(data) < size
        return data

    def readline(self) -> bytes:
        """Return the bytes up to and including the next newline."""
        data = self._stream.readline(min(MAX_STRING, self._end - self._position))
        self._advance(data)
        self.exhausted |= not data.endswith(b"\n")
        return data

    def _advance(self, data: bytes) -> None:
        self._position += len(data)
        if self._position > self._limit:
            raise ValueError(f"more than {MAX_PICKLE} bytes")

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._position


def read_pickle(source: PickleSource, find_storage: FindStorage) -> Tree:
    """Read one pickle, leaving ``source`` behind its end.

    Args:
        source: Where it is.
        find_storage: Told of every storage the pickle mentions.

    Returns:
        What it holds; see :mod:`converters.checkpoint.values`.

    Raises:
        InputError: It is damaged, cut short, or too large to be the pickle of a checkpoint.
        UnsafeInputError: It would run code in a reader that does what it says.
    """
    machine = PickleMachine(source.label, find_storage)
    position = source.tell()
    try:
        with warnings.catch_warnings():
            # pickletools warns of escapes in names that Python will refuse one day.
            warnings.simplefilter("ignore", DeprecationWarning)
            for opcode, argument, at in pickletools.genops(cast("IO[bytes]", source)):
                position = position if at is None else at
                machine.step(opcode.name, argument, position)
        tree = machine.result()
        require_bounded(tree)
    except (LookupError, TypeError, ValueError) as error:
        if source.exhausted:
            raise InputError(
                f"{source.label}: is truncated, it ends at byte {source.tell()} in the middle of "
                "the description of its content; download or copy it again."
            ) from error
        raise InputError(
            f"{source.label}: is damaged or no checkpoint, the instruction at byte {position} is "
            f"wrong ({_reason(error)}); download or copy it again."
        ) from error
    return tree


def require_bounded(tree: object) -> None:
    """Check that whoever walks through a tree comes to an end.

    A few bytes suffice for a list in itself, or for a list of lists of lists with more values than
    there are atoms.

    Raises:
        ValueError: It is nested too deep, or has too many values, counted as often as reached.
    """
    _measure(tree, 0, {})


def _reason(error: Exception) -> str:
    return "it takes what is not there" if isinstance(error, LookupError) else printable(str(error))


def _measure(value: object, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return height and number of values below ``value``, each counted as often as reached."""
    if depth > MAX_DEPTH:
        raise ValueError(f"containers nested more than {MAX_DEPTH} deep")
    if not isinstance(value, dict | list | tuple):
        return 0, 1
    if id(value) in known:
        return known[id(value)]
    height, total = 0, 1
    for member in value.values() if isinstance(value, dict) else value:
        below, count = _measure(member, depth + 1, known)
        height, total = max(height, below + 1), total + count
    if height > MAX_DEPTH or total > MAX_VALUES:
        raise ValueError("containers nested without end")
    known[id(value)] = height, total
    return height, total
