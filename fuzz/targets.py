"""What is fuzzed: how an input becomes files, and what reads them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

import msgpack
import numpy as np
import onnx
import safetensors
from onnx import numpy_helper
from typer.main import get_command

from converters.checkpoint import (
    Checkpoint,
    StoredTensor,
    hdf5_container,
    open_any,
    open_checkpoint,
)
from converters.checkpoint.hdf5_container import taken
from converters.checkpoint.legacy_container import MAGIC_NUMBER, PROTOCOL_VERSION
from converters.checkpoint.msgpack_container import ARRAY, CHUNKED, SCALAR
from converters.checkpoint.pickle_reader import PickleSource, read_pickle
from converters.checkpoint.sniff import KERAS_CONFIG, KERAS_WEIGHTS
from converters.checkpoint.source_file import Found, SourceFile
from converters.checkpoint.values import Storage
from converters.cli.app import app
from converters.errors import ConversionError
from converters.families.manifest import parse
from converters.families.options import SourceOptions
from converters.families.pycls_config import PyclsConfig
from converters.families.wrapping import all_tensors, find_state_dicts
from converters.weights.inspection import UNFIT, inspected
from regnet.config import RegNetConfig
from regnet.files.dtypes import OF_SAFETENSORS, item_size
from tests.converters.checkpoint.mindspore_files import theirs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from converters.checkpoint import Tree

MAX_READ = 1 << 20
"""Bytes of a tensor that are read."""

_HEADER = b"".join(pickle.dumps(plain, 2) for plain in (MAGIC_NUMBER, PROTOCOL_VERSION, None))
"""Of a legacy file."""

_NOWHERE = Path("input")

_REGNET = get_command(app)
"""Built once, since typer evaluates annotations to build it."""

_MAX_FILE = 1 << 30
"""In bytes; the storages behind a pickle are holes, which take no room."""


@dataclass(frozen=True, slots=True)
class Target:
    """A reader under test.

    Attributes:
        place: Makes an input a file in a folder, beside what :mod:`fuzz.seeds` put there, and
            returns what is to be read.
        read: Reads it.
        max_len: Of an input, in bytes.
    """

    place: Callable[[bytes, Path], Path]
    read: Callable[[Path], object]
    max_len: int = 1 << 16


def _as(name: str) -> Callable[[bytes, Path], Path]:
    """Place the input as a file of this name."""

    def place(data: bytes, folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder / name

    return place


def _in_folder(name: str) -> Callable[[bytes, Path], Path]:
    """Place the input as one file of the folder that is read."""

    def place(data: bytes, folder: Path) -> Path:
        (folder / name).write_bytes(data)
        return folder

    return place


def _around(name: str, read: str = "") -> Callable[[bytes, Path], Path]:
    """Place a legacy file whose content is the input, with all storages that it mentions.

    Args:
        name: The file's.
        read: What is to be read, if not the file itself.
    """

    def place(data: bytes, folder: Path) -> Path:
        sizes = _storages_of(data)
        with (folder / name).open("wb") as file:
            file.write(_HEADER)
            file.write(data)
            file.write(pickle.dumps(list(sizes), 2))
            for numel, length in sizes.values():
                file.write((numel % 2**64).to_bytes(8, "little"))
                if file.tell() + length < _MAX_FILE:
                    file.truncate(file.tell() + length)
                    file.seek(0, io.SEEK_END)
        return folder / (read or name)

    return place


def _storages_of(data: bytes) -> dict[str, tuple[int, int]]:
    """The storages that a pickle mentions: key to elements and bytes."""
    sizes: dict[str, tuple[int, int]] = {}

    def find_storage(key: str, dtype: str, numel: int) -> Storage:
        sizes.setdefault(key, (numel, numel * item_size(dtype)))
        return _storage(key, dtype, numel)

    try:
        source = PickleSource(Found("pickle", data))
        read_pickle(source, find_storage, has_views=True)
    except (ConversionError, ValueError, RecursionError):
        return {}  # which the reader meets again, under watch
    return sizes


def _storage(key: str, dtype: str, numel: int) -> Storage:
    return Storage(_NOWHERE, 0, numel * item_size(dtype), None, key)


def _read_pickle(path: Path) -> None:
    data = path.read_bytes()
    source = PickleSource(Found("pickle", data))
    tree = read_pickle(source, _storage)
    find_state_dicts(tree)
    all_tensors(tree)


def _tensors(tree: Tree) -> Iterator[tuple[str, StoredTensor]]:
    for name, value in tree.items() if isinstance(tree, dict) else ():
        if isinstance(value, StoredTensor) and value.nbytes <= MAX_READ:
            yield str(name), value


def _read_file(path: Path) -> None:
    with open_checkpoint(path) as checkpoint:
        read = {name: checkpoint.array(t).tobytes() for name, t in _tensors(checkpoint.tree)}
        if checkpoint.container == "safetensors":
            _agree_with_safetensors(path, checkpoint, read)
        elif checkpoint.container == "zip":
            _agree_with_zipfile(path, checkpoint)
        elif checkpoint.container == "keras":
            _agree_with_keras(path, checkpoint)
        elif checkpoint.container == "npz":
            _agree_with_numpy(path, read)
        elif checkpoint.container == "msgpack":
            _agree_with_msgpack(path, read)
        elif checkpoint.container == "mindspore":
            _agree_with_protobuf(path, checkpoint, read)


def _agree_with_safetensors(path: Path, checkpoint: Checkpoint, read: dict[str, bytes]) -> None:
    """What we take, the format's own library takes, and finds the same in it."""
    theirs = dict(safetensors.deserialize(path.read_bytes()))  # type: ignore[no-untyped-call]
    assert set(theirs) == set(checkpoint.tree)  # type: ignore[arg-type]
    for name, tensor in _tensors(checkpoint.tree):
        assert OF_SAFETENSORS[theirs[name]["dtype"]] == tensor.dtype
        assert tuple(theirs[name]["shape"]) == tensor.shape
        assert bytes(theirs[name]["data"]) == read[name]


def _agree_with_msgpack(path: Path, read: dict[str, bytes]) -> None:
    """What we take, msgpack takes, and finds the bytes of every tensor in it."""
    found: set[bytes] = set()

    def note(kind: int, payload: bytes) -> None:
        if kind in {ARRAY, SCALAR}:
            found.add(bytes(msgpack.unpackb(payload, raw=True)[2]))

    content = path.read_bytes()
    msgpack.unpackb(content, ext_hook=note)
    if CHUNKED.encode() not in content:
        assert found.issuperset(read.values())


def _take_answer(path: Path) -> None:
    """What the process says in which h5py reads, about the file that the answer is in itself."""
    with SourceFile(path) as file:
        try:
            answer = json.loads(file.read(0, file.size).decode("ascii"))
        except (ValueError, RecursionError):
            return
        for _, tensor in _tensors(taken(file, answer, Storage(path, 0, file.size, None, ""))):
            file.read(tensor.storage.offset, tensor.storage.length)


def _read_keras(path: Path) -> None:
    """The archive, where what h5py says of the weights is always the same."""
    said = json.loads(path.with_name("answer.json").read_bytes())
    answering: dict[str, Any] = {"require_extra": lambda *_: "", "_asked": lambda *_: said}
    with mock.patch.multiple(hdf5_container, **answering):
        _read_file(path)


def _agree_with_keras(path: Path, checkpoint: Checkpoint) -> None:
    """What we take is what Keras gets by zipfile: the description, and the file of weights."""
    with suppress(NotImplementedError), zipfile.ZipFile(path) as archive:
        assert archive.read(KERAS_CONFIG).decode() == checkpoint.metadata[KERAS_CONFIG]
        weights = archive.read(KERAS_WEIGHTS)
    data = path.read_bytes()
    for _, tensor in _tensors(checkpoint.tree):
        assert all(data[run.offset : run.end] in weights for run in tensor.runs or ())


def _agree_with_zipfile(path: Path, checkpoint: Checkpoint) -> None:
    """The bytes of a storage are those of the archive's entry, checksum and all."""
    with zipfile.ZipFile(path) as archive:
        for _, tensor in _tensors(checkpoint.tree):
            storage = tensor.storage
            if storage.label in archive.namelist() and storage.length <= MAX_READ:
                data = path.read_bytes()[storage.offset :][: storage.length]
                assert archive.read(storage.label) == data


def _agree_with_numpy(path: Path, read: dict[str, bytes]) -> None:
    """What we take of an archive of arrays, NumPy takes, and finds the same in it."""
    # zipfile refuses entries that state a version of zip's of their own, for which nobody cares.
    with suppress(NotImplementedError), np.load(path) as theirs:
        found = {name.replace("/", "."): name for name in theirs.files}
        for name, data in read.items():
            assert theirs[found[name]].tobytes() == data


def _agree_with_protobuf(path: Path, checkpoint: Checkpoint, read: dict[str, bytes]) -> None:
    """What we take, protobuf's own library takes, and finds the same in it."""
    data = path.read_bytes()
    found = theirs(data if data[-17:-10] != b"crc_num" else data[:-17])
    assert found is not None
    assert set(found) == set(checkpoint.tree)  # type: ignore[arg-type]
    for name, tensor in _tensors(checkpoint.tree):
        shape, _, content = found[name]
        assert (shape, content) == (tensor.shape, read[name])


def _read_any(path: Path) -> None:
    with open_any(path) as checkpoint:
        for _, tensor in _tensors(all_tensors(checkpoint.tree)):  # type: ignore[arg-type]
            checkpoint.array(tensor)


def _inspect(path: Path) -> None:
    with inspected(path, SourceOptions()) as (_, inspection):
        inspection.source.preprocessor_fields()


def _command(path: Path) -> None:
    """`regnet inspect`, with the tables that people read, or with ``--json``."""
    form = "--json" if path.stat().st_size % 2 else "--plan"
    with redirect_stdout(io.StringIO()) as shown:
        _REGNET.main(["inspect", str(path), form], standalone_mode=False)
    assert all(line.isprintable() for line in shown.getvalue().split("\n")) or form == "--json"


def _read_onnx(path: Path) -> None:
    """The file, its graph as a network; and what onnx's own library finds in it."""
    with suppress(ConversionError), inspected(path, SourceOptions()):
        pass
    with open_checkpoint(path) as checkpoint:
        read = {name: checkpoint.array(t).tobytes() for name, t in _tensors(checkpoint.tree)}
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception:  # noqa: BLE001 -- protobuf's own, which is stricter with texts
        return
    theirs = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, data in read.items():
        if name in theirs and theirs[name].data_type == onnx.TensorProto.FLOAT:
            assert numpy_helper.to_array(theirs[name]).tobytes() == data


def _in_program(data: bytes, folder: Path) -> Path:
    """Place the input as the graph of a program of torch.export, beside its weights."""
    path = folder / "model.pt2"
    with zipfile.ZipFile(folder / "whole.pt2") as whole, zipfile.ZipFile(path, "w") as made:
        for name in whole.namelist():
            made.writestr(name, data if "/models/" in name else whole.read(name))
    return path


def _in_script(data: bytes, folder: Path) -> Path:
    """Place the input as the code of a TorchScript archive, beside its weights."""
    path = folder / "model.pt"
    with zipfile.ZipFile(folder / "whole.pt") as whole, zipfile.ZipFile(path, "w") as made:
        for name in whole.namelist():
            made.writestr(name, data if name.endswith(".py") else whole.read(name))
    return path


def _read_program(path: Path) -> None:
    """The file, and its graph as a network."""
    with suppress(ConversionError), inspected(path, SourceOptions()):
        pass
    _read_any(path)


def _read_manifest(path: Path) -> None:
    parse(path.read_bytes())


def _read_cfg(path: Path) -> None:
    cfg = PyclsConfig.parse(path.read_bytes().decode("latin-1"), path.name)
    with suppress(*UNFIT):  # which `inspected` makes a refusal of
        cfg.require_expressible()
        _ = cfg.described_shapes, cfg.preprocessing, cfg.fields(RegNetConfig())


TARGETS = {
    "pickle": Target(_as("input"), _read_pickle),
    "zip": Target(_as("input"), _read_file),
    "legacy": Target(_as("input"), _read_file),
    "safetensors": Target(_as("input"), _read_file),
    "msgpack": Target(_as("input"), _read_file),
    "npz": Target(_as("input"), _read_file),
    "keras": Target(_as("input"), _read_keras),
    "hdf5-answer": Target(_as("input"), _take_answer),
    "mindspore": Target(_as("input"), _read_file),
    "config": Target(_in_folder("config.json"), _inspect),
    "preprocessor": Target(_in_folder("preprocessor_config.json"), _inspect),
    "timm-config": Target(_in_folder("config.json"), _inspect),
    "pycls-cfg": Target(_as("input"), _read_cfg),
    "manifest": Target(_as("input"), _read_manifest),
    "onnx": Target(_as("model.onnx"), _read_onnx, 1 << 17),
    "pt2": Target(_in_program, _read_program, 1 << 18),
    "torchscript": Target(_in_script, _read_program, 1 << 16),
    "index": Target(_in_folder("model.safetensors.index.json"), _read_any),
    "distributed": Target(_in_folder(".metadata"), _read_any),
    "shard-list": Target(_around("list"), _read_any),
    "shard": Target(_around("list_shard0", "list"), _read_any),
    "slice-list": Target(_around("list"), _read_any),
    "inspect": Target(_around("model.pyth"), _command),
    "inspect-file": Target(_as("model.pyth"), _command, 1 << 19),
}
"""Name to target."""
