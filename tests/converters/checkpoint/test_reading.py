"""Bytes are read when asked for, in bounded memory, checked once, and from a still file."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from converters.checkpoint import Storage, StoredTensor, open_checkpoint
from converters.errors import InputError, StorageError
from tests.converters.checkpoint.compare import LAYOUTS, raw_bytes

MEGABYTE = 1 << 20


def save(tree: Any, path: Path, layout: str) -> Path:
    if layout == "safetensors":
        save_file(tree, path)
    else:
        torch.save(tree, path, _use_new_zipfile_serialization=LAYOUTS[layout])
    return path


def corrupt(path: Path, storage: Storage) -> None:
    """Flip one bit in the middle of a storage, keeping the file's time of change."""
    times = path.stat()
    with path.open("r+b") as file:
        file.seek(storage.offset + storage.length // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x10]))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def tensors_of(path: Path) -> dict[str, StoredTensor]:
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        return dict(tree)


def base_and_views() -> dict[str, torch.Tensor]:
    base = torch.arange(3_000_000, dtype=torch.float32).reshape(3, 1000, 1000)
    return {"whole": base, "part": base[1], "transposed": base[2].T, "other": torch.ones(9)}


@pytest.mark.parametrize("read", ["whole", "part", "transposed"])
def test_a_flipped_bit_is_found_through_every_view_of_the_storage(
    read: str, tmp_path: Path
) -> None:
    path = save(base_and_views(), tmp_path / "a.pth", "zip")
    storage = tensors_of(path)["whole"].storage
    corrupt(path, storage)
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        with pytest.raises(InputError, match=f"{storage.label}: is damaged.*checksum"):
            list(checkpoint.chunks(tree[read]))
        with pytest.raises(InputError, match="checksum"):
            checkpoint.array(tree[read])
        assert checkpoint.array(tree["other"]).sum() == 9


@pytest.mark.parametrize("layout", LAYOUTS)
def test_storages_nobody_asks_for_are_not_read(layout: str, tmp_path: Path) -> None:
    tree = {"model": torch.ones(8), "optimizer": torch.zeros(5_000_000)}
    path = save(tree, tmp_path / "a.pth", layout)
    corrupt(path, tensors_of(path)["optimizer"].storage)
    before = bytes_read()
    with open_checkpoint(path) as checkpoint:
        loaded: Any = checkpoint.tree
        assert checkpoint.array(loaded["model"]).tolist() == [1.0] * 8
    assert bytes_read() - before < path.stat().st_size / 20


def bytes_read() -> int:
    """Return how many bytes this process has asked the system for since it started."""
    counters = Path("/proc/self/io")
    if not counters.exists():
        pytest.skip("the system does not count what a process reads")
    return int(counters.read_text().split()[1])


def test_a_storage_is_checked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(base_and_views(), tmp_path / "a.pth", "zip")
    read = []
    pread = os.pread
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        monkeypatch.setattr(os, "pread", lambda *a: read.append(a[1]) or pread(*a))
        list(checkpoint.chunks(tree["whole"]))
        assert sum(read) == 12_000_000
        list(checkpoint.chunks(tree["part"]))
        assert sum(read) == 16_000_000


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
def test_chunks_hold_one_chunk_in_memory(layout: str, tmp_path: Path) -> None:
    weight = torch.randn(64 * MEGABYTE // 4)
    path = save({"weight": weight}, tmp_path / "a.pth", layout)
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        tracemalloc.start()
        sizes = [len(chunk) for chunk in checkpoint.chunks(tree["weight"])]
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert sum(sizes) == 64 * MEGABYTE
    assert peak < 4 * MEGABYTE


def test_a_part_of_a_storage_is_read_alone(tmp_path: Path) -> None:
    tree = base_and_views()
    path = save(tree, tmp_path / "a.pth", "legacy")
    with open_checkpoint(path) as checkpoint:
        loaded: Any = checkpoint.tree
        before = bytes_read()
        assert b"".join(checkpoint.chunks(loaded["part"])) == raw_bytes(tree["part"])
        assert bytes_read() - before < 4_100_000


def test_arrays_own_their_memory(tmp_path: Path) -> None:
    path = save(base_and_views(), tmp_path / "a.pth", "zip")
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        first, second = checkpoint.array(tree["part"]), checkpoint.array(tree["part"])
        first += 1
        assert not np.shares_memory(first, second)
    assert second[0, 0] == 1_000_000


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
@pytest.mark.parametrize("change", ["append", "truncate", "touch"])
def test_a_file_that_changes_is_an_error_of_the_environment(
    change: str, layout: str, tmp_path: Path
) -> None:
    path = save({"weight": torch.randn(1000)}, tmp_path / "a.pth", layout)
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        if change == "append":
            with path.open("ab") as file:
                file.write(b"more")
        elif change == "truncate":
            os.truncate(path, tree["weight"].storage.offset + 100)
        else:
            os.utime(path, (1, 1))
        with pytest.raises(StorageError, match=r"^a\.pth: changed while it was being read; "):
            list(checkpoint.chunks(tree["weight"]))


def test_a_device_that_fails_is_an_error_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = save({"weight": torch.randn(1000)}, tmp_path / "a.pth", "zip")

    def fail(*_: int) -> bytes:
        raise OSError(5, "Input/output error")

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(StorageError, match="Input/output error"):
            checkpoint.array(tree["weight"])


@pytest.mark.parametrize("layout", [*LAYOUTS, "safetensors"])
def test_opening_imports_neither_torch_nor_numpy(layout: str, tmp_path: Path) -> None:
    path = save({"weight": torch.randn(1000)}, tmp_path / "a.pth", layout)
    program = (
        "import sys; from pathlib import Path; from converters.checkpoint import open_checkpoint\n"
        "with open_checkpoint(Path(sys.argv[1])) as checkpoint:\n"
        "    size = sum(map(len, checkpoint.chunks(checkpoint.tree['weight'])))\n"
        "print(size, sorted({'torch', 'numpy', 'safetensors', 'pickle'} & set(sys.modules)))"
    )
    run = subprocess.run(
        [sys.executable, "-c", program, str(path)], capture_output=True, text=True, check=True
    )
    # pickletools imports pickle for its opcodes; that it is never used, the refusals show.
    assert run.stdout.strip() == "4000 ['pickle']"
