"""Writing an ONNX file whose weights are computed one at a time.

``onnx.save`` wants every weight in memory, and copies them all once more to serialise them. But
weights are nearly all of the file, and protobuf's wire format is simple: a message is its fields in
a row, each a tag, a length and that many bytes (https://protobuf.dev/programming-guides/encoding).
So the graph without weights is serialised by protobuf, and the weights follow it as further entries
of its field ``initializer``, each written from the array that has just been computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from onnx import GraphProto, ModelProto, TensorProto

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

_LENGTH_DELIMITED = 2
_FLOAT32_SIZE = 4


@dataclass(frozen=True, slots=True)
class Weight:
    """A float32 initialiser, computed when it is written.

    Attributes:
        name: Of the initialiser.
        shape: Its sizes.
        compute: Gives the array, float32 and row-major, of this shape.
    """

    name: str
    shape: tuple[int, ...]
    compute: Callable[[], NDArray[np.float32]]

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * _FLOAT32_SIZE


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A model to be written.

    Attributes:
        model: Everything but the graph.
        graph: Everything but ``weights``.
        weights: The initialisers to be streamed, perhaps none.
    """

    model: ModelProto
    graph: GraphProto
    weights: Sequence[Weight] = ()

    @property
    def nbytes(self) -> int:
        """Size of the file in bytes, known before a weight is computed."""
        model, graph_head, weight_heads = self._heads()
        fixed = len(model) + len(graph_head) + sum(map(len, weight_heads))
        return fixed + sum(weight.nbytes for weight in self.weights)

    def write(self, path: Path) -> None:
        """Write the file in one pass, holding one weight at a time.

        Args:
            path: Created or replaced.

        Raises:
            OSError: If it cannot be written.
        """
        model, graph_head, weight_heads = self._heads()
        with path.open("wb") as file:
            file.write(model)
            file.write(graph_head)
            for head, weight in zip(weight_heads, self.weights, strict=True):
                file.write(head)
                file.write(weight.compute().data)

    def _heads(self) -> tuple[bytes, bytes, list[bytes]]:
        """The bytes of the model without graph, of the graph, and before each weight's data."""
        weight_heads = [_weight_head(weight) for weight in self.weights]
        graph = self.graph.SerializeToString(deterministic=True)
        graph_size = len(graph) + sum(map(len, weight_heads))
        graph_size += sum(weight.nbytes for weight in self.weights)
        model = self.model.SerializeToString(deterministic=True)
        return model, _opening(ModelProto, "graph", graph_size) + graph, weight_heads


def _weight_head(weight: Weight) -> bytes:
    tensor = TensorProto(name=weight.name, dims=weight.shape, data_type=TensorProto.FLOAT)
    head: bytes = tensor.SerializeToString(deterministic=True)
    head += _opening(TensorProto, "raw_data", weight.nbytes)
    return _opening(GraphProto, "initializer", len(head) + weight.nbytes) + head


def _opening(message: type[ModelProto | GraphProto | TensorProto], field: str, size: int) -> bytes:
    """Tag and length of a field that holds ``size`` bytes."""
    number = message.DESCRIPTOR.fields_by_name[field].number
    return _varint(number << 3 | _LENGTH_DELIMITED) + _varint(size)


def _varint(value: int) -> bytes:
    """Seven bits a byte, lowest first; the top bit says that another byte follows."""
    encoded = bytearray()
    while value > 0x7F:  # noqa: PLR2004 -- seven bits
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
