"""Writing an ONNX file, or a pair with external data, whose weights are computed one at a time.

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

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto

from converters.errors import InputError
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.formats.onnx.form import Element

DATA_SUFFIX = "_data"
"""What follows an ONNX file's name in that of its external data, where optimum and transformers.js
look for it; PyTorch's exporter appends ``.data``."""

ONNX_TYPES = {
    "float32": TensorProto.FLOAT,
    "float16": TensorProto.FLOAT16,
    "bfloat16": TensorProto.BFLOAT16,
    "float64": TensorProto.DOUBLE,
}
"""ONNX's name of a type that weights are stored in; graphs compute in the first two."""

_LENGTH_DELIMITED = 2


@dataclass(frozen=True, slots=True)
class Weight:
    """An initialiser, computed when it is written.

    Attributes:
        name: Of the initialiser.
        shape: Its sizes.
        compute: Gives the array, row-major, of this shape.
        element: The type that it is rounded to.
    """

    name: str
    shape: tuple[int, ...]
    compute: Callable[[], NDArray[np.floating]]
    element: Element = "float32"

    @property
    def nbytes(self) -> int:
        """Size of the data in bytes."""
        return math.prod(self.shape) * item_size(self.element)

    def described(self) -> TensorProto:
        """The initialiser without its data."""
        kind = ONNX_TYPES[self.element]
        return TensorProto(name=self.name, dims=self.shape, data_type=kind)

    def computed(self) -> NDArray[np.floating]:
        """The array, row-major.

        Raises:
            InputError: If float16 cannot hold it.
        """
        # Folding damaged weights, such as a negative variance, gives values that are not finite, as
        # running them would; saying so is the verdict's business, and NumPy's warning would say it
        # less well.
        with np.errstate(all="ignore"):
            array = self.compute().astype(self.element, copy=False)
        if array.dtype == np.float16 and np.isinf(array).any():
            raise InputError(
                f"{self.name} holds numbers beyond {np.finfo(np.float16).max}, which float16 "
                "cannot; export the network in float32, in a --format without fp16."
            )
        return array


def external(tensor: TensorProto, location: str, offset: int, length: int) -> TensorProto:
    """Say of an initialiser that its bytes lie in another file."""
    tensor.data_location = TensorProto.EXTERNAL
    place = {"location": location, "offset": offset, "length": length}
    for key, value in place.items():
        tensor.external_data.add(key=key, value=str(value))
    return tensor


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
                file.write(weight.computed().data)

    def write_pair(self, path: Path) -> None:
        """Write the graph to one file and the weights, without gaps, to another beside it.

        Args:
            path: Of the graph. Its name with :data:`DATA_SUFFIX` appended is that of the weights,
                which is in the graph, so neither can be renamed.

        Raises:
            OSError: If one cannot be written.
        """
        data, graph = path.with_name(path.name + DATA_SUFFIX), GraphProto()
        graph.CopyFrom(self.graph)
        with data.open("wb") as file:
            for weight in self.weights:
                tensor = external(weight.described(), data.name, file.tell(), weight.nbytes)
                graph.initializer.append(tensor)
                file.write(weight.computed().data)
        OnnxFile(self.model, graph).write(path)

    def _heads(self) -> tuple[bytes, bytes, list[bytes]]:
        """The bytes of the model without graph, of the graph, and before each weight's data."""
        weight_heads = [_weight_head(weight) for weight in self.weights]
        graph = self.graph.SerializeToString(deterministic=True)
        graph_size = len(graph) + sum(map(len, weight_heads))
        graph_size += sum(weight.nbytes for weight in self.weights)
        model = self.model.SerializeToString(deterministic=True)
        return model, _opening(ModelProto, "graph", graph_size) + graph, weight_heads


def _weight_head(weight: Weight) -> bytes:
    head: bytes = weight.described().SerializeToString(deterministic=True)
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
