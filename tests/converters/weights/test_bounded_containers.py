"""Containers that are not torch's own: one tensor is in memory, and time grows as the entries."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import h5py
import msgpack
import numpy as np
import pytest
import torch

from converters.checkpoint import open_any
from converters.families.known import FAMILIES
from regnet.architecture import Architecture
from tests.converters.checkpoint.mindspore_files import number, run, varint
from tests.converters.giants import wide
from tests.converters.stored import stored
from tests.oracles.distributed import save

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Shapes = Mapping[str, tuple[int, ...]]

CHECKOUT = Path(__file__).parents[3]
LIMITED = """
import resource, sys
from pathlib import Path

from converters.jobs.convert import convert

def converted(source, out):
    convert(Path(source), Path(out), formats=(), verify=False)

small, large, out, more = sys.argv[1:]
converted(small, out + "-small")  # all modules are imported
status = Path("/proc/self/status").read_text()
data = int(status.partition("VmData:")[2].split()[0]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (data + int(more), data + int(more)))
converted(large, out)
"""


def shapes_of(framework: str, width: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes as a framework saves them; three tensors have ``4 * width**2`` bytes."""
    family = FAMILIES[framework].family
    counted = family.keymap.leaves.count_batches
    return {
        family.keymap.spell(slot.role, slot.fields): family.layout.theirs(stored(slot.shape)).shape
        for slot in Architecture.of(wide(width)).slots
        if counted or slot.shape
    }


def hdf5(path: Path, shapes: Shapes) -> None:
    """Datasets that are holes in the file."""
    with h5py.File(path, "w") as file:
        for name, shape in shapes.items():
            properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
            properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
            properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
            space = h5py.h5s.create_simple(shape)
            h5py.h5d.create(file.id, name.encode(), h5py.h5t.IEEE_F32LE, space, properties)


def keras(path: Path, shapes: Shapes) -> None:
    """The same in an archive, stored."""
    inside = path.with_name("model.weights.h5")
    hdf5(inside, shapes)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(inside, inside.name)


def holes(path: Path, parts: list[tuple[bytes, int]]) -> None:
    """A file of heads, each with a hole behind it."""
    with path.open("wb") as file:
        for head, hole in parts:
            file.write(head)
            file.truncate(file.tell() + hole)
            file.seek(0, os.SEEK_END)


def size_of(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape)) * 4


def flax(path: Path, shapes: Shapes) -> None:
    parts = [(b"\xdf" + len(shapes).to_bytes(4, "big"), 0)]
    for name, shape in shapes.items():
        size = size_of(shape)
        head = b"\x93" + msgpack.packb(shape) + msgpack.packb("float32")
        head += b"\xc6" + size.to_bytes(4, "big")
        ext = b"\xc9" + (len(head) + size).to_bytes(4, "big") + b"\x01"
        parts.append((msgpack.packb(name) + ext + head, size))
    holes(path, parts)


def mindspore(path: Path, shapes: Shapes) -> None:
    parts = []
    for name, shape in shapes.items():
        size = size_of(shape)
        head = b"".join(number(1, axis) for axis in shape) + run(2, "Float32") + b"\x1a"
        head += varint(size)
        head = run(1, name) + b"\x12" + varint(len(head) + size) + head
        parts.append((b"\x0a" + varint(len(head) + size) + head, size))
    holes(path, parts)


def arrays(path: Path, shapes: Shapes) -> None:
    with path.open("wb") as file:
        pickle.dump({name: np.zeros(shape, np.float32) for name, shape in shapes.items()}, file, 4)


def distributed(path: Path, shapes: Shapes) -> None:
    save(path, {name: torch.zeros(shape) for name, shape in shapes.items()})


def modules(path: Path, shapes: Shapes) -> None:
    """A module of as many, pickled whole."""
    torch.save(torch.nn.Sequential(*(torch.nn.PReLU() for _ in shapes)), path)


WRITERS: dict[str, tuple[str, Callable[[Path, Shapes], None]]] = {
    "hdf5": ("tensorflow", hdf5),
    "keras": ("kecam", keras),
    "msgpack": ("flax", flax),
    "mindspore": ("mindcv", mindspore),
    "pickle": ("pytorchcv", arrays),
    "distributed": ("torchvision", distributed),
}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits RLIMIT_DATA as meant here")
@pytest.mark.parametrize("container", WRITERS)
def test_one_tensor_is_in_memory(container: str, tmp_path: Path) -> None:
    framework, write = WRITERS[container]
    small, large = tmp_path / "small", tmp_path / "large"
    write(small, shapes_of(framework, 256))
    write(large, shapes_of(framework, 3072))
    tensor = 4 * 3072**2
    arguments = [str(small), str(large), str(tmp_path / "out"), str(tensor + (20 << 20))]
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "out" / "model.safetensors").stat().st_size > 3 * tensor


@pytest.mark.parametrize(
    ("write", "few"),
    [
        (hdf5, 500),
        (flax, 1000),
        (mindspore, 1000),
        (arrays, 500),
        (distributed, 125),
        (modules, 250),
    ],
)
def test_the_time_to_open_grows_as_the_entries(
    write: Callable[[Path, Shapes], None], few: int, tmp_path: Path
) -> None:
    seconds = []
    for count in (few, 8 * few):
        path = tmp_path / str(count)
        write(path, {f"layer{index}.weight": (1,) for index in range(count)})
        before = sum(os.times()[:4])
        open_any(path).close()
        seconds.append(sum(os.times()[:4]) - before)
    assert seconds[1] < 3 * 8 * max(seconds[0], 0.05)
