"""What is written as HDF5 is laid out as by Keras, whatever the time; its own reader takes it."""

from __future__ import annotations

import time
import tracemalloc
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from converters.checkpoint.array import Array
from converters.checkpoint.hdf5_writer import write_hdf5
from tests.converters.checkpoint.test_msgpack_writer import array_of, drawn

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def weights(count: int) -> dict[str, Array]:
    return {f"net/layer.{n}/kernel:0": array_of(drawn(n % 3 + 1, 2)) for n in range(count)}


def test_a_file_is_the_same_at_any_time(tmp_path: Path) -> None:
    for name in ("one", "other"):
        write_hdf5(tmp_path / name, {"b": weights(3), "a": {}}, "2.15.0")
        time.sleep(1.1)  # HDF5 counts seconds

    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_the_oldest_layouts_are_used(tmp_path: Path) -> None:
    """Which every h5py reads; newer ones write others by themselves."""
    write_hdf5(tmp_path / "net", {"a": weights(1)}, "2.15.0")

    superblock = (tmp_path / "net").read_bytes()[8]
    assert superblock == 0


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_elements_are_written_as_they_are(dtype: str, tmp_path: Path) -> None:
    array = drawn(3, 3, 4, 8, dtype=dtype)

    write_hdf5(tmp_path / "net", {"a": {"net/a/kernel:0": array_of(array, 5)}}, "2.15.0")

    with h5py.File(tmp_path / "net") as file:
        written = file["a/net/a/kernel:0"]
        assert written.dtype == array.dtype
        assert written.id.get_offset()  # in one piece
        assert np.array_equal(written[...], array)


def test_names_too_many_for_an_attribute_are_cut_as_keras_cuts_them(tmp_path: Path) -> None:
    many = {f"{'n' * 100}.{n}:0": array_of(drawn(1)) for n in range(1200)}

    write_hdf5(tmp_path / "net", {"a": many, "b": {}}, "2.15.0")

    with h5py.File(tmp_path / "net") as file:
        pieces = [np.asarray(file["a"].attrs[f"weight_names{n}"]) for n in range(2)]
        assert [*file["a"].attrs] == ["weight_names0", "weight_names1"]
    assert list(map(len, pieces)) == [600, 600]
    assert [name.decode() for piece in pieces for name in piece] == [*many]


def test_elements_that_are_too_few_are_an_error(tmp_path: Path) -> None:
    array = Array("float32", (3,), lambda: [b"\0" * 8])

    with pytest.raises(ValueError, match="gave 8 bytes where 12 belong"):
        write_hdf5(tmp_path / "net", {"a": {"net/w:0": array}}, "2.15.0")


def test_one_weight_is_in_memory(tmp_path: Path) -> None:
    def zeros() -> Iterator[bytes]:
        for _ in range(64):
            yield bytes(1 << 16)

    array = Array("float32", (1 << 20,), zeros)
    write_hdf5(tmp_path / "net", {"a": {}}, "2.15.0")  # imports what it needs
    tracemalloc.start()
    write_hdf5(tmp_path / "net", {"a": {f"net/{n}:0": array for n in range(8)}}, "2.15.0")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1.5 * array.nbytes
