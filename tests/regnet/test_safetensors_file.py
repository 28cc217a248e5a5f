"""The safetensors writer against the safetensors library, byte for byte."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import safetensors.torch
import torch

from regnet.files.dtypes import ELEMENT_TYPES
from regnet.files.safetensors_file import (
    WEIGHTS_NAME,
    TensorSpec,
    in_file_order,
    parse_size,
    plan_shards,
    write_file,
)
from tests.oracles.transformers import identical

if TYPE_CHECKING:
    from pathlib import Path


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
