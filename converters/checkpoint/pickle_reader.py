"""Reads the pickle inside a checkpoint within bounds, and says what is wrong where it cannot.

The standard library's :mod:`pickletools` splits the bytes into instructions, executing none;
:mod:`converters.checkpoint.pickle_machine` gives them their harmless meaning.
"""

from __future__ import annotations

import os
import pickle  # for the names of its opcodes; nothing is unpickled
import pickletools
import re
from typing import TYPE_CHECKING, Any

from converters.checkpoint.pickle_machine import (
    MAX_VALUES,
    FindStorage,
    PickleMachine,
    fault_of,
    no_storage,
)
from converters.checkpoint.quiet import ignoring
from converters.checkpoint.source_file import damaged, stream_of
from converters.checkpoint.values import Storage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from converters.checkpoint.source_file import ReadableAt
    from converters.checkpoint.values import Tree

MAX_PICKLE = 1 << 28
"""In bytes; that of the largest published RegNet has under one megabyte."""

_SKIMMED = 1 << 16
"""In bytes: what is kept of a string that is passed over."""

MAX_STRING = 1 << 26
"""In bytes. Weights are not in strings; configurations and notes are."""

MAX_DEPTH = 200
"""Containers inside containers."""

_OPCODES = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}

_LENGTHS = {
    "SHORT_BINBYTES": 1, "BINBYTES": 4, "BINBYTES8": 8, "BYTEARRAY8": 8,
    "SHORT_BINUNICODE": 1, "BINUNICODE": 4, "BINUNICODE8": 8,
}  # fmt: skip
"""Strings of bytes and texts with their length before them, and how many bytes that has."""

_ESCAPED = {"GLOBAL", "INST", "PERSID", "STRING"}
"""What has texts with escapes; pickletools warns of those that Python will refuse one day."""

_PLAIN_LINES = {
    "INT": rb"0[01]|-?(0|[1-9][0-9]*)",
    "LONG": rb"-?(0|[1-9][0-9]*)L?",
    "FLOAT": rb"-?([0-9]+(\.[0-9]*)?(e[-+]?[0-9]+)?|inf|nan)",
    "PUT": rb"0|[1-9][0-9]*",
    "GET": rb"0|[1-9][0-9]*",
    "GLOBAL": rb"[^\\]*",
    "INST": rb"[^\\]*",
}
"""How the lines of instructions are spelt that pickletools and the unpickler in C read differently
otherwise: ``I010`` is ten to one and eight to the other."""


class PickleSource:
    """Bytes that hold pickles; never gives, nor makes room for, more than is left of them.

    Args:
        file: The bytes; messages call them by its name.
        start: Where the first pickle begins.

    Attributes:
        label: What messages call the place: ``"model.pyth, archive/data.pkl"``.
        exhausted: Whether more was asked for than there is.
        lines: Those read since somebody emptied the list, with their newlines.
    """

    def __init__(self, file: ReadableAt, start: int = 0) -> None:
        self._stream = stream_of(file)
        self._stream.seek(start)
        self._position = start
        self._end = file.size
        self._origin = file.origin
        self._limit = start + MAX_PICKLE
        self.label = file.name
        self.exhausted = False
        self.lines: list[bytes] = []

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
        self.lines.append(data)
        return data

    def _advance(self, data: bytes) -> None:
        self._position += len(data)
        if self._position > self._limit:
            raise ValueError(f"more than {MAX_PICKLE} bytes")

    def pass_over(self, length: int, *, is_text: bool) -> Storage:
        """Return where the next ``length`` bytes lie, and go behind them without reading any.

        Raises:
            ValueError: So many are not left.
        """
        start = self._position
        passed = min(length, self._end - start)
        self._stream.seek(passed, os.SEEK_CUR)
        self._position += passed
        self._limit += passed
        if passed < length:
            self.exhausted = True
            raise ValueError(f"{length} bytes of which {passed} are there")
        path, base = self._origin
        return Storage(path, base + start, length, None, f"the array at byte {start}", is_text)

    def tell(self) -> int:
        """Return the position in the stream."""
        return self._position


class SkimmedPickle(PickleSource):
    """A pickle of which long strings are passed over: what it gives is right but for those.

    For what may be a pickle by chance, whose lines are as long as it happens.
    """

    def read(self, size: int) -> bytes:
        """As of any pickle, and the rest of a long string is passed over."""
        data = super().read(min(size, _SKIMMED))
        rest = min(max(size - _SKIMMED, 0), self._end - self._position)
        self._stream.seek(rest, os.SEEK_CUR)
        self._position += rest
        self.exhausted |= len(data) + rest < size
        return data

    def readline(self) -> bytes:
        """As of any pickle, and the rest of a long line is passed over."""
        kept = part = self._stream.readline(min(_SKIMMED, self._end - self._position))
        self._position += len(part)
        while part and not part.endswith(b"\n"):
            part = self._stream.readline(min(_SKIMMED, self._end - self._position))
            self._position += len(part)
        self.exhausted |= not part.endswith(b"\n")
        return kept if kept.endswith(b"\n") or not part else kept + b"\n"


def read_pickle(
    source: PickleSource,
    find_storage: FindStorage = no_storage,
    *,
    has_views: bool = False,
    of_script: bool = False,
) -> Tree:
    """Read one pickle, leaving ``source`` behind its end; for the rest see :class:`PickleMachine`.

    Raises:
        InputError: It is damaged, cut short, or too large to be the pickle of a checkpoint.
        UnsafeInputError: It would run code in a reader that does what it says.
    """
    machine = PickleMachine(source.label, find_storage, has_views=has_views, of_script=of_script)
    position = source.tell()
    try:
        for name, argument, position in _plain_instructions(source, machine.expects_elements):
            machine.step(name, argument, position)
        tree = machine.result()
        require_bounded(tree)
    except (LookupError, TypeError, ValueError) as error:
        at = f"the instruction at byte {position}"
        what = f"is damaged or no checkpoint, {at} is wrong ({fault_of(error)})"
        if source.exhausted:
            middle = "in the middle of the description of its content"
            what = f"is truncated, it ends at byte {source.tell()} {middle}"
        raise damaged(source.label, what) from error
    return tree


def instructions(
    source: PickleSource, is_content: Callable[[], bool] = lambda: False
) -> Iterator[tuple[str, Any, int]]:
    """Split a pickle into instructions: name, argument, position.

    Args:
        source: Where the pickle is.
        is_content: Asked where a string comes whether it holds the elements of an array. Those are
            weights, which no pickle is opened for: they are passed over, and the argument is a
            :class:`Storage` that says where they lie.

    Raises:
        ValueError: It is none.
    """
    code = b""
    while code != pickle.STOP:
        at = source.tell()
        code = source.read(1)
        opcode = _OPCODES.get(code)
        if opcode is None:
            what = f"at position {at}, opcode {code!r} unknown"
            raise ValueError(what if code else "pickle exhausted before seeing STOP")
        argument = None
        if opcode.name in _LENGTHS and is_content():
            size = int.from_bytes(source.read(_LENGTHS[opcode.name]), "little")
            argument = source.pass_over(size, is_text="UNICODE" in opcode.name)
        elif opcode.arg is not None:
            argument = _argument(opcode.name, opcode.arg, source)
        yield opcode.name, argument, at


def _argument(name: str, kind: pickletools.ArgumentDescriptor, source: PickleSource) -> Any:
    stream: Any = source  # which has what pickletools calls
    if name in _ESCAPED:
        with ignoring(DeprecationWarning):
            return kind.reader(stream)
    return kind.reader(stream)


def _plain_instructions(
    source: PickleSource, is_content: Callable[[], bool]
) -> Iterator[tuple[str, Any, int]]:
    """Split a pickle as :func:`instructions` does, where every program splits it so.

    Raises:
        ValueError: It is none, or programs disagree on how it is split: where an instruction does
            not end within its frame, the unpickler in C goes on somewhere else, without a word.
    """
    frame_end: int | None = None
    for name, argument, at in instructions(source, is_content):
        end = source.tell()
        if source.lines:
            pattern = _PLAIN_LINES.get(name, b"(?s:.*)")
            if not all(re.fullmatch(pattern, line.removesuffix(b"\n")) for line in source.lines):
                raise ValueError(f"{name} in an unusual spelling")
            source.lines.clear()
        if frame_end is not None and (end > frame_end or name == "FRAME"):
            raise ValueError("a frame that ends elsewhere than its instructions")
        if name == "FRAME":
            frame_end = end + int(argument or 0)
        elif end == frame_end:
            frame_end = None
        elif name == "STOP" and frame_end is not None:
            raise ValueError("a frame that goes on behind the end")
        yield name, argument, at


def require_bounded(tree: object) -> None:
    """Check that whoever walks through a tree comes to an end.

    A few bytes suffice for a list in itself, or for a list of lists of lists with more values than
    there are atoms.

    Raises:
        ValueError: It is nested too deep, or has too many values, counted as often as reached.
    """
    _measure(tree, 0, {})


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
