"""NumPy's arrays in pickles: read where they lie, in every form that NumPy writes."""

from __future__ import annotations

import pickle
import tracemalloc
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from converters.checkpoint import Opaque, StoredTensor, open_checkpoint
from converters.checkpoint.pickle_arrays import kind_of
from converters.errors import InputError
from tests.converters.checkpoint.compare import in_chunks
from tests.converters.checkpoint.files import in_zip, refusal

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CUBE = np.arange(-12, 12, dtype=np.float32).reshape(2, 3, 4) * np.float32(0.37)
ARRAYS = {
    "cube": CUBE,
    "vector": CUBE[0, 0] * 3,
    "fortran": np.asfortranarray(CUBE),
    "matrix, transposed": CUBE.reshape(6, 4).T,
    "view": CUBE[:, ::2],
    "scalar": np.array(7),
    "truth": CUBE > 0,
    "complex": CUBE.astype(np.complex64),
    **{kind: CUBE.astype(kind) for kind in ("f2", "f8", "i1", "i2", "i4", "i8", "u1", "u2")},
    "every byte": np.arange(256, dtype=np.uint8),
}

SAVERS: dict[str, Callable[[Any, int], bytes]] = {
    "plain": pickle.dumps,
    "torch's": lambda tree, protocol: in_zip(pickle.dumps(tree, protocol)),
}


def written(content: bytes, folder: Path) -> Path:
    (folder / "model.pkl").write_bytes(content)
    return folder / "model.pkl"


@pytest.mark.parametrize("protocol", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("saver", SAVERS)
def test_arrays_are_what_numpy_reads(saver: str, protocol: int, tmp_path: Path) -> None:
    path = written(SAVERS[saver]({"model": ARRAYS, "__author__": "x"}, protocol), tmp_path)

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert tree["__author__"] == "x"
        assert list(tree["model"]) == list(ARRAYS)
        for name, array in ARRAYS.items():
            stored = tree["model"][name]
            assert isinstance(stored, StoredTensor)
            assert stored.dtype == str(array.dtype)
            found = checkpoint.array(stored)
            assert (found.dtype, found.shape) == (array.dtype, array.shape)
            assert found.tobytes() == array.tobytes()
            assert in_chunks(checkpoint, stored, 24) == array.tobytes()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_the_order_of_fortran_is_strides_and_nothing_is_moved(
    protocol: int, tmp_path: Path
) -> None:
    path = written(pickle.dumps({"w": np.asfortranarray(CUBE)}, protocol), tmp_path)

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert tree["w"].stride == (1, 2, 6)


def test_bytes_that_lie_in_the_file_are_said_where_and_text_is_not(tmp_path: Path) -> None:
    for protocol, is_text in ((2, True), (3, False), (5, False)):
        path = written(pickle.dumps({"w": CUBE}, protocol), tmp_path)
        with open_checkpoint(path) as checkpoint:
            tree: Any = checkpoint.tree
            assert tree["w"].storage.is_text == is_text
            assert (tree["w"].runs is None) == is_text
            if not is_text:
                (run,) = tree["w"].runs
                content = path.read_bytes()[run.offset : run.end]
                assert content == CUBE.tobytes()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_array_that_is_used_twice_is_one(protocol: int, tmp_path: Path) -> None:
    path = written(pickle.dumps({"a": CUBE, "b": [CUBE, CUBE]}, protocol), tmp_path)

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert isinstance(tree["a"], StoredTensor)
        assert tree["b"] == [tree["a"], tree["a"]]


@pytest.mark.parametrize("protocol", [2, 4])
def test_opening_keeps_no_array_in_memory(protocol: int, tmp_path: Path) -> None:
    big = np.zeros((8, 1 << 20), np.float32)
    path = written(pickle.dumps({str(i): row for i, row in enumerate(big)}, protocol), tmp_path)

    tracemalloc.start()
    with open_checkpoint(path) as checkpoint:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert checkpoint.size > big.nbytes
    assert most < 1 << 20


UNREAD: dict[str, tuple[object, str]] = {
    "big-endian": (CUBE.astype(">f4"), "a NumPy array of a big-endian machine"),
    "objects": (np.array([1, None]), "a NumPy array of objects"),
    "texts": (np.array(["a"]), "a NumPy array"),
    "dates": (np.array(["2020-01-01"], "M8[D]"), "a NumPy array"),
    "records": (np.zeros(2, [("a", "f4")]), "a NumPy array"),
    "masked": (np.ma.masked_array(CUBE), "a numpy.ma._mareconstruct"),
}


@pytest.mark.parametrize("kind", UNREAD)
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_an_array_of_another_kind_is_a_note(kind: str, protocol: int, tmp_path: Path) -> None:
    array, words = UNREAD[kind]
    path = written(pickle.dumps({"w": CUBE, "other": array}, protocol), tmp_path)

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert isinstance(tree["other"], Opaque)
        if "_mareconstruct" not in words:
            assert kind_of(tree["other"]) == words


def changed(protocol: int, old: bytes, new: bytes) -> bytes:
    content = pickle.dumps({"w": CUBE}, protocol)
    assert content.count(old) == 1
    return content.replace(old, new)


SHAPE = b"K\x02K\x03K\x04\x87"
DISAGREE = {
    "too few bytes": changed(4, SHAPE, b"K\x02K\x03K\x05\x87"),
    "too many bytes": changed(4, SHAPE, b"K\x02K\x03K\x03\x87"),
    "too little text": changed(2, SHAPE, b"K\x02K\x63K\x04\x87"),
    "too much text": changed(2, SHAPE, b"K\x01K\x01K\x04\x87"),
    "too few bytes of a buffer": changed(5, SHAPE, b"K\x02K\x03K\x05\x87"),
    "more than there can be": changed(3, SHAPE, b"K\x02K\x03\x8a\x08" + b"\xff" * 7 + b"\x7f\x87"),
    "a negative size": changed(3, SHAPE, b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x18\x87"),
    "a size that is none": changed(3, SHAPE, b"K\x02K\x03\x88\x87"),
}


@pytest.mark.parametrize("content", DISAGREE.values(), ids=DISAGREE)
def test_a_shape_that_does_not_fit_the_bytes_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "an array " in refusal(content, tmp_path)


def test_a_text_that_ends_early_is_refused_when_it_is_read(tmp_path: Path) -> None:
    """How many bytes a text stands for is known only when it is read."""
    path = written(changed(2, SHAPE, b"K\x02K\x03K\x05\x87"), tmp_path)
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        with pytest.raises(InputError, match=r"the array at byte .* has 96 bytes, fewer than"):
            checkpoint.array(tree["w"])


def test_a_text_that_stands_for_no_bytes_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps({"w": np.full(4, 0x80, np.uint8)}, 2)
    for other in ("\u0100".encode(), b"\xff\xff"):
        path = written(content.replace("\x80".encode(), other, 1), tmp_path)
        with open_checkpoint(path) as checkpoint:
            tree: Any = checkpoint.tree
            with pytest.raises(InputError, match="is no text that stands for bytes"):
                checkpoint.array(tree["w"])


def program_of(*builds: bytes) -> bytes:
    """A pickle of one array that is built several times."""
    content = pickle.dumps({"w": np.zeros(2, np.float32)}, 3)
    made, _, rest = content.rpartition(b"b")
    return made + b"b" + b"".join(builds) + rest


def test_an_array_is_given_its_content_once(tmp_path: Path) -> None:
    """Another state would change what is in the tree already."""
    content = program_of(b"(K\x01K\x02\x85N\x89C\x08" + b"\0" * 8 + b"tb")
    assert "it sets the state of a value of type StoredTensor" in refusal(content, tmp_path)


def test_a_type_is_given_its_content_once(tmp_path: Path) -> None:
    content = pickle.dumps({"w": np.zeros(2, np.float32)}, 3)
    at = content.index(b"tq", content.index(b"numpy\ndtype")) + 3
    assert content[at : at + 1] == b"b"
    state = b"(K\x03U\x01>NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    twice = content[: at + 1] + state + content[at + 1 :]
    assert "it sets the state of numpy.dtype twice" in refusal(twice, tmp_path)


def test_a_pickle_of_arrays_that_goes_on_is_refused(tmp_path: Path) -> None:
    content = pickle.dumps({"w": CUBE}, 4)
    assert "goes on behind its end" in refusal(content + b"x", tmp_path)


@pytest.mark.parametrize("size", [40, 100, -30])
def test_a_pickle_of_arrays_that_ends_early_is_refused(size: int, tmp_path: Path) -> None:
    assert "is truncated" in refusal(pickle.dumps({"w": CUBE}, 4)[:size], tmp_path)


def test_torch_reads_the_same_network_of_arrays(tmp_path: Path) -> None:
    torch.save({"w": CUBE, "f": np.asfortranarray(CUBE)}, tmp_path / "a.pth")
    theirs = torch.load(tmp_path / "a.pth", weights_only=False)

    with open_checkpoint(tmp_path / "a.pth") as checkpoint:
        tree: Any = checkpoint.tree
        for name, array in theirs.items():
            assert np.array_equal(checkpoint.array(tree[name]), array)
