"""Mapped tensors are those that the safetensors library reads, whatever the file's size."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from regnet.files.mapped_file import map_tensors
from regnet.files.safetensors_file import TensorSpec, header_bytes

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]


def same_bytes(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.equal(one.reshape(-1).view(torch.uint8), other.reshape(-1).view(torch.uint8))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_every_type_is_read_as_the_library_reads_it(dtype: torch.dtype, tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    values = torch.arange(24).reshape(2, 3, 4)
    tensors = {
        "cube": values,
        "scalar": values[0, 0, 1],
        "nothing": values[:, :0],
    }  # copied, for the library refuses views
    save_file({name: tensor.to(dtype).clone() for name, tensor in tensors.items()}, path)
    mapped = map_tensors(path)
    for name, expected in load_file(path).items():
        assert mapped[name].dtype == expected.dtype
        assert mapped[name].shape == expected.shape
        assert same_bytes(mapped[name], expected), name
    assert len(mapped) == 3


def test_tensors_at_odd_places_are_read_and_aligned(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    entry = {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]}
    header = json.dumps({"odd": entry}).encode()
    header += b" " * ((1 - len(header)) % 4)
    expected = torch.tensor([1.0, -2.0, 3.5])
    path.write_bytes(len(header).to_bytes(8, "little") + header + expected.numpy().tobytes())
    tensor = map_tensors(path)["odd"]
    assert torch.equal(tensor, expected)
    assert tensor.data_ptr() % 4 == 0


def test_writing_to_a_tensor_changes_neither_the_file_nor_its_neighbours(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(1000), "b": torch.ones(1000)}, path)
    before = path.read_bytes()
    first, second = map_tensors(path), map_tensors(path)
    first["a"].zero_()
    assert path.read_bytes() == before
    assert torch.equal(first["b"], torch.ones(1000))
    assert torch.equal(second["a"], torch.ones(1000))


def test_tensors_outlive_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.arange(5000)}, path)
    tensor = map_tensors(path)["a"]
    path.unlink()
    assert torch.equal(tensor, torch.arange(5000))


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the size of its memory")
def test_a_file_larger_than_memory_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "huge.safetensors"
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    spec = TensorSpec("huge", "float32", (memory // 2,))
    header = header_bytes([spec])
    with path.open("wb") as file:
        file.write(header)
        file.truncate(len(header) + spec.nbytes)  # a hole, for which the disk stores nothing
    tensor = map_tensors(path)["huge"]
    assert tensor.nbytes > 1.9 * memory
    assert tensor[-1] == 0
