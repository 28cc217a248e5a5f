"""Flax's msgpack: what is read is what flax reads, and what breaks a rule is one sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgpack
import numpy as np
import pytest

from converters.checkpoint import Opaque, open_checkpoint
from converters.checkpoint.msgpack_container import MAX_DEPTH, MAX_VALUES
from converters.checkpoint.pickle_machine import MAX_OPCODES
from converters.checkpoint.security import inspect_security
from converters.errors import UnsafeInputError
from tests.converters.checkpoint.files import refusal
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path


def packed_array(array: np.ndarray, **changes: Any) -> bytes:
    """The payload of an array's extension, as flax/serialization.py makes it."""
    said = {"shape": array.shape, "dtype": array.dtype.name, "bytes": array.tobytes()} | changes
    return bytes(msgpack.packb(tuple(said.values()), use_bin_type=True))


def packed(tree: Any) -> bytes:
    """A tree in msgpack, arrays in extensions of type 1 and scalars of type 3."""

    def pack(value: Any) -> msgpack.ExtType:
        kind = 1 if isinstance(value, np.ndarray) else 3
        return msgpack.ExtType(kind, packed_array(np.asarray(value)))

    return bytes(msgpack.packb(tree, default=pack, strict_types=True))


def extension(payload: bytes, kind: int = 1) -> bytes:
    return bytes(msgpack.packb({"params": {"w": msgpack.ExtType(kind, payload)}}))


def theirs(content: bytes) -> Any:
    """What flax's own reader makes of a file, by its lines."""

    def unpack(kind: int, payload: bytes) -> Any:
        assert kind in {1, 3}
        shape, dtype, elements = msgpack.unpackb(payload, raw=True)
        return np.frombuffer(elements, dtype.decode()).reshape(shape)

    return msgpack.unpackb(content, ext_hook=unpack)


def leaves(tree: Any, prefix: str = "") -> dict[str, np.ndarray]:
    found = {}
    for key, value in tree.items():
        inner = leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else None
        found |= {f"{prefix}{key}": value} if inner is None else inner
    return found


@pytest.mark.parametrize("network", ["x", "y", "odd"])
def test_every_tensor_of_a_real_file_is_what_flax_reads(network: str) -> None:
    path = RECORDED / "flax" / f"{network}.msgpack"
    tree = theirs(path.read_bytes())
    expected = leaves(tree["params"]) | leaves(tree["batch_stats"])

    with open_checkpoint(path) as checkpoint:
        assert checkpoint.container == "msgpack"
        found: Any = checkpoint.tree
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert np.array_equal(checkpoint.array(found[name]), array)


def test_what_stands_beside_the_network_keeps_its_place(tmp_path: Path) -> None:
    tree = {
        "step": 70_000,
        "params": {"a": {"kernel": np.ones((2, 3), np.float16)}},
        "batch_stats": {"a": {"mean": np.zeros(3)}},
        "opt_state": {"0": {"count": np.int32(5), "mu": {"a": {"kernel": np.ones((2, 3))}}}},
        "rate": 1e-3, "negative": -40_000, "small": -3, "none": None, "yes": True, "raw": b"abc",
        "list": [1, "text"], "complex": msgpack.ExtType(2, msgpack.packb((1.0, 2.0))),
    }  # fmt: skip
    path = tmp_path / "state.msgpack"
    path.write_bytes(packed(tree))

    with open_checkpoint(path) as checkpoint:
        found: Any = checkpoint.tree
        assert found["a.kernel"].dtype == "float16"
        assert checkpoint.array(found["a.mean"]).tolist() == [0, 0, 0]
        assert checkpoint.array(found["opt_state"]["0"]["count"]) == 5
        assert found["opt_state"]["0"]["mu"]["a"]["kernel"].shape == (2, 3)
        for plain in ("step", "rate", "negative", "small", "none", "yes", "list"):
            assert found[plain] == tree[plain]
        assert isinstance(found["raw"], Opaque)
        assert isinstance(found["complex"], Opaque)


def test_a_bare_tree_is_joined_by_dots(tmp_path: Path) -> None:
    path = tmp_path / "bare.msgpack"
    path.write_bytes(packed({"a": {"b": {"c": np.arange(3.0)}}}))

    with open_checkpoint(path) as checkpoint:
        assert list(checkpoint.tree) == ["a.b.c"]  # type: ignore[arg-type]


def chunked(array: np.ndarray, size: int, **changes: Any) -> dict[str, Any]:
    flat = array.reshape(-1)
    pieces = [flat[start : start + size] for start in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(axis): length for axis, length in enumerate(array.shape)},
        "chunks": {str(index): piece for index, piece in enumerate(pieces)},
    } | changes


def test_an_array_in_chunks_is_one_tensor(tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    path = tmp_path / "chunks.msgpack"
    path.write_bytes(packed({"params": {"w": chunked(array, 7)}}))

    with open_checkpoint(path) as checkpoint:
        found: Any = checkpoint.tree
        assert np.array_equal(checkpoint.array(found["w"]), array)
        assert np.array_equal(
            checkpoint.array(found["w"].permuted((2, 0, 1))), array.transpose(2, 0, 1)
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": {"0": 3, "1": 4, "2": 6}},
        {"shape": {"0": 3, "2": 20}},
        {"shape": {"0": -3, "1": -20}},
        {"chunks": {}},
        {"chunks": {"0": np.ones((6, 10), np.float32)}},
        {"chunks": {"0": np.ones(30, np.float32), "1": np.ones(30, np.float64)}},
        {"chunks": 7},
    ],
)
def test_chunks_that_make_no_array_are_refused(changes: dict[str, Any], tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(3, 4, 5)
    content = packed({"params": {"w": chunked(array, 7, **changes)}})

    assert "the chunks of params.w are not those of one array" in refusal(content, tmp_path)


WHOLE = packed({"params": {"w": np.arange(6, dtype=np.float32)}, "batch_stats": {}})
ARRAY = np.arange(6, dtype=np.float32)

BROKEN = {
    "truncated in a tensor": (WHOLE[:40], "is truncated, it has 40 bytes and needs at least"),
    "truncated in a name": (WHOLE[:5], "is truncated, it has 5 bytes and needs at least 8"),
    "behind the end": (WHOLE + b"PK", "goes on behind its tree"),
    "claims a map without end": (b"\x81\xa1a\xdf\xff\xff\xff\xff", "is truncated"),
    "claims an array without end": (b"\x81\xa1a\xdd\xff\xff\xff\xff", "is truncated"),
    "claims a text without end": (b"\x81\xa1a\xdb\xff\xff\xff\xff", "a text claims 4294967295"),
    "claims bytes without end": (b"\x81\xa1a\xc6\xff\xff\xff\xff", "is truncated"),
    "claims an extension without end": (b"\x81\xa1a\xc9\xff\xff\xff\xff\x01", "is truncated"),
    "a code that is none": (b"\x81\xa1a\xc1", "a value begins with 0xc1 (byte 3)"),
    "a key that is no text": (b"\x82\xa1a\x01\x01\x01", "a key is of type int"),
    "a text that is none": (b"\x81\xa1a\xa1\xff", "a text is not UTF-8"),
    "another extension": (extension(b"", 77), "an extension is of type 77"),
    "no shape": (extension(msgpack.packb(7)), "is not shape, type and elements"),
    "an array that is empty": (extension(b"x"), "is not shape, type and elements"),
    "a shape that is a number": (extension(packed_array(ARRAY, shape=6)), "is not shape, type"),
    "a negative size": (extension(packed_array(ARRAY, shape=(-6,))), "sizes that cannot be"),
    "a size that is true": (extension(packed_array(ARRAY, shape=(True, 6))), "sizes that cannot"),
    "too many axes": (extension(packed_array(ARRAY, shape=(1,) * 65)), "sizes that cannot be"),
    "another shape": (extension(packed_array(ARRAY, shape=(7,))), "other bytes than its shape"),
    "an immense shape": (extension(packed_array(ARRAY, shape=(2**62, 4))), "other bytes than"),
    "an array that ends late": (extension(packed_array(ARRAY) + b"\0"), "other bytes than its"),
    "an array that ends early": (extension(packed_array(ARRAY)[:-1]), "other bytes than its"),
    "an array that is cut off": (extension(packed_array(ARRAY)[:6]), "an array goes on behind"),
    "text as elements": (extension(packed_array(ARRAY, dtype="str")), "unsupported type str"),
    "objects": (extension(packed_array(ARRAY, dtype="object")), "the unsupported type object"),
}


@pytest.mark.parametrize(("content", "expected"), BROKEN.values(), ids=BROKEN)
def test_what_breaks_a_rule_is_refused(content: bytes, expected: str, tmp_path: Path) -> None:
    assert expected in refusal(content, tmp_path)


def test_two_names_that_come_out_the_same_are_refused(tmp_path: Path) -> None:
    tree = {"params": {"a": {"b": ARRAY}, "a.b": ARRAY}}
    assert "has a.b twice" in refusal(packed(tree), tmp_path)
    tree = {"params": {"a": {"scale": ARRAY}}, "batch_stats": {"a": {"scale": ARRAY}}}
    assert "has a.scale twice" in refusal(packed(tree), tmp_path)


def test_a_key_that_occurs_twice_is_unsafe(tmp_path: Path) -> None:
    content = b"\x82" + 2 * (b"\xa1w" + packed(ARRAY))

    assert "has the key 'w' twice" in refusal(content, tmp_path, UnsafeInputError)


def test_depth_and_number_are_bounded(tmp_path: Path) -> None:
    deep = b"\x81\xa1a" * (MAX_DEPTH + 2) + b"\xc0"
    assert f"holds more than {MAX_DEPTH} levels" in refusal(deep, tmp_path)
    lists = b"\x81\xa1a" + b"\x91" * 5000 + b"\xc0"
    assert f"holds more than {MAX_DEPTH} levels" in refusal(lists, tmp_path)
    many = b"\x81\xa1a\xdd" + (MAX_VALUES + 1).to_bytes(4, "big") + bytes(MAX_VALUES + 1)
    assert f"holds more than {MAX_VALUES} values" in refusal(many, tmp_path)
    assert MAX_VALUES < MAX_OPCODES


def test_a_file_that_is_a_pickle_as_well_is_refused(tmp_path: Path) -> None:
    """A map's first byte and a text's may be the beginning of a text for a pickle."""
    pickle = b"cposix\nsystem\n(S'touch ran'\ntR."
    key = (b"\x8c\xa6", bytes(166 - 2), pickle)  # a map of 12 with a key of 38 bytes; a text of 166
    content = b"".join(key)

    assert "would run code" in refusal(content, tmp_path, UnsafeInputError)
    with_extension = b"\x82\xa6)R.par" + content  # which calls extension 166 of whoever loads it
    assert "would run code" in refusal(with_extension, tmp_path, UnsafeInputError)


def test_the_audit_says_what_it_is_and_that_nothing_runs() -> None:
    report = inspect_security(RECORDED / "flax" / "x.msgpack")

    assert (report.kind, report.pickles, report.refusal) == ("msgpack", (), None)
    assert report.harmless
