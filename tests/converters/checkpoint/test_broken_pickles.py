"""A pickle that is broken, or built to exhaust a reader, is refused within bounds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest

from converters.checkpoint import open_checkpoint
from converters.errors import InputError, UnsafeInputError
from tests.converters.checkpoint.compare import LAYOUTS
from tests.converters.checkpoint.files import in_zip, refusal, tensor_pickle

if TYPE_CHECKING:
    from pathlib import Path


def test_the_pickles_made_here_are_right_when_nothing_is_wrong_with_them(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(in_zip(tensor_pickle()))
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        assert checkpoint.array(tree["t"]).tolist() == [1.0, 2.0]


WRONG_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "beyond": ({"shape": (3,)}, r"needs 3 elements of archive/data/0, which has 2"),
    "offset": ({"offset": 1}, r"needs 3 elements of archive/data/0, which has 2"),
    "stride": ({"stride": (2,)}, "needs 3 elements"),
    "huge": ({"shape": (2**40, 2**40), "stride": (1, 1)}, "needs .* elements"),
    "axes without end": ({"shape": (2**62,) * 10_000, "stride": (1,) * 10_000}, "more axes"),
    "overflow": ({"shape": (2**63,)}, "more axes or elements than a tensor can have"),
    "negative size": ({"shape": (-1,)}, "negative"),
    "negative stride": ({"stride": (-1,)}, "negative"),
    "negative offset": ({"offset": -1}, "negative"),
    "fraction": ({"shape": (1.5,)}, "not whole numbers"),
    "boolean": ({"shape": (True,)}, "not whole numbers"),
    "axes": ({"stride": (1, 1)}, "1 sizes but 2 strides"),
    "storage size": ({"numel": 3}, r"archive/data/0: has 8 bytes where data.pkl says 3 elements"),
    "storage missing": ({"key": "1"}, r"archive/data/1: is missing"),
    "storage outside": ({"key": "../byteorder"}, r"is missing"),
    "negative storage": ({"numel": -2}, "a storage of -2 elements"),
}


@pytest.mark.parametrize(("changes", "expected"), WRONG_TENSORS.values(), ids=WRONG_TENSORS)
def test_a_tensor_that_cannot_be_is_refused(
    changes: dict[str, Any], expected: str, tmp_path: Path
) -> None:
    message = refusal(in_zip(tensor_pickle(**changes)), tmp_path)
    assert re.search(expected, message), message


def test_an_expanded_tensor_cannot_fill_the_memory(tmp_path: Path) -> None:
    (tmp_path / "a.pth").write_bytes(in_zip(tensor_pickle(shape=(2**40,), stride=(0,))))
    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        with pytest.raises(InputError, match="expands to 4398046511104 bytes from 8"):
            checkpoint.array(tree["t"])


BROKEN_PICKLES = {
    "item of a list": (b"\x80\x02]K\x01K\x01s.", "sets items of a value of type list"),
    "append to a dict": (b"\x80\x02}K\x01a.", "appends to a value of type dict"),
    "member of a list": (b"\x80\x04](K\x01\x90.", "adds members to a value of type list"),
    "state of a list": (b"\x80\x02]}b.", "sets the state of a value of type list"),
    "endless key": (b"\x80\x02})" + b"2\x86" * 60 + b"K\x01s.", "a tuple as a key"),
    "deep key": (b"\x80\x02})" + b"\x85" * 100_000 + b"K\x01s.", "a tuple as a key"),
    "unhashable key": (b"\x80\x02}]K\x01s.", "a list as a key"),
    "empty stack": (b"\x80\x02R.", "takes what is not there"),
    "no memo": (b"\x80\x02h\x07.", "takes what is not there"),
    "odd escape in a name": (b"\x80\x02c\\K\nx\nh\x07.", "GLOBAL in an unusual spelling"),
    "no mark": (b"\x80\x02K\x01t.", "takes what is not there"),
    "call of a number": (b"\x80\x02K\x01)R.", "calls a value of type int"),
    "odd items": (b"\x80\x02}(K\x01u.", "a key without a value"),
    "protocol 9": (b"\x80\x09}.", "pickle protocol 9"),
    "persistent text": (b"\x80\x02Pabc\n.", "PERSID has no place in a checkpoint"),
    "other reference": (b"\x80\x02K\x01\x85Q.", "neither a storage nor a module"),
    "other storage": (
        b"\x80\x02(U\x07storageca\nb\nU\x010U\x03cpuK\x02tQ.",
        "unknown kind of storage a.b",
    ),
    "unknown opcode": (b"\x80\x02\xff.", "instruction at byte 0 is wrong"),
    "cut": (b"\x80\x02}U\xffabc", "is truncated, it ends at byte 8"),
    "huge string": (b"\x80\x04\x8d\x00\x00\x00\x00\x01\x00\x00\x00.", "a string of 4294967296"),
    "list in itself": (b"\x80\x02]q\x00h\x00a.", "nested more than 200 deep"),
    "deep": (b"\x80\x02" + b"]" * 1000 + b"a" * 999 + b".", "nested more than 200 deep"),
    "doubling": (b"\x80\x02)" + b"2\x86" * 60 + b".", "nested without end"),
    "copies": (
        b"\x80\x02c__builtin__\nlist\nq\x00](" + b"N" * 100_000 + b"eq\x010"
        b"(" + b"h\x00h\x01\x85R" * 300 + b"l.",
        "copied again and again",
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("data", "expected"), BROKEN_PICKLES.values(), ids=BROKEN_PICKLES)
def test_a_broken_pickle_is_refused_within_bounds(
    data: bytes, expected: str, layout: str, tmp_path: Path
) -> None:
    if layout == "zip":
        message = refusal(in_zip(data), tmp_path)
        assert expected in message
        assert message.startswith("model.pyth, archive/data.pkl: ")
    else:
        # Alone it is no file of torch's, and may name the class of anybody.
        refusal(data, tmp_path, UnsafeInputError if b"ca\nb" in data else InputError)


@pytest.mark.parametrize(
    ("limit", "expected"),
    [
        ("pickle_machine.MAX_OPCODES", "more than 10 instructions"),
        ("zip_container.MAX_PICKLE", "bytes, too many for a checkpoint"),
    ],
)
def test_a_pickle_longer_than_any_real_one_is_refused(
    limit: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"converters.checkpoint.{limit}", 10)
    assert expected in refusal(in_zip(tensor_pickle()), tmp_path)
