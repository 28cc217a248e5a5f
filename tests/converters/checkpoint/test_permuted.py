"""Tensors under axes of another order: the same bytes, read as torch and numpy permute them."""

from __future__ import annotations

import tracemalloc
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters.checkpoint import StoredTensor, open_checkpoint
from converters.checkpoint.values import cut, join
from tests.converters.checkpoint.compare import in_chunks

if TYPE_CHECKING:
    from pathlib import Path

    from converters.checkpoint import Checkpoint

SHAPE = (4, 3, 2, 5)


def opened(folder: Path, tensors: dict[str, torch.Tensor], *, legacy: bool = False) -> Checkpoint:
    torch.save(tensors, folder / "net.pth", _use_new_zipfile_serialization=not legacy)
    return open_checkpoint(folder / "net.pth")


def stored(checkpoint: Checkpoint, name: str) -> StoredTensor:
    assert isinstance(checkpoint.tree, dict)
    tensor = checkpoint.tree[name]
    assert isinstance(tensor, StoredTensor)
    return tensor


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.int64])
def test_every_order_of_axes_is_torchs(dtype: torch.dtype, legacy: bool, tmp_path: Path) -> None:
    weight = torch.arange(120).reshape(SHAPE).to(dtype)
    with opened(tmp_path, {"a": weight}, legacy=legacy) as checkpoint:
        for axes in permutations(range(4)):
            theirs = weight.permute(axes)
            ours = stored(checkpoint, "a").permuted(axes)

            assert (ours.shape, ours.stride) == (tuple(theirs.shape), theirs.stride())
            dense = theirs.contiguous()
            plain = dense.view(torch.int16) if dtype is torch.bfloat16 else dense
            assert checkpoint.array(ours).tobytes() == plain.numpy().tobytes()
            for size in (7, 64, 1 << 20):
                assert in_chunks(checkpoint, ours, size) == plain.numpy().tobytes()


def test_there_and_back_is_the_tensor_itself(tmp_path: Path) -> None:
    with opened(tmp_path, {"a": torch.zeros(SHAPE)}) as checkpoint:
        tensor = stored(checkpoint, "a")

        assert tensor.permuted((3, 2, 0, 1)).permuted((2, 3, 1, 0)) == tensor
        assert tensor.permuted((3, 2, 0, 1)).runs is None


def test_axes_of_one_element_move_for_nothing(tmp_path: Path) -> None:
    with opened(tmp_path, {"a": torch.zeros(6, 1, 1, 5)}) as checkpoint:
        tensor = stored(checkpoint, "a").permuted((0, 3, 1, 2))

        assert tensor.shape == (6, 5, 1, 1)
        assert tensor.runs == stored(checkpoint, "a").runs


@pytest.mark.parametrize("axes", [(0, 1, 2, 3), (3, 2, 0, 1), (0, 3, 1, 2)])
def test_pieces_are_read_as_if_they_were_one(axes: tuple[int, ...], tmp_path: Path) -> None:
    whole = torch.arange(120, dtype=torch.float32)
    with opened(tmp_path, {"a": whole[:50].clone(), "b": whole[50:].clone()}) as checkpoint:
        pieces = [stored(checkpoint, "a"), stored(checkpoint, "b")]
        tensor = join(cut(pieces, 0, 120), SHAPE).permuted(axes)

        expected = whole.reshape(SHAPE).permute(axes).numpy()
        assert len(tensor.parts) == 2
        assert np.array_equal(checkpoint.array(tensor), expected)
        assert in_chunks(checkpoint, tensor, 16) == expected.tobytes()


def test_chunks_hold_the_tensor_once(tmp_path: Path) -> None:
    weight = torch.zeros(3, 3, 1000, 1000)
    with opened(tmp_path, {"a": weight}) as checkpoint:
        tensor = stored(checkpoint, "a").permuted((3, 2, 0, 1))
        tracemalloc.start()
        try:
            total = sum(map(len, checkpoint.chunks(tensor)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert total == weight.nbytes
    assert peak < weight.nbytes + 6e6
