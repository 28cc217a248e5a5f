"""A gigabyte passes through a process that may not have a quarter of it, and is read once."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from converters.checkpoint.digests import SourceDigest, sha256_of
from converters.errors import InputError, StorageError
from converters.families.options import SourceOptions
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from converters.weights.stream import write_weights
from tests.converters.giants import sparse_checkpoint, wide
from tests.converters.stored import in_pycls_words

CHECKOUT = Path(__file__).parents[3]
LIMITED = """
import resource, sys
from pathlib import Path

from converters.jobs.convert import convert

resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, 256 << 20))
source, out, dtype, shard = sys.argv[1:]
convert(
    Path(source),
    Path(out),
    dtype=dtype,
    max_shard_size=int(shard) or None,
    formats=(),
    force=True,
    verify=False,
)
print(sorted({"torch"} & set(sys.modules)))
"""


@pytest.fixture(scope="module")
def gigabyte(workspace: Path) -> Path:
    """A checkpoint with three tensors of 321 MB, more than the limit each."""
    path = sparse_checkpoint(workspace / "gigabyte.safetensors", wide(8960))
    assert path.stat().st_size > 1e9
    return path


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits RLIMIT_DATA as meant here")
@pytest.mark.parametrize(
    ("dtype", "shard", "files"),
    [("float32", 0, 1), ("bfloat16", 0, 1), ("float32", 330_000_000, 5)],
)
def test_a_gigabyte_passes_through_256_megabytes(
    gigabyte: Path, dtype: str, shard: int, files: int
) -> None:
    out = gigabyte.with_name("out")

    run = subprocess.run(
        [sys.executable, "-c", LIMITED, str(gigabyte), str(out), dtype, str(shard)],
        capture_output=True,
        text=True,
        check=False,
        cwd=CHECKOUT,
        env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
    )

    assert run.stderr == ""
    assert run.stdout == "[]\n"  # nor was torch imported
    written = sorted(out.glob("*.safetensors"))
    assert len(written) == files
    assert sum(path.stat().st_size for path in written) > 0.5e9
    assert same_everywhere(gigabyte, written, getattr(torch, dtype))


def same_everywhere(source: Path, written: list[Path], dtype: torch.dtype) -> bool:
    """Whether the sorted corners of all tensors agree; the marks lie anywhere in them."""
    ends = [Counter[tuple[Any, ...]](), Counter[tuple[Any, ...]]()]
    for counter, paths in zip(ends, ([source], written), strict=True):
        for path in paths:
            with safe_open(path, framework="pt") as file:
                for name in file.keys():  # noqa: SIM118 -- not a mapping
                    tensor = file.get_tensor(name).reshape(-1)
                    marks = tensor[tensor != 0].to(dtype).float().tolist()
                    counter[tensor.numel(), *marks] += 1
    return ends[0] == ends[1]


class Reads:
    """Counts what a process reads from one file, by whatever call."""

    def __init__(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._inode = path.stat().st_ino
        self.count = 0
        for name in ("pread", "copy_file_range"):
            monkeypatch.setattr(os, name, self._counting(getattr(os, name)))

    def _counting(self, call: Any) -> Any:
        def counted(descriptor: int, *args: Any) -> Any:
            result = call(descriptor, *args)
            if os.fstat(descriptor).st_ino == self._inode:
                self.count += result if isinstance(result, int) else len(result)
            return result

        return counted


def saved(path: Path, names: list[str] | None = None, *, legacy: bool = False) -> Path:
    """Save a network of some megabytes with random weights, in pycls's order or another."""
    generator = torch.Generator().manual_seed(0)
    shapes = in_pycls_words(wide(512))
    state = {
        name: torch.tensor(7)
        if name.endswith("num_batches_tracked")
        else torch.rand(shapes[name], generator=generator)
        for name in shapes
    }
    tree = {
        "model_state": {name: state[name] for name in names or state},
        "optimizer_state": torch.rand(100_000, generator=generator),
    }
    torch.save(tree, path, _use_new_zipfile_serialization=not legacy)
    return path


def written_from(path: Path, out: Path, dtype: Any = None) -> dict[str, str]:
    out.mkdir()
    with inspected(path, SourceOptions(), dtype) as (checkpoint, inspection):
        return dict(write_weights(checkpoint, inspection.plan, out).source)


@pytest.mark.parametrize("dtype", [None, "bfloat16", "float64"])
def test_the_source_is_read_once_for_weights_checksums_and_sha256(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str | None
) -> None:
    path = saved(tmp_path / "net.pyth")
    size, expected = path.stat().st_size, sha256_of(path)

    reads = Reads(path, monkeypatch)
    digests = written_from(path, tmp_path / "out", dtype)

    assert digests == {"net.pyth": expected}
    assert size <= reads.count < 1.02 * size  # the headers are read when it is opened, and the stem


@pytest.mark.parametrize("order", ["by name", "backwards", "by address"])
def test_a_source_in_another_order_is_read_twice_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, order: str
) -> None:
    names = sorted(in_pycls_words(wide(512)), reverse=order == "backwards")
    path = saved(tmp_path / "net.pyth", names, legacy=order == "by address")
    size, expected = path.stat().st_size, sha256_of(path)

    reads = Reads(path, monkeypatch)
    digests = written_from(path, tmp_path / "out")

    assert digests == {"net.pyth": expected}
    assert reads.count < 2.02 * size


def test_a_counter_at_the_end_does_not_make_the_weights_be_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(in_pycls_words(wide(512)))
    counters = [name for name in names if name.endswith("num_batches_tracked")]
    path = saved(tmp_path / "net.pyth", [name for name in names if name not in counters] + counters)

    reads = Reads(path, monkeypatch)
    written_from(path, tmp_path / "out")

    assert reads.count < 1.02 * path.stat().st_size


@pytest.mark.parametrize("dtype", [None, "float16"])
@pytest.mark.parametrize(
    "damage", [b"\x01\x02\x03\x3f", b"\xff\xff\x7f\x7f"], ids=["small", "huge"]
)
def test_damage_in_any_weight_is_found_while_it_is_copied(
    tmp_path: Path, damage: bytes, dtype: str | None
) -> None:
    path = saved(tmp_path / "net.pyth")
    with inspected(path, SourceOptions()) as (_, inspection):
        tensors = [step.tensor for step in inspection.plan.steps if step.tensor]
        storage = max((tensor.storage for tensor in tensors), key=lambda storage: storage.length)
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), damage, storage.offset + storage.length // 2)

    with pytest.raises(InputError, match=rf"net\.pyth, {storage.label}: is damaged, its bytes do"):
        written_from(path, tmp_path / "out", dtype)


@pytest.fixture
def six_bytes(tmp_path: Path) -> tuple[Path, tuple[int, int]]:
    path = tmp_path / "source"
    path.write_bytes(b"abcdef")
    status = path.stat()
    return path, (status.st_size, status.st_mtime_ns)


def test_a_digest_reads_what_it_is_not_fed_and_ignores_what_it_has(
    six_bytes: tuple[Path, tuple[int, int]],
) -> None:
    digest = SourceDigest(*six_bytes, storages=())

    for offset, data in [(1, b"bc"), (0, b"ab"), (2, b"cd"), (4, b"e")]:
        digest.feed(offset, data)

    assert digest.finish() == hashlib.sha256(b"abcdef").hexdigest()


def test_a_source_that_changes_before_its_digest_is_complete_is_refused(
    six_bytes: tuple[Path, tuple[int, int]],
) -> None:
    path, stamp = six_bytes
    digest = SourceDigest(path, stamp, storages=())
    digest.feed(0, b"abcdef")
    path.write_bytes(b"abcdefg")

    with pytest.raises(StorageError, match="changed while it was being read"):
        digest.finish()


def test_an_unverified_conversion_records_the_digests(tmp_path: Path) -> None:
    path, out = saved(tmp_path / "net.pyth"), tmp_path / "out"

    conversion = convert(path, out, formats=(), verify=False)

    record = json.loads((out / "conversion.json").read_text(encoding="utf-8"))
    assert conversion.report is None
    assert record["source"]["sha256"] == {"net.pyth": sha256_of(path)}
    assert {
        name: entry["sha256"] == sha256_of(out / name) for name, entry in record["files"].items()
    } == dict.fromkeys(
        ("README.md", "config.json", "model.safetensors", "preprocessor_config.json"), True
    )
