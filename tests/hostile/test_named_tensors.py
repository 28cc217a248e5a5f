"""60 to 63: HDF5, Flax's msgpack and MindSpore's protobuf, which name tensors without pickles."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from converters.checkpoint import StoredTensor, open_checkpoint
from tests.converters.checkpoint import test_hdf5 as hdf5
from tests.converters.checkpoint.mindspore_files import entry, number, run, tensor, varint
from tests.converters.checkpoint.test_msgpack import (
    ARRAY,
    chunked,
    extension,
    packed,
    packed_array,
    theirs,
)
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.hostile.victim import Victim

NETWORKS = (
    RECORDED / "tensorflow" / "y.h5",
    RECORDED / "flax" / "y.msgpack",
    RECORDED / "mindcv" / "y.ckpt",
)
CONTROL = "\x1b[2Jall is well"
SECONDS, MEMORY = 10.0, 64 << 20
"""Of processors and of memory that the refusal of a file may take."""


@contextmanager
def bounded() -> Iterator[None]:
    """Check what the block takes, in seconds with its child processes, and in bytes without."""
    before = sum(os.times()[:4])
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < MEMORY
    assert sum(os.times()[:4]) - before < SECONDS


def refused(victim: Victim, status: int, *contents: bytes) -> None:
    """Have files refused, within bounds."""
    for content in contents:
        victim.put(content)
        with bounded():
            assert len(victim.refused(status)) < 500


def with_nan(path: Path) -> bytes:
    """A network in a file, one of whose kernels has a number that is none."""
    content = bytearray(path.read_bytes())
    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        found = [t for t in checkpoint.tree.values() if isinstance(t, StoredTensor)]
    storage = max(found, key=lambda tensor: tensor.numel).storage
    struct.pack_into("<f", content, storage.offset, np.nan)
    return bytes(content)


def written(fill: Callable[[h5py.File], object]) -> bytes:
    """A file of HDF5."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        fill(file)
    return buffer.getvalue()


def changed(change: Callable[[h5py.File], object]) -> bytes:
    """A network in HDF5, to which something was done."""
    buffer = io.BytesIO(NETWORKS[0].read_bytes())
    with h5py.File(buffer, "r+") as file:
        change(file)
    return buffer.getvalue()


def of_keras(**layer: Any) -> bytes:
    """A network with the description of a model in which a layer is something else."""
    config = {"class_name": "Functional", "config": {"layers": [layer]}}
    return changed(
        lambda file: file.attrs.__setitem__("model_config", str(config).replace("'", '"'))
    )


TWO = written(lambda file: [file.__setitem__(name, np.arange(6, dtype="f4")) for name in "ab"])


def laid_out(**changes: int) -> bytes:
    """Two datasets of six numbers, of which the second says another size, or lies elsewhere."""
    with h5py.File(io.BytesIO(TWO)) as file:
        first, second = (file[name].id.get_offset() for name in "ab")
    content = bytearray(TWO)
    place = b"\x03\x01" + struct.pack("<Q", second)
    start = changes.get("start", second - first)
    struct.pack_into("<Q", content, content.rindex(place) + 2, (first + start) % 2**64)
    size = changes.get("size", 6)
    struct.pack_into("<QQ", content, content.rindex(struct.pack("<QQ", 6, 6)), size, size)
    return bytes(content)


def cut(size: int) -> bytes:
    """The beginning of a file of HDF5, which says that it ends there."""
    content = bytearray(TWO[:size])
    struct.pack_into("<Q", content, 40, size)
    return bytes(content)


def test_60_hdf5_that_leads_elsewhere_or_is_read_in_two_ways(victim: Victim) -> None:
    for fill in (hdf5.external, hdf5.elsewhere, hdf5.virtual, hdf5.twice, hdf5.unlisted):
        refused(victim, 3, written(fill))
    refused(
        victim,
        3,
        of_keras(class_name="Lambda", name="x", config={"function": ["4wEAAAA", "", ""]}),
        of_keras(module="os", class_name="function", config="system"),
        of_keras(class_name="StringLookup", config={"vocabulary": "/etc/passwd"}),
    )
    victim.refused(3, "inspect", "model.pyth", "--security", "-q")


def test_61_hdf5_that_is_cut_off_or_says_what_cannot_be(victim: Victim) -> None:
    refused(victim, 2, TWO[:-1], *(cut(size) for size in (700, 1696)))
    refused(victim, 2, *(laid_out(size=size) for size in (1 << 40, 1 << 62)))
    refused(victim, 2, laid_out(start=8), laid_out(start=-(1 << 40)))
    refused(
        victim,
        2,
        written(hdf5.around),
        written(lambda file: file.create_dataset("w", (1 << 40,), "f4", fillvalue=1.0)),
        written(lambda file: file.create_dataset("w", (1 << 30,), "f4", chunks=(1 << 20,))),
        written(lambda file: file.create_dataset("w", data=np.zeros(1 << 20), compression="gzip")),
        written(lambda file: file.__setitem__(b"\xff", ARRAY)),
        changed(lambda file: file.__setitem__(CONTROL, ARRAY)),
        changed(lambda file: file.attrs.__setitem__("model_config", "{")),
        with_nan(NETWORKS[0]),
    )
    os.mkfifo("pipe")
    victim.refused(2, "convert", "pipe", "out", "-q")


def of_flax(**more: Any) -> bytes:
    """A network in msgpack, with something besides."""
    tree = theirs(NETWORKS[1].read_bytes())
    tree["params"] |= more
    return packed(tree)


def as_type(tree: Any, dtype: type[np.generic]) -> Any:
    """A tree whose arrays are of another type."""
    if isinstance(tree, dict):
        return {key: as_type(value, dtype) for key, value in tree.items()}
    return tree.astype(dtype)


def test_62_msgpack_that_is_cut_off_or_says_what_cannot_be(victim: Victim) -> None:
    whole = packed({"params": {"w": ARRAY}})
    refused(
        victim, 2, *(whole[:size] for size in (8, 11, 13, 20, 30, len(whole) - 1)), whole + b"x"
    )
    for start in (b"\xdd", b"\xdf", b"\xdb", b"\xc6", b"\xc9"):  # a list, map, text, bytes, tensor
        refused(victim, 2, b"\x81\xa1a" + start + b"\xff\xff\xff\xff\x01")
    refused(victim, 2, b"\x81\xa1a" * 30_000 + b"\xc0", b"\x81\xa1a" + b"\x91" * 30_000 + b"\xc0")
    shapes = ((2**62, 4), (-6,), (2**63, 2**63), (True, 6), (1,) * 65, (6.0,))
    refused(victim, 2, *(extension(packed_array(ARRAY, shape=shape)) for shape in shapes))
    refused(
        victim,
        2,
        extension(packed_array(ARRAY, dtype="object")),
        extension(packed_array(ARRAY, dtype="V8")),
        extension(b"", 77),
        packed({"params": {"w": chunked(ARRAY, 2, shape={"0": 2**40})}}),
        packed({"params": {"a": {"b": ARRAY}, "a.b": ARRAY}}),
        of_flax(**{CONTROL: ARRAY}),
        packed(as_type(theirs(NETWORKS[1].read_bytes()), np.int8)),
        with_nan(NETWORKS[1]),
    )
    refused(victim, 3, b"\x82" + 2 * (b"\xa1w" + packed(ARRAY)))


def test_63_mindspore_that_is_cut_off_or_says_what_cannot_be(victim: Victim) -> None:
    whole = NETWORKS[2].read_bytes()
    refused(victim, 2, *(entry()[:size] for size in range(12, len(entry()), 4)), whole[:-1])
    refused(victim, 2, entry() + b"\x0a" + varint(1 << 62), entry() + b"\x0a" + b"\xff" * 30)
    sizes = ((3,), (1 << 62, 4), ((1 << 64) - 2,), (1,) * 65)
    refused(victim, 2, *(entry("a", tensor(dims)) for dims in sizes))
    refused(
        victim,
        2,
        run(1, run(1, "a") + b"\x12\x20\x08\x02") + entry("b") * 2,
        entry("a", tensor(kind="Int4")),
        entry() + entry(b"\xff"),
        entry() + number(1, 3),
        entry("a", tensor((4,))) + entry("a", tensor((5,))),
        entry("a", tensor((0,), "str", bytes(1 << 17))),
        whole + b"crc_num" + bytes(10),
        whole + entry(CONTROL),
        with_nan(NETWORKS[2]),
    )
    refused(victim, 3, entry("a") + entry("b") + entry("a"))
