"""NumPy's archives of arrays: read where the elements lie."""

from __future__ import annotations

import io
import shutil
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from converters.checkpoint import Opaque, StoredTensor, open_checkpoint
from converters.checkpoint.pickle_arrays import kind_of
from converters.errors import InputError, UnsafeInputError
from tests.converters.checkpoint.compare import in_chunks
from tests.converters.checkpoint.test_numpy_arrays import ARRAYS, CUBE
from tests.converters.families.conversion import converted, refusal
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from pathlib import Path


def of_members(folder: Path, members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(folder / "net.npz", "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return folder / "net.npz"


def member(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    np.lib.format.write_array(buffer := io.BytesIO(), array, version)
    return buffer.getvalue()


def saved(folder: Path, **arrays: np.ndarray) -> Path:
    np.savez(folder / "net.npz", allow_pickle=True, **arrays)
    return folder / "net.npz"


def refused(path: Path, error: type[Exception] = InputError) -> str:
    with pytest.raises(error) as raised, open_checkpoint(path):
        pass
    return str(raised.value)


def test_arrays_are_what_numpy_reads(tmp_path: Path) -> None:
    with open_checkpoint(saved(tmp_path, **ARRAYS)) as checkpoint:
        tree: Any = checkpoint.tree
        assert checkpoint.container == "npz"
        assert list(tree) == list(ARRAYS)
        for name, array in ARRAYS.items():
            stored = tree[name]
            assert isinstance(stored, StoredTensor)
            assert (stored.dtype, stored.shape) == (str(array.dtype), array.shape)
            assert checkpoint.array(stored).tobytes() == array.tobytes()
            assert in_chunks(checkpoint, stored, 24) == array.tobytes()


def test_elements_are_copied_from_where_they_lie(tmp_path: Path) -> None:
    path = saved(tmp_path, first=CUBE[0], w=CUBE, turned=np.asfortranarray(CUBE))

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        (run,) = tree["w"].runs
        assert path.read_bytes()[run.offset : run.end] == CUBE.tobytes()
        assert tree["turned"].stride == (1, 2, 6)


@pytest.mark.parametrize("version", [(1, 0), (2, 0), (3, 0)])
def test_every_version_of_an_array_is_read(version: tuple[int, int], tmp_path: Path) -> None:
    path = of_members(tmp_path, {"w.npy": member(CUBE, version)})

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert np.array_equal(checkpoint.array(tree["w"]), CUBE)


def test_sizes_may_be_python_2s_and_folders_are_dots(tmp_path: Path) -> None:
    old = member(CUBE).replace(b"(2, 3, 4), }   ", b"(2L, 3L, 4L), }")
    path = of_members(tmp_path, {"a/b/w.npy": old})

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        assert tree["a.b.w"].shape == (2, 3, 4)


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path, w=CUBE)
    content = bytearray(path.read_bytes())
    content[content.index(CUBE.tobytes()) + 5] ^= 4
    path.write_bytes(content)

    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        with pytest.raises(InputError, match=r"w\.npy: is damaged, its bytes do not have"):
            checkpoint.array(tree["w"])


UNREAD = {
    "big-endian": (CUBE.astype(">f4"), "a NumPy array of a big-endian machine"),
    "texts": (np.array(["a"]), "a NumPy array"),
    "records": (np.zeros(2, [("a", "f4")]), "a NumPy array"),
}


@pytest.mark.parametrize("kind", UNREAD)
def test_arrays_of_other_kinds_are_left_alone(kind: str, tmp_path: Path) -> None:
    array, called = UNREAD[kind]

    with open_checkpoint(saved(tmp_path, other=array, w=CUBE)) as checkpoint:
        tree: Any = checkpoint.tree
        assert isinstance(tree["other"], Opaque)
        assert kind_of(tree["other"]) == called
        assert isinstance(tree["w"], StoredTensor)


def test_what_is_compressed_or_pickled_is_refused(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "net.npz", w=CUBE)
    assert "net.npz, w.npy: is compressed; unpack" in refused(tmp_path / "net.npz")

    objects = saved(tmp_path, w=CUBE, config=np.array({"depth": 3}))
    assert "config.npy: is an array of Python's objects, which NumPy unpickles" in refused(objects)


class Attack:
    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("run",)


def test_an_array_of_objects_that_runs_code_is_unsafe(tmp_path: Path) -> None:
    path = saved(tmp_path, w=CUBE, config=np.array([Attack()]))

    assert "would run code in programs that unpickle it" in refused(path, UnsafeInputError)


PLAIN = member(CUBE)
DAMAGED = {
    "cut": PLAIN[:-1],
    "longer": PLAIN + b"\0",
    "cut in its text": PLAIN[:40],
    "empty": b"",
    "no array": b"\x94" + PLAIN[1:],
    "another version": PLAIN[:6] + b"\x04" + PLAIN[7:],
    "a longer text": PLAIN[:8] + b"\xff\xff" + PLAIN[10:],
    "an unusual place": PLAIN[:8] + b"\x75\x00" + PLAIN[10:].replace(b" \n", b"\n"),
    "a long text": PLAIN[:8] + b"\xf6\x1f" + PLAIN[10:127].ljust(8182) + PLAIN[128:],
    "another shape": PLAIN.replace(b"(2, 3, 4)", b"(2, 3, 5)"),
    "no shape": PLAIN.replace(b"(2, 3, 4)", b"(2, 3, x)"),
    "a number in the place of a shape": PLAIN.replace(b"(2, 3, 4)", b"(24)     "),
    "a size that begins with a zero": PLAIN.replace(b"(2, 3, 4)", b"(2, 03,4)"),
    "a size of Python 2 in a later version": member(CUBE, (3, 0)).replace(
        b"(2, 3, 4), }", b"(2L,3,4), } "
    ),
    "a negative size": PLAIN.replace(b"(2, 3, 4)", b"(2, -3,4)"),
    "too large": PLAIN.replace(b"(2, 3, 4), }          ", b"(9223372036854775808,)"),
    "an expression": PLAIN.replace(b"(2, 3, 4)", b"open('a')"),
    "another order": PLAIN.replace(b"False", b"Wrong"),
}


@pytest.mark.parametrize("how", DAMAGED)
def test_a_damaged_array_is_refused(how: str, tmp_path: Path) -> None:
    assert how == "empty" or DAMAGED[how] != PLAIN
    path = of_members(tmp_path, {"a.npy": PLAIN, "w.npy": DAMAGED[how]})

    assert "net.npz, w.npy: is damaged" in refused(path)


def test_an_archive_that_programs_may_read_differently_is_unsafe(tmp_path: Path) -> None:
    path = of_members(tmp_path, {"w.npy": PLAIN})
    content = path.read_bytes()
    path.write_bytes(content[:30] + b"v" + content[31:])

    assert "calls the entry 'w.npy' differently in two places" in refused(path, UnsafeInputError)


def test_names_that_are_the_same_with_dots_are_refused(tmp_path: Path) -> None:
    path = of_members(tmp_path, {"a/b.npy": PLAIN, "a.b.npy": PLAIN})

    assert "has two arrays called 'a.b'" in refused(path, UnsafeInputError)


def test_a_name_by_which_numpy_finds_another_array_is_refused(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {"a": CUBE, "a.npy": -CUBE}
    path = saved(tmp_path, **arrays)

    with np.load(path) as theirs:
        assert np.array_equal(theirs["a.npy"], CUBE)
    assert "has two arrays called 'a.npy'" in refused(path, UnsafeInputError)


def test_an_archive_of_other_things_too_is_none_of_arrays(tmp_path: Path) -> None:
    path = of_members(tmp_path, {"a.npy": PLAIN, "readme.txt": b"text"})

    assert "is a zip archive but no checkpoint" in refused(path)


def test_one_array_is_no_checkpoint(tmp_path: Path) -> None:
    np.save(tmp_path / "net.npy", CUBE)

    message = refused(tmp_path / "net.npy")
    assert message == (
        "net.npy: is a NumPy array without a name; save the state dict with numpy.savez."
    )


def test_a_state_dict_converts_to_the_same_bytes_and_a_flipped_bit_in_it_is_found(
    tmp_path: Path,
) -> None:
    source = RECORDED / "mlx-image" / "y.safetensors"
    path = saved(tmp_path, **load_file(source))

    done = converted(path)

    shutil.copy(source, tmp_path / "net.safetensors")
    plain = converted(tmp_path / "net.safetensors")
    ours, theirs = ((one.out / "model.safetensors").read_bytes() for one in (done, plain))
    assert ours == theirs
    content = bytearray(path.read_bytes())
    content[content.index(load_file(source)["fc.weight"].tobytes()) + 5] ^= 4
    path.write_bytes(content)
    assert "is damaged, its bytes do not have" in refusal(lambda: converted(path), "net.npz")
