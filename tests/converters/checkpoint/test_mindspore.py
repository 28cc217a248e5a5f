"""MindSpore's container: what is read of it, and what breaks a rule of it and is refused."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING
from zlib import crc32

import numpy as np
import pytest

from converters.checkpoint import StoredTensor, mindspore_container, open_checkpoint
from converters.checkpoint.security import inspect_security
from converters.errors import ConversionError, InputError, UnsafeInputError
from tests.converters.checkpoint.files import refusal
from tests.converters.checkpoint.mindspore_files import (
    Read,
    entry,
    number,
    of_array,
    run,
    tensor,
    theirs,
    varint,
)
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path

ARRAYS = {
    "stem.conv.weight": np.arange(54, dtype=np.float32).reshape(2, 3, 3, 3),
    "half": np.arange(6, dtype=np.float16).reshape(2, 3),
    "steps": np.array([3, -1], np.int64),
    "flags": np.array([True, False]),
    "scalar": np.array(2.5, np.float32),
}
WHOLE = b"".join(of_array(name, array) for name, array in ARRAYS.items())


def ours(path: Path) -> Read:
    """Name to axes, type and bytes of tensors."""
    kinds = {dtype: kind for kind, dtype in mindspore_container._TYPES.items()}
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.container == "mindspore"
        assert isinstance(checkpoint.tree, dict)
        return {
            str(name): (t.shape, kinds[t.dtype], checkpoint.array(t).tobytes())
            for name, t in checkpoint.tree.items()
            if isinstance(t, StoredTensor)
        }


def test_tensors_are_read_as_they_were_saved(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(WHOLE)

    with open_checkpoint(path) as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        for name, array in ARRAYS.items():
            read = checkpoint.array(checkpoint.tree[name])
            assert read.dtype == array.dtype
            assert np.array_equal(read, array)
            assert read.shape == array.shape


@pytest.mark.parametrize("network", ["x", "y", "odd"])
def test_recorded_files_are_read_as_protobuf_reads_them(network: str) -> None:
    path = RECORDED / "mindcv" / f"{network}.ckpt"
    data = path.read_bytes()
    if network == "odd":  # ends in a checksum
        assert data[-17:-10] == b"crc_num"
        data = data[:-17]
    expected = theirs(data)
    assert expected
    texts = {name for name, (_, kind, _) in expected.items() if kind == "str"}

    assert ours(path) == {n: read for n, read in expected.items() if n not in texts}
    assert texts == ({"note"} if network == "x" else set())


def test_a_text_is_a_text() -> None:
    with open_checkpoint(RECORDED / "mindcv" / "x.ckpt") as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        assert checkpoint.tree["note"] == "a"


def test_large_tensors_are_in_pieces() -> None:
    with open_checkpoint(RECORDED / "mindcv" / "odd.ckpt") as checkpoint:
        assert isinstance(checkpoint.tree, dict)
        pieces = [len(t.pieces) for t in checkpoint.tree.values()]
    assert max(pieces) > 2
    assert 0 in pieces


BROKEN: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "name twice": (
        entry("a") + entry("b") + entry("a"),
        UnsafeInputError,
        "has the name 'a' twice",
    ),
    "cut content": (entry()[:-1], InputError, "is truncated, it has 27 bytes"),
    "cut number": (entry() + b"\x0a\xff", InputError, "a number in it does not end"),
    "endless number": (entry() + b"\x0a" + b"\xff" * 30, InputError, "does not end"),
    "huge length": (entry() + b"\x0a" + varint(1 << 62), InputError, "is truncated"),
    "beyond its entry": (
        run(1, run(1, "a") + b"\x12\x20\x08\x02") + entry("b") * 2,
        InputError,
        "goes beyond the one that it is in",
    ),
    "unknown field": (entry() + run(2, "x"), InputError, "that MindSpore does not write"),
    "a number beside": (entry() + number(1, 3), InputError, "that MindSpore does not write"),
    "a group": (entry() + b"\x0b\x0c", InputError, "that MindSpore does not write"),
    "tensor twice": (entry(more=run(2, tensor())), InputError, "has a field twice"),
    "tag twice": (entry(more=run(1, "b")), InputError, "has a field twice"),
    "type twice": (entry("a", tensor(more=run(2, "Int8"))), InputError, "has a field twice"),
    "content twice": (entry("a", tensor(more=run(3, b""))), InputError, "has a field twice"),
    "field of a tensor": (entry("a", tensor(more=run(4, b""))), InputError, "does not write"),
    "packed axes": (entry("a", tensor((), more=run(1, b"\x02"))), InputError, "does not write"),
    "no tensor": (entry() + run(1, run(1, "b")), InputError, "lacks a name or a tensor"),
    "no name": (entry() + run(1, run(2, tensor())), InputError, "lacks a name or a tensor"),
    "no type": (entry("a", number(1, 2) + run(3, bytes(8))), InputError, "lacks its type"),
    "no content": (entry("a", number(1, 2) + run(2, "Float32")), InputError, "lacks its type"),
    "map": (
        entry() + run(1, run(1, "b") + run(3, run(1, tensor()))),
        InputError,
        "or one that holds no tensor",
    ),
    "other span": (entry("a", tensor((3,))), InputError, "'a' has other bytes than"),
    "negative": (entry("a", tensor(((1 << 64) - 2,))), InputError, "a size that cannot be"),
    "overflow": (entry("a", tensor((1 << 62, 4))), InputError, "'a' has other bytes than"),
    "axes": (entry("a", tensor((1,) * 65, content=bytes(4))), InputError, "does not write"),
    "type": (entry("a", tensor(kind="Int4")), InputError, "has the unsupported type Int4"),
    "name's bytes": (entry() + entry(b"\xff"), InputError, "is no text"),
    "long name": (entry() + entry("long" * 1000), InputError, "has 4000 bytes, more than 1024"),
    "pieces of two shapes": (
        entry("a", tensor((4,))) + entry("a", tensor((5,))),
        InputError,
        "the pieces of 'a' have several shapes or types",
    ),
    "odd pieces": (
        entry("a", tensor((4,), content=bytes(6))) + entry("a", tensor((4,), content=bytes(10))),
        InputError,
        "'a' has other bytes than",
    ),
    "no text": (
        entry("a", tensor((0,), "str", b"\xff\xff\xff\xff")),
        InputError,
        "is said to be a text and is none",
    ),
    "long text": (
        entry("a", tensor((0,), "str", bytes(1 << 17))),
        InputError,
        "is a text of more than 65536 bytes",
    ),
    "checksum": (
        entry() + b"crc_num" + bytes(10),
        InputError,
        "it has another checksum than it states",
    ),
    "behind its end": (entry() + b"PK\3\4", InputError, "that MindSpore does not write"),
}


@pytest.mark.parametrize(("content", "kind", "expected"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_breaks_a_rule_is_refused(
    content: bytes, kind: type[ConversionError], expected: str, tmp_path: Path
) -> None:
    message = refusal(content, tmp_path, kind)
    assert expected in message
    assert len(message) < 300


def test_entries_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mindspore_container, "MAX_ENTRIES", 4)
    assert "more than 4 entries" in refusal(WHOLE, tmp_path)


def test_a_checksum_is_of_all_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.ckpt"
    path.write_bytes(WHOLE + b"crc_num" + crc32(WHOLE).to_bytes(10, "big"))

    assert ours(path) == theirs(WHOLE)


@pytest.mark.parametrize(
    "content",
    [
        run(1, run(1, "Placeholder") + run(2, "Placeholder") + run(5, b"")),  # TensorFlow's graph
        run(1, "0.1.1") + run(2, "MindSpore") + run(3, "1"),  # MindIR
        run(1, "layers") * 40,
        b"\n",
        b"\n\x05\n",
    ],
)
def test_other_messages_are_no_checkpoints(content: bytes, tmp_path: Path) -> None:
    assert "is no checkpoint of a known kind" in refusal(content, tmp_path)


def test_what_was_changed_is_refused_or_read_as_protobuf_reads_it(tmp_path: Path) -> None:
    draw = random.Random(5)  # noqa: S311
    path, taken = tmp_path / "model.ckpt", 0
    pieces = WHOLE + entry("b", tensor((4,))) + entry("b", tensor((4,)))
    for _ in range(3000):
        data = bytearray(pieces)
        for _ in range(draw.choice((1, 1, 2, 3))):
            at = draw.randrange(len(data))
            data[at : at + draw.randrange(3)] = draw.randbytes(draw.choice((0, 1, 1, 2)))
        path.write_bytes(data)
        try:
            read = ours(path)
        except ConversionError:
            continue
        except AssertionError:  # another kind of file
            continue
        taken += 1
        assert read == theirs(bytes(data))
    assert taken > 300


def test_it_runs_nothing_and_says_so() -> None:
    report = inspect_security(RECORDED / "mindcv" / "y.ckpt")

    assert report.kind == "mindspore"
    assert report.harmless
    assert report.pickles == ()
