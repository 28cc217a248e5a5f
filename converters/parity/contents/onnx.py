"""What an ONNX file holds: initialisers inside, or pointers into the weights of the folder.

The weights are cut out where they lie, and protobuf, which would copy them all, parses the rest.

Whether the network computes the right thing is for its numbers to show. But some of it can be seen
for nothing: that each initialiser feeds the node called like its module, at its place, that every
batch norm has its epsilon, and that no weights hide where no initialiser is.
"""

from __future__ import annotations

import math
from collections import defaultdict
from functools import cache
from typing import TYPE_CHECKING

from onnx import AttributeProto, GraphProto, ModelProto, TensorProto, numpy_helper

from converters.errors import printable
from converters.formats.onnx.export import PRODUCER, WEIGHTS_KEY
from converters.formats.onnx.file import DATA_SUFFIX
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT, PER_CHANNEL, stated_stages
from converters.parity.contents.blocks import out_of_blocks
from converters.parity.contents.held import Contents, HeldTensor, mapped, part
from converters.parity.contents.written import (
    graph_faults,
    graph_is_ours,
    metadata_faults,
    stated_by,
    stated_precision,
)
from regnet.architecture import EvoNorm, GroupNorm
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from onnx import NodeProto

    from converters.folder.folder import ConvertedFolder

    Readers = Mapping[str, list[str]]

_POSITIONS = {"weight": 1, "bias": 2, "running_mean": 3, "running_var": 4}
"""Which input of Conv, Gemm and BatchNormalization a parameter is; input 0 is the value."""

_DTYPES = {TensorProto.FLOAT: "float32", TensorProto.DOUBLE: "float64"}
"""torch's names of element types, where they are not ONNX's own in small letters."""

MOST_CHANNELS = 4
"""What a constant may hold: the means of an image's channels, or less."""

_EPSILON_TOLERANCE = 1e-6
"""Relative: ONNX keeps an attribute in float32."""

_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
"""Wire types: a number, bytes behind their length, and values of so many bytes."""


def read_onnx(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which weights an ONNX file holds or points at, and what reads them.

    Raises:
        OSError: If a file cannot be opened.
        ValueError: If it is no ONNX file of one graph.
        google.protobuf.message.DecodeError: If a part of it is damaged.
    """
    head, graphs = _cut(mapped(path), ModelProto, "graph")
    if len(graphs) != 1:
        raise ValueError(f"it has {len(graphs)} graphs instead of one")
    skeleton, messages = _cut(graphs[0], GraphProto, "initializer")
    model, graph = ModelProto.FromString(head), GraphProto.FromString(skeleton)
    cut_out = [_cut(message, TensorProto, "raw_data") for message in messages]
    initialisers = [(TensorProto.FromString(rest), raw) for rest, raw in cut_out]
    places = _Places(folder, path)
    names = {tensor.name for tensor, _ in initialisers}
    wiring = _wiring_faults(graph, names, _grouped_norms(folder))
    faults = [*_unread_parts(model, graph), *_node_faults(graph, folder.config.norm_eps)]
    compared = graph_is_ours(model)
    if compared and not wiring and not faults:  # where nothing more precise is wrong
        faults += graph_faults(folder, model, graph)
    held = [_held(tensor, raw, places, wiring.get(tensor.name)) for tensor, raw in initialisers]
    return Contents(
        out_of_blocks(folder, stated_stages(stated_by(model)), held),
        weights_sha256=_weights_sha256(model) if places.used else None,
        faults=(*faults, *metadata_faults(folder, stated_by(model))),
        precision=stated_precision(model),
        graph_compared=compared,
        marked=model.producer_name == PRODUCER,
    )


def _held(
    tensor: TensorProto, raw: list[memoryview], places: _Places, fault: str | None
) -> HeldTensor:
    if tensor.data_location == TensorProto.EXTERNAL:
        found = places.find(tensor)
        data, fault = (memoryview(b""), found) if isinstance(found, str) else (found, fault)
    elif raw:
        data = raw[-1]  # as protobuf does with a field that may occur once
    else:
        data = memoryview(numpy_helper.to_array(tensor).tobytes())
    named = TensorProto.DataType.Name(tensor.data_type).lower()
    dtype = _DTYPES.get(tensor.data_type, named)
    return HeldTensor(tensor.name, dtype, tuple(tensor.dims), data, fault)


class _Places:
    """Follows pointers into the weights of a folder or into the artefact's own data.

    Attributes:
        used: Whether there was a pointer into the weights of the folder.
    """

    def __init__(self, folder: ConvertedFolder, path: Path) -> None:
        self.used = False
        self._folder = folder
        self._beside = path.parent
        self._own_data = path.with_name(path.name + DATA_SUFFIX)
        self._files = {file.name: file for file in folder.weight_files}
        self._mapped = cache(mapped)

    def find(self, tensor: TensorProto) -> memoryview | str:
        """The bytes that a tensor points at, or what is wrong with where it points."""
        stated = {entry.key: entry.value for entry in tensor.external_data}
        location = stated.get("location", "")
        if location == self._own_data.name:
            if self._own_data.is_symlink() or not self._own_data.is_file():
                return f"points into {location}, but no such file lies beside it"
            offset, length = int(stated.get("offset", 0)), int(stated.get("length", 0))
            return part(self._mapped(self._own_data), offset, length)
        self.used = True
        if fault := self._location_fault(location):
            return fault
        own = self._folder.tensors.get(tensor.name)
        if own is None:
            return memoryview(b"")  # no tensor of the folder has the name: that is fault enough
        name, offset, length = own.storage.path.name, own.storage.offset, own.storage.length
        place = {"location": name, "offset": str(offset), "length": str(length)}
        wrong = [key for key, value in place.items() if stated.get(key) != value]
        if wrong:
            found = {key: printable(stated.get(key, "none")) for key in wrong}
            return f"points at {_words(found)} where it lies at {_words(place)}"
        return part(self._mapped(self._files[name]), offset, length)

    def _location_fault(self, location: str) -> str | None:
        """A location is the bare name of a weights file, which lies beside the ONNX file."""
        if location not in self._files:
            return f"points into '{printable(location)}', which is no weights file of the folder"
        beside = self._beside / location
        if beside.is_symlink():
            return f"points into {location}, which is a link"
        if not beside.exists() or not beside.samefile(self._files[location]):
            return f"points into {location}, but the file does not lie beside it"
        return None


def _words(place: Mapping[str, str]) -> str:
    return ", ".join(f"{key} {value}" for key, value in place.items())


def _weights_sha256(model: ModelProto) -> dict[str, str]:
    """The digests that a sharing file states; none if it does not, or not as it should."""
    stated = {entry.key: entry.value for entry in model.metadata_props}
    try:
        digests = parse_json(stated.get(WEIGHTS_KEY, "{}"))
    except ValueError:
        return {}
    return digests if isinstance(digests, dict) else {}


def _grouped_norms(folder: ConvertedFolder) -> set[str]:
    """The tensors of norms that no operator computes, but several."""
    kinds = (GroupNorm, EvoNorm)
    operations = (op for op in folder.architecture.operations if isinstance(op, kinds))
    return {slot.name for operation in operations for slot in operation.slots}


def _wiring_faults(graph: GraphProto, initialisers: set[str], grouped: set[str]) -> dict[str, str]:
    """What is wrong with what reads an initialiser, by its name."""
    readers = _readers(graph, initialisers)
    inputs = {value.name for value in graph.input}
    faults = {}
    for name in initialisers:
        own = _reader(f"{name}{PER_CHANNEL}", 0)
        expected = own if name in grouped else _expected_reader(name)
        if name in inputs:
            faults[name] = "is an input as well, so that callers could replace it"
        elif expected and readers[name] != [expected]:
            found = " and as ".join(map(printable, readers[name])) or "nothing"
            faults[name] = f"is read as {found}, but should be as {expected} alone"
    return faults


def _readers(graph: GraphProto, initialisers: set[str]) -> Readers:
    """What reads each value; for an initialiser that is cast to float32, what reads the cast."""
    cast = {
        node.output[0]: node.input[0]
        for node in graph.node
        if node.op_type == "Cast"
        and node.input[0] in initialisers
        and [attribute.i for attribute in node.attribute] == [TensorProto.FLOAT]
    }
    readers: dict[str, list[str]] = defaultdict(list)
    for node in graph.node:
        if node.op_type == "Cast" and node.output[0] in cast:
            continue
        for position, value in enumerate(node.input):
            readers[cast.get(value, value)].append(_reader(node.name, position))
    return readers


def _expected_reader(name: str) -> str | None:
    """The node called like the module of a parameter; None if no module has such a one."""
    for ending, leaf in ((FOLDED_WEIGHT, "weight"), (FOLDED_BIAS, "bias")):
        if name.endswith(ending):
            return _reader(f"{name.removesuffix(ending)}.convolution", _POSITIONS[leaf])
    module, _, leaf = name.rpartition(".")
    return _reader(module, _POSITIONS[leaf]) if leaf in _POSITIONS else None


def _reader(node: str, position: int) -> str:
    return f"input {position} of {node}"


def _unread_parts(model: ModelProto, graph: GraphProto) -> Iterator[str]:
    """Where ONNX allows weights, but this reader expects none."""
    parts = {
        "functions": model.functions,
        "training information": model.training_info,
        "sparse initialisers": graph.sparse_initializer,
    }
    yield from (
        f"the file has {what}, which nothing needs" for what, found in parts.items() if found
    )


def _node_faults(graph: GraphProto, eps: float) -> Iterator[str]:
    for node in graph.node:
        name = printable(node.name)
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            yield f"{name} has a graph of its own, which nothing needs"
        if node.op_type == "Constant" and (size := _constant_size(node)) > MOST_CHANNELS:
            yield f"{name} is a constant of {size} values, which could be weights"
        if node.op_type == "BatchNormalization" and not math.isclose(
            epsilon := _epsilon(node), eps, rel_tol=_EPSILON_TOLERANCE
        ):
            yield f"{name} has an epsilon of {epsilon:g} where {eps:g} belongs"


def _constant_size(node: NodeProto) -> int:
    """How many numbers a Constant gives, whichever of its attributes says so."""
    sizes = [
        max(
            len(value.floats),
            len(value.ints),
            math.prod(value.t.dims),
            math.prod(value.sparse_tensor.dims),
        )
        for value in node.attribute
    ]
    return max(sizes, default=0)


def _epsilon(node: NodeProto) -> float:
    """Of a BatchNormalization; the operator's default is 1e-5."""
    stated: list[AttributeProto] = [a for a in node.attribute if a.name == "epsilon"]
    return float(stated[0].f) if stated else 1e-5


def _cut(
    message: memoryview, kind: type[ModelProto | GraphProto | TensorProto], field: str
) -> tuple[bytes, list[memoryview]]:
    """Cut one field, which may be large, out of a message of protobuf, without copying it.

    The wire format is simple: a message is its fields in a row, each a tag, a length and that many
    bytes (https://protobuf.dev/programming-guides/encoding).

    Args:
        message: As it lies in the file.
        kind: What it is.
        field: Name of a field that is a message, text or bytes.

    Returns:
        The message without the field, and the content of each of its occurrences.

    Raises:
        ValueError: If it ends inside a field, or holds what protobuf no longer writes.
    """
    wanted = kind.DESCRIPTOR.fields_by_name[field].number << 3 | _BYTES
    rest = bytearray()
    found = []
    at = 0
    while at < len(message):
        start = at
        tag, at = _varint(message, at)
        length, at = _length(message, at, tag & 7)
        content = part(message, at, length)
        at += length
        if tag == wanted:
            found.append(content)
        else:
            rest += message[start:at]
    return bytes(rest), found


def _length(message: memoryview, at: int, wire_type: int) -> tuple[int, int]:
    """How many bytes the content of a field has, and where it begins."""
    if wire_type == _BYTES:
        return _varint(message, at)
    if wire_type == _VARINT:
        return 0, _varint(message, at)[1]
    if wire_type not in _FIXED_SIZES:
        raise ValueError(f"it is no protobuf, for a field has wire type {wire_type}")
    return _FIXED_SIZES[wire_type], at


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and what comes after it: seven bits a byte, lowest first."""
    value = shift = 0
    while at < len(message):
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that another byte follows
            return value, at
    raise ValueError("it ends inside a number")
