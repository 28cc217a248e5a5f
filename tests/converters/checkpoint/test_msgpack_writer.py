"""What is written as msgpack has the bytes that flax gives it, and msgpack reads it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgpack
import numpy as np
import pytest

from converters.checkpoint import msgpack_writer, open_checkpoint
from converters.checkpoint.array import Array
from converters.checkpoint.msgpack_writer import write_msgpack
from tests.converters.checkpoint.test_msgpack import packed, packed_array

if TYPE_CHECKING:
    from pathlib import Path

SIZES = (0, 1, 3, 4, 31, 32, 127, 128, 255, 256, 65535, 65536)
"""Those around which msgpack's forms change."""


def array_of(values: np.ndarray, piece: int = 1000) -> Array:
    content = values.tobytes()
    chunks = [content[at : at + piece] for at in range(0, len(content), piece)]
    return Array(values.dtype.name, values.shape, lambda: chunks)


def drawn(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(len(shape)).uniform(-9, 9, shape).astype(dtype)


@pytest.mark.parametrize("size", SIZES)
def test_numbers_and_lengths_are_written_in_their_shortest_form(size: int, tmp_path: Path) -> None:
    held = {str(number): drawn(1) for number in range(size if size < 300 else 0)}
    tree = {"n" * size: drawn(size, dtype="int8"), "w": held, "x": {"y": drawn(1, size, 1)}}

    write_msgpack(
        tmp_path / "net",
        {
            key: {k: array_of(v) for k, v in held.items()}
            if isinstance(held, dict)
            else array_of(held)
            for key, held in tree.items()
        },
    )

    assert (tmp_path / "net").read_bytes() == packed(tree)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_type_is_written_under_its_name(dtype: str, tmp_path: Path) -> None:
    write_msgpack(tmp_path / "net", {"params": {"w": array_of(drawn(2, 3, dtype=dtype))}})

    assert (tmp_path / "net").read_bytes() == packed({"params": {"w": drawn(2, 3, dtype=dtype)}})


def as_flax_cuts(array: np.ndarray, step: int) -> dict[str, object]:
    """By the lines of flax's ``_chunk``."""
    flat = array.reshape(-1)
    pieces = [flat[at : at + step] for at in range(0, flat.size, step)]
    numbered = {str(number): piece for number, piece in enumerate(pieces)}
    shape = {str(axis): size for axis, size in enumerate(array.shape)}
    return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": numbered}


def cut(tree: object) -> bytes:
    """As :func:`packed`, but true is true and integers are integers."""

    def pack(value: np.ndarray) -> msgpack.ExtType:
        return msgpack.ExtType(1, packed_array(value))

    return bytes(msgpack.packb(tree, default=pack, strict_types=True))


@pytest.mark.parametrize(("shape", "step"), [((5, 7), 10), ((4, 5), 10), ((9,), 1)])
@pytest.mark.parametrize("piece", [1, 7, 40, 1000])
def test_what_is_larger_than_the_limit_is_cut_as_flax_cuts_it(
    shape: tuple[int, ...], step: int, piece: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgpack_writer, "MAX_CHUNK", 4 * step)  # one element has four bytes
    small, large = drawn(step), drawn(*shape)

    path = tmp_path / "net"
    write_msgpack(path, {"params": {"a": array_of(small), "w": array_of(large, piece)}})

    assert path.read_bytes() == cut({"params": {"a": small, "w": as_flax_cuts(large, step)}})
    with open_checkpoint(path) as checkpoint:
        read = checkpoint.array(checkpoint.tree["w"])  # type: ignore[index, call-overload]
        assert (read == large).all()


def test_an_array_is_cut_whose_elements_are_larger_than_the_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(msgpack_writer, "MAX_CHUNK", 3)
    write_msgpack(tmp_path / "net", {"params": {"w": array_of(drawn(2))}})

    assert (tmp_path / "net").read_bytes() == cut({"params": {"w": as_flax_cuts(drawn(2), 1)}})


def test_elements_that_are_too_few_are_an_error(tmp_path: Path) -> None:
    array = Array("float32", (3,), lambda: [b"\0" * 8])

    with pytest.raises(ValueError, match="gave 8 bytes where 12 belong"):
        write_msgpack(tmp_path / "net", {"w": array})
