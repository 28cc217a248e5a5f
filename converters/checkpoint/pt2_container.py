"""`.pt2`: a program that torch.export saved, as its graph and the places of its weights.

The archive holds JSON, and the bytes of each weight as they are in memory. Nothing is loaded and no
expression is evaluated: of a size that is open only that is kept. The layouts, by torch's
``torch/export/__init__.py``, ``torch/export/pt2_archive/`` and ``torch/_export/serde/schema.py``:

- since 2.9 ``models/model.json``, and a table in ``data/weights/`` of the entry with the bytes of
  each weight; constants likewise;
- 2.8 the same with ``data/weights/model.pt``, what torch.save writes, in place of the table;
- 2.5 to 2.7 ``serialized_exported_program.json`` and ``serialized_state_dict.pt``, in no folder.

Example inputs are pickles that nothing reads; they are looked through for code.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zlib import crc32

from converters.checkpoint.aten import Argument, AtenNodes, Named
from converters.checkpoint.file_audit import require_no_code_beside
from converters.checkpoint.graph import Constant, Graph, ValueInfo
from converters.checkpoint.source_file import FilePart, SourceFile, damaged
from converters.checkpoint.values import MAX_AXES, MAX_SIZE, StoredTensor, Tree
from converters.checkpoint.zip_container import checksum_error, read_zip, stored_bytes
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from converters.checkpoint.values import Storage
    from converters.checkpoint.zip_directory import ZipDirectory

MAX_JSON = 1 << 23
"""In bytes; that of RegNetX-3.2GF, with the lines of code that it came from, has 0.7 million."""

_SCHEMA = 8
"""The major version, which torch raises where older programs cannot be read any more."""

_OLD_GRAPH = "serialized_exported_program.json"
_MODELS, _COMPILED = "models/", "data/aotinductor/"
_MOST_NUMBERS = 4
"""Elements of a constant whose numbers are read: as many as an image has channels."""

_TABLES = ("data/weights/", "data/constants/")
_READ = (*_TABLES, _MODELS, "archive_format", "archive_version", "byteorder", ".data/version")
"""Entries that hold no pickle, or one that is read."""

_DTYPES = {
    1: "uint8",
    2: "int8",
    3: "int16",
    4: "int32",
    5: "int64",
    6: "float16",
    7: "float32",
    8: "float64",
    12: "bool",
    13: "bfloat16",
    28: "uint16",
    29: "float8_e4m3fn",
    30: "float8_e5m2",
    31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz",
    34: "uint32",
    35: "uint64",
}
"""torch's names of ``ScalarType``, of those that are read."""

_NUMBERS = {"float32": "f", "float64": "d", "float16": "e", "int32": "i", "int64": "q"}
"""What `struct` calls types whose numbers are read."""

_STRIDED = 7  # of Layout


@dataclass(frozen=True)
class Pt2Contents:
    """What a program of torch.export holds.

    Attributes:
        graph: The network.
        tree: Its weights and constants, by the names that they have in the state dict.
    """

    graph: Graph
    tree: Tree


def is_pt2(directory: ZipDirectory) -> bool:
    """Whether an archive is of torch.export, or a compiler behind it, and none of torch.save."""
    kinds = (_MODELS, _COMPILED, "archive_format")
    known = [e for e in directory.entries if e.name == _OLD_GRAPH or e.inside.startswith(kinds)]
    return bool(known) and all(entry.inside != "data.pkl" for entry in directory.entries)


def read_pt2(file: SourceFile, directory: ZipDirectory) -> Pt2Contents:
    """Read what describes the network in a file that :func:`is_pt2` takes.

    Args:
        file: The file.
        directory: Its entries.

    Raises:
        InputError: It is damaged, of another version, or what it holds is no program.
        UnsafeInputError: Loading it runs code: it was compiled, or has pickles that call something.
        StorageError: It cannot be read.
    """
    directory.require_one_reading()
    reader = _Pt2Reader(file, directory)
    require_no_code_beside(file, directory, _READ)
    try:
        contents = reader.read()
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        what = "is damaged, its description of the program is not as torch.export writes it"
        raise damaged(file.name, what) from error
    file.require_unchanged()
    return contents


@dataclass
class _Pt2Reader:
    """Goes through one file."""

    file: SourceFile
    directory: ZipDirectory
    tree: dict[Hashable, Tree] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.is_old = any(entry.name == _OLD_GRAPH for entry in self.directory.entries)
        if not self.is_old:
            self.directory.require_one_folder()
        entries = self.directory.entries
        self.entries = {entry.name if self.is_old else entry.inside: entry for entry in entries}
        self.has_checksums = any(entry.crc32 for entry in entries)
        if any(name.startswith(_COMPILED) for name in self.entries):
            raise UnsafeInputError(
                f"{self.file.name}: holds machine code that AOTInductor compiled, which runs when "
                "it is loaded; name what it was compiled from, a file of torch.export.save or a "
                "checkpoint."
            )

    def read(self) -> Pt2Contents:
        program = self._json(self._program())
        version = program["schema_version"]["major"]
        if version != _SCHEMA or type(version) is not int:
            raise InputError(
                f"{self.file.name}: is a program of version {printable(str(version))}, and those "
                f"of version {_SCHEMA} are read, which torch writes since 2.5; export it again "
                "with a newer torch."
            )
        order = self.entries.get("byteorder")
        if order is not None and self.directory.content(order, order.size) != b"little":
            raise InputError(
                f"{self.file.name}: was saved on a big-endian machine; load it with torch and save "
                "it again on another computer."
            )
        self.tree.update(self._weights())
        return Pt2Contents(self._graph(program), self.tree)

    def _program(self) -> str:
        """The entry that the graph is in."""
        if self.is_old:
            return _OLD_GRAPH
        found = [name for name in self.entries if name.startswith(_MODELS)]
        if len(found) != 1 or not found[0].endswith(".json"):
            raise InputError(
                f"{self.file.name}: holds {len(found)} programs of torch.export where one belongs; "
                "save a network alone with torch.export.save."
            )
        return found[0]

    # Weights.

    def _weights(self) -> dict[Hashable, Tree]:
        """Every weight and constant, by the name that the signature calls it by."""
        if self.is_old:
            places = [("serialized_state_dict.pt", ""), ("serialized_constants.pt", "")]
        else:
            name = self._program().removeprefix(_MODELS).removesuffix(".json")
            kinds = ("weights", "constants")
            places = [
                (f"{folder}{name}.pt", f"{folder}{name}_{kind}_config.json")
                for folder, kind in zip(_TABLES, kinds, strict=True)
            ]
        found: dict[Hashable, Tree] = {}
        for (pickled, table), folder in zip(places, _TABLES, strict=True):
            if pickled in self.entries:  # which torch takes first
                content = self._pickled(pickled)
            else:
                content = {
                    name: self._tensor(name, folder, entry)
                    for name, entry in self._json(table)["config"].items()
                }
            if not found.keys().isdisjoint(content):
                raise damaged(self.file.name, "has a weight and a constant of one name")
            found |= content
        return found

    def _pickled(self, name: str) -> dict[Hashable, Tree]:
        """What torch.save wrote inside of the archive."""
        place = self._place(name)
        if not place.length:
            return {}
        part = FilePart(self.file, place.offset, place.length, f"{self.file.name}, {place.label}")
        tree = read_zip(part)
        if not isinstance(tree, dict):
            raise damaged(part.name, "holds no state dict")
        return tree

    def _tensor(self, name: str, folder: str, entry: Mapping[str, Any]) -> StoredTensor:
        label = f"{self.file.name}, '{printable(name)}'"
        meta = entry["tensor_meta"]
        if entry["use_pickle"] or meta is None:
            raise UnsafeInputError(
                f"{label}: is a pickle of an object, which can run any code when it is loaded; "
                "export a network of ordinary tensors."
            )
        dtype = _DTYPES.get(meta["dtype"])
        if dtype is None or meta["layout"] != _STRIDED:
            raise InputError(f"{label}: has a type that is not read; export it in float32.")
        shape, stride = (tuple(map(_stated, meta[key])) for key in ("sizes", "strides"))
        offset = _stated(meta["storage_offset"])
        if len(shape) != len(stride) or len(shape) > MAX_AXES:
            raise damaged(label, "has as many strides as axes in no torch", "the file")
        storage = self._place(folder + entry["path_name"])
        tensor = StoredTensor(dtype, shape, stride, storage, offset)
        if (offset + tensor.span) * tensor.itemsize > storage.length:
            what = f"has {storage.length} bytes where its shape and type need more"
            raise damaged(label, what, "the file")
        return tensor

    # The graph.

    def _graph(self, program: Mapping[str, Any]) -> Graph:
        module = program["graph_module"]
        graph, signature = module["graph"], module["signature"]
        inputs, constants = self._inputs(graph, signature["input_specs"])
        outputs = tuple(self._outputs(signature["output_specs"]))
        nodes = AtenNodes(self.file.name, (*constants, *(value.name for value in inputs)))
        for node in graph["nodes"]:
            arguments = {_text(given["name"]): _argument(given["arg"]) for given in node["inputs"]}
            made = [_name(output) for output in node["outputs"]]
            operator = node["target"].removeprefix("torch.ops.")
            nodes.add(_text(node.get("name") or ""), operator, arguments, made)
        return Graph(
            inputs=inputs,
            outputs=tuple(ValueInfo(name, "", None) for name in outputs),
            nodes=nodes.finish(outputs),
            constants=constants,
            opset=int(program["opset_version"].get("aten", 0)),
            producer=f"torch {_text(program.get('torch_version', ''))}".strip(),
        )

    def _inputs(
        self, graph: Mapping[str, Any], specs: list[Mapping[str, Any]]
    ) -> tuple[tuple[ValueInfo, ...], dict[str, Constant]]:
        """What the graph takes: what a caller gives, and what lies in the file."""
        inputs, constants = [], {}
        for spec in specs:
            ((kind, what),) = spec.items()
            argument = what.get("arg")
            if kind == "user_input":
                if "as_tensor" in argument:
                    inputs.append(_taken(_name(argument), graph["tensor_values"]))
                elif "as_none" not in argument:
                    inputs.append(ValueInfo(_name(argument), "", None))
            elif kind in {"parameter", "buffer", "tensor_constant"}:
                stated = {"tensor_constant": "tensor_constant_name"}.get(kind, f"{kind}_name")
                tensor = self.tree[what[stated]]
                if not isinstance(tensor, StoredTensor):
                    raise TypeError(what[stated])
                constants[_text(argument["name"])] = self._constant(tensor)
            elif kind != "constant_input":
                raise InputError(
                    f"{self.file.name}: takes something that is neither an image nor a weight "
                    f"({printable(kind)}); export an unmodified RegNet."
                )
        return tuple(inputs), constants

    def _constant(self, tensor: StoredTensor) -> Constant:
        code, numbers = _NUMBERS.get(tensor.dtype), None
        few = 0 < tensor.numel <= _MOST_NUMBERS and tensor.is_contiguous
        if few and code is not None:
            start = tensor.storage.offset + tensor.storage_offset * tensor.itemsize
            numbers = struct.unpack(f"<{tensor.numel}{code}", self.file.read(start, tensor.nbytes))
        return Constant(tensor.dtype, tensor.shape, tensor, numbers)

    def _outputs(self, specs: list[Mapping[str, Any]]) -> list[str]:
        names = []
        for spec in specs:
            ((kind, what),) = spec.items()
            if kind != "user_output":
                raise InputError(
                    f"{self.file.name}: changes its weights or computes a loss "
                    f"({printable(kind)}), as in training; export the network after .eval()."
                )
            if "as_none" not in what["arg"]:
                names.append(_name(what["arg"]))
        return names

    # Entries.

    def _place(self, name: str) -> Storage:
        entry = self.entries.get(name)
        if entry is None:
            raise damaged(f"{self.file.name}, {printable(name)}", "is missing", "the file")
        return stored_bytes(self.file, self.directory, entry, has_checksums=self.has_checksums)

    def _json(self, name: str) -> Any:
        place = self._place(name)
        if place.length > MAX_JSON:
            raise InputError(
                f"{self.file.name}, {place.label}: has {place.length} bytes, too many for the "
                "graph of a RegNet; name the checkpoint it was made from."
            )
        text = self.file.read(place.offset, place.length)
        if place.crc32 is not None and crc32(text) != place.crc32:
            raise checksum_error(place)
        return parse_json(text)


def _taken(name: str, values: Mapping[str, Any]) -> ValueInfo:
    """A tensor that a caller gives."""
    meta = values[name]
    shape = tuple(size.get("as_int") for size in meta["sizes"])  # None of an expression
    return ValueInfo(name, _DTYPES.get(meta["dtype"], f"type {meta['dtype']}"), shape)


def _name(argument: Mapping[str, Any]) -> str:
    """Of a value; "" for none, as where a result is not given."""
    ((kind, value),) = argument.items()
    if kind in {"as_tensor", "as_custom_obj"}:
        return _text(value["name"])
    if kind.startswith("as_sym_"):
        return _text(value.get("as_name", ""))
    return ""


def _stated(size: Mapping[str, Any]) -> int:
    """A size of a weight, which is never open."""
    number = size["as_int"]
    if type(number) is not int or not 0 <= number <= MAX_SIZE:
        raise ValueError(number)
    return number


def _number(value: object) -> int | float:
    if not isinstance(value, int | float):
        raise TypeError(value)
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(value)
    return value


def _size(value: Mapping[str, Any]) -> int | str:
    return _text(value["as_name"]) if "as_name" in value else int(_number(value["as_int"]))


_ARGUMENTS: dict[str, Callable[[Any], Argument]] = {
    "as_tensor": lambda value: Named(_text(value["name"])),
    "as_none": lambda _: None,
    "as_int": _number,
    "as_float": _number,
    "as_bool": _number,
    "as_string": _text,
    "as_ints": lambda value: tuple(int(_number(number)) for number in value),
    "as_floats": lambda value: tuple(float(_number(number)) for number in value),
    "as_sym_int": lambda value: (_size(value),),
    "as_sym_ints": lambda value: tuple(map(_size, value)),
    "as_scalar_type": lambda value: _DTYPES.get(value, "another type"),
}
"""What arguments of nodes are, by the kind that they state."""


def _argument(argument: Mapping[str, Any]) -> Argument:
    """An argument; of a kind that no network of images has, a text that says so."""
    ((kind, value),) = argument.items()
    return _ARGUMENTS[kind](value) if kind in _ARGUMENTS else f"something {kind}"
