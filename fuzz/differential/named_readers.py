"""What their own libraries find in HDF5, Flax's msgpack and MindSpore's protobuf.

Of frameworks that are not installed beside ours their lines are repeated: Keras 2.15
``saving/legacy/hdf5_format.py``, Keras 3.15 ``saving/saving_lib.py``, Flax 0.8.5
``serialization.py``, MindSpore 2.10 ``train/serialization.py``.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import ml_dtypes
import msgpack
import numpy as np

from fuzz.differential.reading import UNREAD, Leaf, Reading, taken_apart, tensor
from tests.converters.checkpoint.mindspore_files import theirs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

_ARRAY, _COMPLEX, _SCALAR = 1, 2, 3
_CHUNKED = "__msgpack_chunked_array__"
_BEFORE_2_13 = "_layer_checkpoint_dependencies."
_DEEPEST = 40
_CHECKSUM = 17  # bytes
_LEAVES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}

_TYPES = {
    "Bool": "bool", "UInt8": "uint8", "Int8": "int8", "UInt16": "uint16", "Int16": "int16",
    "UInt32": "uint32", "Int32": "int32", "UInt64": "uint64", "Int64": "int64",
    "Float16": "float16", "Float32": "float32", "Float64": "float64",
}  # fmt: skip


def flattened(tree: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """The leaves of nested mappings, by all keys that lead to each, joined by dots."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            found |= flattened(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def leaf_of(value: object) -> Leaf | None:
    """An array as it is compared, or a single number, of which h5py makes none."""
    if isinstance(value, np.generic):
        value = np.asarray(value)
    if not isinstance(value, np.ndarray):
        return UNREAD if isinstance(value, bytes | complex) else None
    stride = tuple(step // value.itemsize for step in value.strides)
    return tensor(value.dtype.name, value.shape, stride, value.nbytes, value.tobytes)


def flax(path: Path) -> Reading:
    """As ``flax.serialization.msgpack_restore`` and transformers, which takes collections apart."""
    tree = msgpack.unpackb(path.read_bytes(), ext_hook=_of_extension, raw=False)
    tree = _joined(tree)
    collections = {name: tree[name] for name in ("params", "batch_stats") if name in tree}
    if all(isinstance(collection, dict) for collection in collections.values()):
        rest = {key: value for key, value in tree.items() if key not in collections}
        for collection in collections.values():
            rest |= flattened(collection)
        tree = rest
    return taken_apart(flattened(tree), leaf_of)


def _of_extension(kind: int, payload: bytes) -> Any:
    if kind == _COMPLEX:
        return complex(*msgpack.unpackb(payload))
    if kind not in (_ARRAY, _SCALAR):
        raise ValueError("an unknown extension")
    shape, dtype, elements = msgpack.unpackb(payload, raw=True)
    name = dtype.decode()
    element = np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name)
    return np.frombuffer(elements, element).reshape(shape, order="C")


def _joined(tree: Any) -> Any:
    if not isinstance(tree, dict):
        return tree
    if _CHUNKED not in tree:
        return {key: _joined(value) for key, value in tree.items()}
    shape = [tree["shape"][str(axis)] for axis in range(len(tree["shape"]))]
    chunks = [tree["chunks"][str(index)] for index in range(len(tree["chunks"]))]
    return np.concatenate(chunks).reshape(shape)


def mindspore(path: Path) -> Reading:
    """As ``mindspore.load_checkpoint``."""
    data = path.read_bytes()
    found = theirs(data[:-_CHECKSUM] if data[-_CHECKSUM:].startswith(b"crc_num") else data)
    if found is None:
        raise ValueError("no message")
    return taken_apart({name: _of_mindspore(*said) for name, said in found.items()}, leaf_of)


def _of_mindspore(shape: tuple[int, ...], kind: str, content: bytes) -> Any:
    if kind == "str":
        return content.decode("utf-32-le")
    return np.frombuffer(content, _TYPES[kind]).reshape(shape)


def hdf5(path: Path) -> Reading:
    """As h5py reads datasets, by the names that Keras gives them."""
    found: dict[str, Any] = {}
    with h5py.File(path) as root:
        _visit(root, "", "", None, found)
    return taken_apart(found, leaf_of)


def _visit(group: h5py.Group, path: str, model: str, layer: str | None, found: Any) -> None:
    """Add the datasets below a group.

    Args:
        group: It.
        path: Its levels, each followed by a slash.
        model: Those of the model that it is in.
        layer: Those of the layer that it is in.
        found: Gets them by name.
    """
    if path.count("/") > _DEEPEST:
        raise ValueError("groups without end")
    if "layer_names" in group.attrs:
        model = path
    if layer is None and "weight_names" in group.attrs:
        layer = path
    for name, member in group.items():
        if isinstance(member, h5py.Group):
            _visit(member, f"{path}{name}/", model, layer, found)
            continue
        inside = f"{path}{name}"
        if layer is not None:
            optimiser = layer.split("/")[0] in ("optimizer_weights", "optimizer")
            top = layer if optimiser else model
            inside = top + inside.removeprefix(layer)
        found[inside.removesuffix(":0").replace("/", ".")] = member[()]


def keras(path: Path) -> Reading:
    """As Keras 3: layers by their classes, in the order in which the description lists them."""
    with zipfile.ZipFile(path) as archive:
        text, weights = archive.read("config.json").decode(), archive.read("model.weights.h5")
    found: dict[str, Any] = {}
    with h5py.File(io.BytesIO(weights)) as root:
        _visit(root, "", "", None, found)
    layers = dict(_layers(json.loads(text), "", ""))
    named = {_of_layer(name, layers): array for name, array in found.items()}
    return taken_apart(named, leaf_of) | {"config.json": ["plain", text]}


def _layers(network: Any, path: str, place: str) -> Iterator[tuple[str, str]]:
    """The groups of layers, and their names behind those of the networks that they are in."""
    config = network.get("config") if isinstance(network, dict) else None
    listed = config.get("layers") if isinstance(config, dict) else None
    used: dict[str, int] = {}
    for layer in listed if isinstance(listed, list) else ():
        if not isinstance(layer, dict):
            continue
        words = re.sub(r"\W+", "", str(layer.get("class_name")))
        kind = re.sub(r"(?<=.)(?=[A-Z][a-z])|(?<=[a-z])(?=[A-Z])", "_", words).lower()
        used[kind] = used.get(kind, -1) + 1
        group = f"{path}layers.{kind}" + (f"_{used[kind]}" if used[kind] else "")
        own = layer.get("config")
        if isinstance(own, dict) and isinstance(own.get("name"), str):
            yield group, place + own["name"]
            yield from _layers(layer, f"{group}.", f"{place}{own['name']}.")


def _of_layer(name: str, layers: Mapping[str, str]) -> str:
    """A dataset's name, with that of its layer and its own in the place of numbers."""
    group, variables, index = name.replace(_BEFORE_2_13, "layers.").rpartition(".vars.")
    kind = re.fullmatch(r"(?:.*\.)?layers\.([a-z0-9_]+?)(?:_[0-9]+)?", group)
    if not variables or kind is None or not re.fullmatch("[0-9]", index):
        return name
    leaves = _LEAVES.get(kind[1], ())
    leaf = leaves[int(index)] if int(index) < len(leaves) else index
    return f"{layers.get(group) or group}.{leaf}"
