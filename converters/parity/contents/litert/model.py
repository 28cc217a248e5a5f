"""The tables of a ``.tflite`` file as they are needed to judge it.

Numbers of fields are those of ``schema.fbs``: https://github.com/google-ai-edge/LiteRT,
``tflite/converter/schema/schema.fbs``.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import printable
from converters.parity.contents.held import mapped
from converters.parity.contents.litert.flatbuffer import Table
from converters.parity.contents.litert.stated import Stated, stated_by, texts_in

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

IDENTIFIER = b"TFL3"

_TYPES = {0: "float32", 1: "float16", 2: "int32", 9: "int8"}
"""``TensorType`` to NumPy's names; others are no RegNet's."""

_UNUSUAL = {
    "is_variable": 5,
    "sparsity": 6,
    "variant_tensors": 9,
    "external_buffer": 10,
}
"""Fields of ``Tensor`` that change what it holds."""

_OUTSIDE = {"offset": 1, "size": 2}
"""Fields of ``Buffer`` that say that its bytes lie elsewhere."""

_MOST_AT_ONCE = 3
"""Tensors that an operator, or the network, reads or makes."""


@dataclass(frozen=True, slots=True)
class Grid:
    """``QuantizationParameters``: integers stand for ``scale * (integer - zero)``.

    Attributes:
        scale: Float32: one, or one for each index of an axis.
        zero: As many int64.
        axis: Which axis that is.
    """

    scale: NDArray[np.float32]
    zero: NDArray[np.int64]
    axis: int


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the network.

    Attributes:
        name: As the file calls it.
        dtype: NumPy's name.
        shape: The sizes, of an open one what memory is first planned for.
        signature: The sizes, -1 for those that are open.
        data: The elements of a constant; None of what is computed.
        grid: What one of its integers is worth; None if the file says nothing of that.
        fault: What else the file says of it that nothing here needs, as a clause; None if nothing.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    signature: tuple[int, ...]
    data: memoryview | None
    grid: Grid | None
    fault: str | None

    def elements(self) -> NDArray[Any]:
        """A constant's elements in its shape.

        Raises:
            ValueError: If it has none, or not as many as its shape says.
        """
        return np.frombuffer(self.data or b"", self.dtype).reshape(self.shape)


@dataclass(frozen=True, slots=True)
class Step:
    """An operator.

    Attributes:
        code: ``BuiltinOperator``.
        inputs: Indices of tensors.
        outputs: Likewise.
        options: Its table of options; None if it has none.
        options_type: ``BuiltinOptions``: of which kind it says that this is.
    """

    code: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Table | None
    options_type: int

    def option(self, field: int, kind: str = "i1", default: int = 0) -> int:
        """One of its options, a scalar."""
        return default if self.options is None else int(self.options.number(field, kind, default))


@dataclass(frozen=True, slots=True)
class LiteRtModel:
    """A network.

    Attributes:
        tensors: All of them.
        steps: In the order in which they are computed.
        inputs: Indices of what comes from the caller.
        outputs: Indices of what goes to the caller.
        signature: What the one signature calls inputs and outputs: name to index of each.
        stated: What the file says beside them.
    """

    tensors: tuple[Tensor, ...]
    steps: tuple[Step, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    signature: tuple[dict[str, int], dict[str, int]]
    stated: Stated

    @classmethod
    def read(cls, path: Path, most_steps: int) -> LiteRtModel:
        """Map a file and take it apart; elements of tensors stay where they lie.

        Args:
            path: The file.
            most_steps: How many operators, and tensors, there may be.

        Raises:
            ConversionError: If what is behind the network is no ZIP that all programs read alike.
            OSError: If it cannot be opened.
            ValueError: If it is damaged, or holds more than one network.
        """
        root = Table.root(mapped(path), IDENTIFIER)
        (graph,) = _one(root.tables(2), "network")
        (signature,) = _one(root.tables(7), "signature")
        codes = [_code(each) for each in root.tables(1)]
        buffers, tensors, steps = root.tables(4), graph.tables(0), graph.tables(3)
        for buffer in buffers:  # so that it is known where the last one ends
            buffer.octets(0)
        if max(len(tensors), len(steps)) > most_steps:
            raise ValueError(f"it has {len(steps)} operators and {len(tensors)} tensors")
        named = [
            {each.text(0): int(each.number(1, "<u4")) for each in signature.tables(field)}
            for field in (0, 1)
        ]
        return cls(
            tuple(_tensor(each, buffers) for each in tensors),
            tuple(_step(each, codes, len(tensors)) for each in steps),
            _indices(graph, 1, len(tensors)),
            _indices(graph, 2, len(tensors)),
            (named[0], named[1]),
            stated_by(root, path),
        )


def stated_in_model(path: Path) -> dict[str, str]:
    """Texts that a file states beside its network, by name.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged.
    """
    return texts_in(Table.root(mapped(path), IDENTIFIER))


def _one(tables: list[Table], what: str) -> list[Table]:
    if len(tables) != 1:
        raise ValueError(f"it has {len(tables)} {what}s instead of one")
    return tables


def _code(table: Table) -> int:
    """As LiteRT does: of the old field and the new one the larger."""
    return max(int(table.number(0, "<i1")), int(table.number(3, "<i4")))


def _tensor(table: Table, buffers: list[Table]) -> Tensor:
    shape = tuple(table.numbers(0, "<i4").tolist())
    number, place = int(table.number(1, "<i1")), int(table.number(2, "<u4"))
    dtype = _TYPES.get(number)
    if dtype is None or place >= len(buffers) or min(shape, default=0) < 0:
        raise ValueError(f"the tensor {printable(table.text(3))} is of no kind that a RegNet has")
    buffer = buffers[place]
    data = buffer.octets(0)
    faults = [f"has {name}" for name, field in _UNUSUAL.items() if table.has(field)]
    faults += [f"lies at an {name}" for name, field in _OUTSIDE.items() if buffer.has(field)]
    if len(data) and len(data) != math.prod(shape) * np.dtype(dtype).itemsize:
        faults.append(f"has {len(data)} bytes, not those of its shape {list(shape)}")
    return Tensor(
        table.text(3),
        dtype,
        shape,
        tuple(table.numbers(7, "<i4").tolist()) or shape,
        data if len(data) else None,
        _grid(table.table(4)),
        faults[0] if faults else None,
    )


def _grid(table: Table | None) -> Grid | None:
    if table is None:
        return None
    axis = int(table.number(6, "<i4"))
    return Grid(table.numbers(2, "<f4"), table.numbers(3, "<i8"), axis)


def _step(table: Table, codes: list[int], tensors: int) -> Step:
    code = int(table.number(0, "<u4"))
    if code >= len(codes):
        raise ValueError(f"an operator is number {code} of {len(codes)}")
    inputs, outputs = _indices(table, 1, tensors), _indices(table, 2, tensors)
    return Step(codes[code], inputs, outputs, table.table(4), int(table.number(3, "u1")))


def _indices(table: Table, field: int, tensors: int) -> tuple[int, ...]:
    numbers = table.numbers(field, "<i4")
    if len(numbers) > _MOST_AT_ONCE or not all(0 <= number < tensors for number in numbers):
        raise ValueError("an operator reads or makes tensors that no RegNet has")
    return tuple(numbers.tolist())
