"""Written as by the safetensors library, byte for byte; mapped as it reads, whatever the size."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch
from safetensors.torch import load_file, save_file

from regnet.files.dtypes import ELEMENT_TYPES
from regnet.files.safetensors_file import (
    WEIGHTS_NAME,
    TensorSpec,
    header_bytes,
    in_file_order,
    map_tensors,
    parse_size,
    plan_shards,
    write_file,
)
from tests.oracles.transformers import identical

if TYPE_CHECKING:
    from pathlib import Path

DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16),
    *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2),
]


def test_the_format_is_that_of_the_safetensors_library(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        "b.half": torch.randn(3, generator=generator).half(),
        "counter": torch.tensor(2**40 + 1),
        "a.double": torch.randn(2, 2, generator=generator).double(),
        "brain": torch.randn(5, 1, 3, generator=generator).bfloat16(),
        "single": torch.randn(7, generator=generator),
        "empty": torch.zeros(0, 3),
        "Ümlaut": torch.zeros(1),
        **{
            f"of {name}": torch.zeros(2, dtype=getattr(torch, name))
            for name, kind in ELEMENT_TYPES.items()
            if kind.safetensors
        },
    }
    specs = [
        TensorSpec(name, str(tensor.dtype)[6:], tuple(tensor.shape))
        for name, tensor in sorted(tensors.items())  # the library's order; ours is the one given
    ]
    path = tmp_path / "some.safetensors"

    def in_chunks_of_three(spec: TensorSpec) -> list[bytes]:
        raw = bytes(tensors[spec.name].reshape(-1).view(torch.uint8).tolist())
        return [raw[start : start + 3] for start in range(0, len(raw), 3)]

    write_file(path, specs, in_chunks_of_three)
    assert path.read_bytes() == safetensors.torch.save(tensors, metadata={"format": "pt"})
    assert identical(
        dict(sorted(safetensors.torch.load_file(path).items())), dict(sorted(tensors.items()))
    )


def test_wider_dtypes_come_first_and_the_order_given_is_kept_within_one() -> None:
    specs = [
        TensorSpec(name, dtype, (1,))
        for name, dtype in [
            ("z", "float32"),
            ("half", "float16"),
            ("count", "int64"),
            ("a", "float32"),
        ]
    ]

    assert [spec.name for spec in in_file_order(specs)] == ["count", "z", "a", "half"]


@pytest.mark.parametrize("given", [15, 17], ids=["too few", "too many"])
def test_bytes_that_do_not_fill_their_tensor_are_refused(given: int, tmp_path: Path) -> None:
    spec = TensorSpec("weight", "float32", (2, 2))
    with pytest.raises(ValueError, match=f"weight gave {given} bytes where 16 belong"):
        write_file(tmp_path / "file", [spec], lambda _: [bytes(given)])


@pytest.mark.parametrize(
    ("text", "size"),
    [("5GB", 5 * 10**9), ("500 MiB", 500 * 2**20), ("10kb", 10_000), (123, 123), (" 7 ", 7)],
)
def test_sizes_are_read_as_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GB", "-5GB", "five", "5 parsecs", "0", 0])
def test_what_is_no_size_is_refused(text: str | int) -> None:
    with pytest.raises(ValueError, match="is not a size"):
        parse_size(text)


def test_no_tensors_are_one_file() -> None:
    assert [shard.file_name for shard in plan_shards([], 10)] == [WEIGHTS_NAME]


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
