"""ONNX: the graph that a file holds, and where its weights lie, in it or beside it.

Field numbers are those of onnx's ``onnx.proto``. Nothing is parsed that needs the onnx library, and
no weight is read; data beside the file is taken from its folder alone.
"""

from __future__ import annotations

import struct
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import pairwise
from math import prod
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Attribute, Constant, Graph, Node, ValueInfo
from converters.checkpoint.onnx_places import require_inside
from converters.checkpoint.protobuf import Message, ProtobufReader, Span, Value
from converters.checkpoint.source_file import SourceFile, damaged
from converters.checkpoint.values import (
    MAX_AXES,
    MAX_SIZE,
    Storage,
    StoredTensor,
    Tree,
    contiguous_stride,
)
from converters.errors import InputError, printable
from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Hashable
    from pathlib import Path

    from converters.checkpoint.graph import Number

MAX_PARTS = 200_000
"""Fields that are read; the most talkative exporter writes some 700 for a block of a RegNet."""

OPSETS = range(7, 29)
"""Versions of the operators that are read; in older ones batch norms train unless told not to."""

_FEW = 256
"""Elements of a constant whose numbers are read: axes, a shape, a factor."""

_MAX_ATTRIBUTE = 256
"""Numbers in an attribute of a node."""

_MAX_NAMES = 4096
"""Values that a node may read or make."""

_DTYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
    17: "float8_e4m3fn",
    18: "float8_e4m3fnuz",
    19: "float8_e5m2",
    20: "float8_e5m2fnuz",
}
"""torch's names of ``TensorProto.DataType``, of those that it has."""

_NUMBERS = {"float32": "f", "float64": "d", "float16": "e", "int32": "i", "int64": "q"}
"""What `struct` calls types whose numbers are read."""

_SHAPE, _SEGMENT = 2, 3
"""Fields of a type and of a tensor."""

_SPARSE = 15
"""Field of a graph."""

_RAW, _FLOATS, _DOUBLES = 9, 4, 10
_INTEGERS = (5, 7, 11)
"""Fields of a tensor that its elements may stand in: as bytes, packed floats, or integers."""

_EXTERNAL = 1  # TensorProto.DataLocation


@dataclass(frozen=True)
class OnnxContents:
    """What an ONNX file holds.

    Attributes:
        graph: The network.
        tree: Its constants that are tensors, by name.
        metadata: What it states of itself, by key.
        beside: The files with data of it, open.
    """

    graph: Graph
    tree: Tree
    metadata: dict[str, str]
    beside: tuple[SourceFile, ...]


def read_onnx(file: SourceFile) -> OnnxContents:
    """Read what describes the network in a file that `sniff.is_protobuf` takes.

    Raises:
        InputError: It is none, is damaged, or data of it is missing.
        UnsafeInputError: Its data lies outside of its folder.
        StorageError: It cannot be read.
    """
    with ExitStack() as opened:
        reader = _OnnxReader(file, opened)
        contents = reader.read()
        opened.pop_all()
        return contents


def read_onnx_metadata(file: SourceFile) -> dict[str, str]:
    """What a file states of itself, by key, whatever else it holds.

    Raises:
        InputError: It is no protobuf.
        StorageError: It cannot be read.
    """
    with ExitStack() as opened:
        reader = _OnnxReader(file, opened)
        return reader.metadata(reader.proto.message(reader.proto.whole))


@dataclass
class _OnnxReader:
    """Goes through one file."""

    file: SourceFile
    opened: ExitStack
    beside: dict[str, SourceFile] = field(default_factory=dict)
    storages: list[Storage] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.proto = ProtobufReader(self.file, MAX_PARTS)

    def read(self) -> OnnxContents:
        model = self.proto.message(self.proto.whole)
        graphs = model.get(7, [])
        if len(graphs) != 1:
            raise InputError(
                f"{self.file.name}: is a protobuf file, as ONNX and TensorFlow write them, with "
                f"{len(graphs)} graphs of ONNX where one belongs; name the PyTorch checkpoint it "
                "was made from."
            )
        for number, what in ((20, "training information"), (25, "functions of its own")):
            if number in model:
                raise InputError(
                    f"{self.file.name}: has {what}, which no exporter of a RegNet writes; "
                    "export the network for inference, with its functions inlined."
                )
        graph = self._graph(model, self.proto.message(graphs[0]))
        self._require_apart()
        tree: dict[Hashable, Tree] = {
            name: constant.tensor for name, constant in graph.constants.items() if constant.tensor
        }
        return OnnxContents(graph, tree, self.metadata(model), tuple(self.beside.values()))

    def metadata(self, model: Message) -> dict[str, str]:
        """What a model states of itself."""
        pairs = [self.proto.message(entry) for entry in model.get(14, [])]
        return {self._text(pair, 1): self._text(pair, 2) for pair in pairs}

    def _graph(self, model: Message, message: Message) -> Graph:
        if _SPARSE in message:
            raise InputError(
                f"{self.file.name}: has sparse constants, which no RegNet has; export the network "
                "with ordinary tensors."
            )
        constants: dict[str, Constant] = {}
        for tensor in message.get(5, []):
            name, constant = self._tensor(tensor)
            if name in constants:
                raise damaged(self.file.name, f"holds the tensor '{printable(name)}' twice")
            constants[name] = constant
        opsets = [self.proto.message(entry) for entry in model.get(8, [])]
        versions = {
            self._integer(opset, 2) for opset in opsets if self._text(opset, 1) in {"", "ai.onnx"}
        }
        if len(versions) != 1 or not versions <= set(OPSETS):
            stated = " and ".join(map(str, sorted(versions))) or "none"
            raise InputError(
                f"{self.file.name}: is of opset {stated}, and graphs of one opset from "
                f"{OPSETS[0]} to {OPSETS[-1]} are read; export it for one of these."
            )
        inputs = tuple(self._value_info(value) for value in message.get(11, []))
        producer = " ".join(filter(None, (self._text(model, 2), self._text(model, 3))))
        return Graph(
            inputs=tuple(value for value in inputs if value.name not in constants),
            outputs=tuple(self._value_info(value) for value in message.get(12, [])),
            nodes=tuple(self._node(node) for node in message.get(1, [])),
            constants=constants,
            opset=versions.pop(),
            producer=producer,
        )

    def _node(self, span: Value) -> Node:
        message = self.proto.message(span)
        attributes = dict(self._attribute(entry) for entry in message.get(5, []))
        if len(attributes) != len(message.get(5, [])):
            raise damaged(self.file.name, "has a node with one attribute twice")
        domain = self._text(message, 7)
        return Node(
            name=self._text(message, 3),
            op=self._text(message, 4),
            domain="" if domain == "ai.onnx" else domain,
            inputs=self._names(message, 1),
            outputs=self._names(message, 2),
            attributes=attributes,
        )

    def _attribute(self, span: Value) -> tuple[str, Attribute]:
        """Name and value; which of its fields is meant, its type says."""
        message = self.proto.message(span)
        name, kind = self._text(message, 1), self._integer(message, 20)
        value: Attribute = None
        if kind == 1:
            value = self.proto.float32(self._last(message, 2) or bytes(4))
        elif kind == 2:  # noqa: PLR2004 -- AttributeProto.AttributeType, like the others
            value = self._integer(message, 3)
        elif kind == 3:  # noqa: PLR2004
            value = self._text(message, 4)
        elif kind == 4 and 5 in message:  # noqa: PLR2004
            value = self._tensor(self._only(message, 5))[1]
        elif kind == 6:  # noqa: PLR2004
            value = self._floats(message.get(7, []), _MAX_ATTRIBUTE)
        elif kind == 7:  # noqa: PLR2004
            value = tuple(self.proto.numbers(message.get(8, []), _MAX_ATTRIBUTE))
        return name, value

    def _floats(self, values: list[Value], most: int) -> tuple[float, ...]:
        """Of a repeated field, packed or not."""
        found: list[float] = []
        for value in values:
            if isinstance(value, Span):
                data = self.proto.content(value, 4 * most)
                if len(data) % 4:
                    raise self.proto.damaged("it ends inside a number")
                found += struct.unpack(f"<{len(data) // 4}f", data)
            else:
                found.append(self.proto.float32(value))
        return tuple(found)

    def _value_info(self, span: Value) -> ValueInfo:
        message = self.proto.message(span)
        kinds = self._inside(message, 2)
        tensor = self._inside(kinds, 1)
        shape: tuple[int | None, ...] | None = None
        if _SHAPE in tensor:
            dims = [self.proto.message(dim) for dim in self._inside(tensor, _SHAPE).get(1, [])]
            sizes = (self._integer(dim, 1) if 1 in dim else None for dim in dims)
            shape = tuple(size if size and size > 0 else None for size in sizes)
        return ValueInfo(self._text(message, 1), self._dtype(self._integer(tensor, 1)), shape)

    def _tensor(self, span: Value) -> tuple[str, Constant]:
        """Name and place of a tensor, whose elements stay where they are."""
        message = self.proto.message(span)
        name, dtype = self._text(message, 8), self._dtype(self._integer(message, 2))
        label = f"tensor '{printable(name)}'"
        shape = tuple(self.proto.numbers(message.get(1, []), MAX_AXES))
        if any(not 0 <= size <= MAX_SIZE for size in shape) or prod(shape) > MAX_SIZE:
            raise damaged(self.file.name, f"{label} has sizes that cannot be")
        if _SEGMENT in message:
            raise damaged(self.file.name, f"{label} is a segment of another")
        if dtype not in ELEMENT_TYPES:
            return name, Constant(dtype, shape)
        path, place = self.file.path, self._place(message, dtype, label)
        if self._integer(message, 14) == _EXTERNAL:
            path, place = self._beside(message, label)
        if place is None:
            return name, Constant(dtype, shape, None, self._integers(message, dtype, shape))
        storage = Storage(path, place.start, place.length, None, label)
        tensor = StoredTensor(dtype, shape, contiguous_stride(shape), storage, 0)
        if tensor.nbytes != storage.length:
            raise damaged(
                self.file.name,
                f"{label} has {storage.length} bytes where its shape and type need {tensor.nbytes}",
            )
        self.storages.append(storage)
        return name, Constant(dtype, shape, tensor, self._few(tensor))

    def _place(self, message: Message, dtype: str, label: str) -> Span | None:
        """Where in this file a tensor's elements lie as they are in memory."""
        packed = {"float32": _FLOATS, "float64": _DOUBLES}.get(dtype)
        held = [number for number in (_RAW, packed) if number is not None and number in message]
        if not held:
            return None
        if len(held) > 1 or len(message[held[0]]) > 1:
            raise damaged(self.file.name, f"{label} holds its elements twice, or in pieces")
        found = message[held[0]][0]
        if not isinstance(found, Span):
            raise damaged(self.file.name, f"{label} holds its elements in pieces")
        return found

    def _integers(self, message: Message, dtype: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The elements of a small tensor of integers that are not as they are in memory."""
        values = [value for number in _INTEGERS for value in message.get(number, [])]
        if "int" not in dtype or prod(shape) > _FEW:
            return ()
        return tuple(self.proto.numbers(values, _FEW))

    def _few(self, tensor: StoredTensor) -> tuple[Number, ...] | None:
        """The elements of a small tensor."""
        code = _NUMBERS.get(tensor.dtype)
        if code is None or tensor.numel > _FEW:
            return None
        storage = tensor.storage
        source = next(
            (file for file in self.beside.values() if file.path == storage.path), self.file
        )
        data = source.read(storage.offset, storage.length)
        return struct.unpack(f"<{tensor.numel}{code}", data)

    def _beside(self, message: Message, label: str) -> tuple[Path, Span]:
        """The file beside this one that a tensor lies in, and where in it."""
        pairs = [self.proto.message(entry) for entry in message.get(13, [])]
        stated = {self._text(pair, 1): self._text(pair, 2) for pair in pairs}
        location = stated.get("location", "")
        require_inside(location, self.file.path)
        if location not in self.beside:
            path = self.file.path.parent / location
            folder = self.file.path.parent.resolve()
            if not location or not path.is_file() or not path.resolve().is_relative_to(folder):
                where = f"'{printable(location)}'" if location else "a file without a name"
                raise InputError(
                    f"{self.file.name}: its {label} lies in {where}, which is not beside it; put "
                    "the file there that was exported with it."
                )
            self.beside[location] = self.opened.enter_context(SourceFile(path))
        file = self.beside[location]
        try:
            offset = int(stated.get("offset", "0"))
            length = int(stated.get("length", str(file.size - offset)))
        except ValueError as error:
            raise damaged(self.file.name, f"{label} lies at no place of a file") from error
        if min(offset, length) < 0 or offset + length > file.size:
            raise damaged(
                file.name, f"ends at byte {file.size}, where {label} of {self.file.name} goes on"
            )
        return file.path, Span(offset, offset + length)

    def _require_apart(self) -> None:
        """Refuse tensors that lie partly in one another; the whole of one may have two names."""
        places = sorted({(str(s.path), s.offset, s.length, s.label) for s in self.storages})
        for (path, offset, length, label), (other, begin, size, _) in pairwise(places):
            same = (offset, length) == (begin, size)
            if path == other and begin < offset + length and size and not same:
                raise damaged(self.file.name, f"{label} lies partly in another tensor")

    def _dtype(self, number: int) -> str:
        return _DTYPES.get(number, f"type {number}" if number else "")

    def _names(self, message: Message, number: int) -> tuple[str, ...]:
        values = message.get(number, [])
        if len(values) > _MAX_NAMES:
            raise damaged(self.file.name, f"has a node of {len(values)} values")
        return tuple(self.proto.text(value) for value in values)

    def _only(self, message: Message, number: int) -> Value:
        """A field that may occur once, and does."""
        if len(message[number]) != 1:
            raise self.proto.damaged("a part is in it twice")
        return message[number][0]

    def _last(self, message: Message, number: int) -> Value | None:
        """A field that may occur once; of several the last counts, as in every reader."""
        return message[number][-1] if number in message else None

    def _inside(self, message: Message, number: int) -> Message:
        """A message in another, which is empty if it is not there."""
        return self.proto.message(self._only(message, number)) if number in message else {}

    def _text(self, message: Message, number: int) -> str:
        value = self._last(message, number)
        return "" if value is None else self.proto.text(value)

    def _integer(self, message: Message, number: int) -> int:
        value = self._last(message, number)
        return 0 if value is None else self.proto.integer(value)
