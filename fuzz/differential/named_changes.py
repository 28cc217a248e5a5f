"""Files that name tensors without pickles: HDF5, Keras' archives of it, Flax's, MindSpore's."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any
from zlib import crc32

import h5py
import msgpack
import numpy as np

from fuzz.differential.pickles import changed_bytes
from tests.converters.checkpoint.keras_files import functional, hdf5, keras
from tests.converters.checkpoint.keras_files import layer as layer_of
from tests.converters.checkpoint.mindspore_files import entry, number, run, tensor
from tests.converters.checkpoint.test_hdf5 import layer, model
from tests.converters.checkpoint.test_msgpack import chunked, packed

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_NAMES = ("a", "b", "a.b", "params", "batch_stats", "", "é", "\0", "step", "optimizer", "x" * 300)
_KINDS = (
    "float32",
    "float16",
    "int64",
    "uint8",
    "bool",
    "complex64",
    "bfloat16",
    "<f4",
    "f4",
    "V4",
)
_SHAPES = (
    (6,),
    (3, 2),
    (2, 3),
    (1, 6),
    (6, 1),
    (),
    (0,),
    (7,),
    (-1,),
    (-6,),
    (2**62, 4),
    (True, 6),
)
_PLAIN: tuple[Any, ...] = (0, -1, 2**63, 1.5, None, True, "text", b"bytes", [1, "a"], {})


def hdf5_files() -> list[bytes]:
    """What Keras lays out in several ways, and h5py in two more."""

    def whole(file: h5py.File) -> None:
        model(file.create_group("model_weights"))
        layer(file, "optimizer_weights", {"Adam/m/kernel": np.ones(3)})

    def third(file: h5py.File) -> None:
        for index in range(9):
            file[f"layers/norm_{index}/gamma"] = np.full(2, index, np.float32)

    def written(fill: Callable[[h5py.File], object], version: str) -> bytes:
        buffer = io.BytesIO()
        with h5py.File(buffer, "w", libver=version) as file:
            fill(file)
        return buffer.getvalue()

    return [written(fill, v) for fill in (model, whole, third) for v in ("earliest", "latest")]


def keras_files() -> list[bytes]:
    """Archives of two networks with the same layers, of one in another, and of a subclass."""
    layers = [layer_of("InputLayer", "in"), layer_of("Conv2D", "z"), layer_of("Conv2D", "y")]
    plain = functional(*layers, layer_of("BatchNormalization", "n"), layer_of("Dense", "head"))
    nested = functional(layers[1], functional(*layers[1:], name="inner"), layer_of("Own", "o"))
    subclass = layer_of("RegNet", "net", depths=[1, 2])
    files = []
    for sign in (1, -1):
        array = sign * np.arange(1, 7, dtype=np.float32)
        places = ("conv2d/vars/0", "conv2d_1/vars/0", "conv2d_1/vars/1", "dense/vars/0")
        flat = {f"layers/{place}": array * at for at, place in enumerate(places, 1)}
        flat |= {f"layers/batch_normalization/vars/{at}": array[at:] for at in range(4)}
        deep = {f"layers/{within}{places[0]}": array for within in ("", "functional/layers/")}
        own = {f"{name}/vars/0": array for name in ("layers/own", "stem/conv", "optimizer")}
        for config, arrays in ((plain, flat), (nested, deep | own), (subclass, own | flat)):
            files.append(keras(config, hdf5(arrays)))
    return files


def changed_hdf5(files: list[bytes], rng: Random) -> bytes:
    """Change numbers in the structure of a file, or put those of another in their place."""
    content = bytearray(rng.choice(files))
    for _ in range(rng.choice((1, 1, 2, 3))):
        at, width = rng.randrange(8, len(content)), rng.choice((1, 2, 4, 8))
        other = rng.choice((bytes(content), rng.choice(files)))
        place = rng.choice((at, rng.randrange(len(other))))
        value = int.from_bytes(content[at : at + width], "little")
        word = rng.choice(
            (
                other[place : place + width],
                ((value + rng.choice((-8, -1, 1, 8, 64))) % 256**width).to_bytes(width, "little"),
                rng.choice((b"\0", b"\xff")) * width,
                rng.randbytes(width),
            )
        )
        content[at : at + len(word)] = word
    return bytes(content)


def msgpack_files() -> list[bytes]:
    """A network alone, a training state, and arrays in pieces."""
    array = np.arange(6, dtype=np.float32)
    network = {
        "params": {"conv": {"kernel": array.reshape(1, 2, 3)}, "fc": {"bias": array[:2]}},
        "batch_stats": {"conv": {"mean": array.astype(np.float16)}},
    }
    state = network | {"step": 3, "opt_state": {"0": {"count": np.int32(5), "mu": array * 2}}}
    pieces = {"params": {"w": chunked(array.reshape(2, 3), 4), "v": array[:0]}}
    return [packed(tree) for tree in (network, state, pieces, {"a": {"b": array}, "c": array[:1]})]


class _Map(list[Any]):
    """Keys and values, of which keys may occur twice."""


def changed_msgpack(files: list[bytes], rng: Random) -> bytes:
    """Change a tree, its arrays, or some bytes."""
    tree = msgpack.unpackb(rng.choice(files), object_pairs_hook=_Map, strict_map_key=False)
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        _change_map(rng.choice(_maps(tree)), rng)
    data = _packed(tree)
    return changed_bytes(data, rng) if rng.randrange(3) == 0 else data


def _maps(tree: Any) -> list[_Map]:
    if not isinstance(tree, _Map):
        return []
    return [tree, *(inner for pair in tree for inner in _maps(pair[1]))]


def _change_map(pairs: _Map, rng: Random) -> None:
    if not pairs:
        pairs.append((rng.choice(_NAMES), rng.choice(_PLAIN)))
        return
    index = rng.randrange(len(pairs))
    key, value = pairs[index]
    match rng.randrange(7):
        case 0:
            pairs[index] = (rng.choice((*_NAMES, 1, b"a")), value)
        case 1:
            pairs.insert(rng.randrange(len(pairs)), (rng.choice((key, *_NAMES)), value))
        case 2:
            pairs[index] = (key, rng.choice(_PLAIN))
        case 3:
            pairs[index] = (key, _Map([(rng.choice(_NAMES), value)]))
        case 4:
            del pairs[index]
        case _ if isinstance(value, msgpack.ExtType):
            pairs[index] = (key, _changed_array(value, rng))


def _changed_array(array: msgpack.ExtType, rng: Random) -> msgpack.ExtType:
    code, (shape, kind, content) = array.code, msgpack.unpackb(array.data)
    match rng.randrange(4):
        case 0:
            code = rng.choice((1, 2, 3, 4))
        case 1:
            shape = rng.choice(_SHAPES)
        case 2:
            kind = rng.choice(_KINDS)
        case _ if isinstance(content, bytes):
            content = rng.choice((content + b"\0", content[4:], content * 2, "text", None))
    return msgpack.ExtType(code, msgpack.packb((shape, kind, content)))


def _packed(tree: Any) -> bytes:
    if not isinstance(tree, _Map):
        return bytes(msgpack.packb(tree, default=dict))
    head = msgpack.Packer().pack_map_header(len(tree))
    return bytes(head) + b"".join(_packed(key) + _packed(value) for key, value in tree)


Entry = tuple[str, tuple[int, ...], str, bytes]
"""Name, axes, type and content."""

_TYPES = ("Float32", "Float16", "Int64", "UInt8", "Bool", "Float64", "Int4", "str", "")


def mindspore_entries() -> list[list[Entry]]:
    """A network, and one of which a tensor is in pieces."""
    array = np.arange(6, dtype=np.float32).tobytes()
    network: list[Entry] = [
        ("conv.weight", (2, 3), "Float32", array),
        ("steps", (0,), "Int64", bytes(8)),
        ("half", (4,), "Float16", array[:8]),
        ("note", (0,), "str", "é".encode("utf-32-le")),
    ]
    pieces: list[Entry] = [("w", (3, 2), "Float32", array[at : at + 8]) for at in (0, 8, 16)]
    return [network, [*pieces, network[0]]]


def changed_mindspore(files: list[list[Entry]], rng: Random) -> bytes:
    """Change entries, what a message has besides, or some bytes."""
    entries = list(rng.choice(files))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        index = rng.randrange(len(entries))
        name, dims, kind, content = entries[index]
        shape = rng.choice(_SHAPES)
        match rng.randrange(6):
            case 0:
                name = rng.choice((rng.choice(entries)[0], *_NAMES))
            case 1:
                dims = tuple(int(size) % 2**64 for size in shape)
            case 2:
                kind = rng.choice(_TYPES)
            case 3:
                content = rng.choice((content + b"\0", content[4:], content * 2, b""))
            case 4:
                entries.insert(rng.randrange(len(entries)), entries[index])
            case _:
                rng.shuffle(entries)
        entries[index] = (name, dims, kind, content)
    more = (*[b""] * 40, number(7, 1), run(2, "x"), run(1, "a"))
    data = b"".join(
        entry(name, tensor(dims, kind, content, rng.choice(more)), rng.choice(more))
        for name, dims, kind, content in entries
    )
    if rng.randrange(3) == 0:
        data = changed_bytes(data, rng)
    if rng.randrange(3) == 0:
        data += b"crc_num" + struct.pack(">Q", crc32(data)).rjust(10, b"\0")
    return data
