"""HDF5: what is read is what h5py reads, and what leads elsewhere or breaks a rule is refused."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from converters.checkpoint import hdf5_container, open_checkpoint
from converters.checkpoint.hdf5_child import described
from converters.checkpoint.hdf5_container import read_hdf5
from converters.checkpoint.security import inspect_security
from converters.checkpoint.source_file import Found, SourceFile
from converters.checkpoint.values import Storage
from converters.errors import ConversionError, InputError, StorageError, UnsafeInputError
from tests.converters.checkpoint.files import refusal
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

REAL = RECORDED / "tensorflow" / "y.h5"


def layer(parent: h5py.Group, name: str, weights: dict[str, np.ndarray]) -> h5py.Group:
    """A layer's group, as Keras makes it."""
    group = parent.create_group(name)
    group.attrs["weight_names"] = [f"{weight}:0".encode() for weight in weights]
    for weight, array in weights.items():
        group.create_dataset(f"{weight}:0", data=array)
    return group


def model(parent: h5py.Group) -> None:
    parent.attrs["layer_names"] = [b"a", b"b", b"none"]
    layer(parent, "a", {"net/a/kernel": np.arange(6.0), "net/a/bias": np.ones(2, np.float16)})
    layer(parent, "b", {"b/kernel": np.arange(4, dtype=np.int32).reshape(2, 2)})
    layer(parent, "none", {})


def made(path: Path, fill: Callable[[h5py.File], object]) -> bytes:
    with h5py.File(path, "w") as file:
        fill(file)
    return path.read_bytes()


def names(content: bytes) -> list[tuple[str, str]]:
    """What the other process would say of a file: mapping and name of each tensor."""
    return [(said["within"], said["name"]) for said in described(Found("net.h5", content))]


def test_every_tensor_of_a_real_file_is_what_h5py_reads() -> None:
    expected = {}

    def visit(path: str, member: h5py.Group | h5py.Dataset) -> None:
        if isinstance(member, h5py.Dataset):
            name = path.partition("/")[2].removesuffix(":0").replace("/", ".")
            expected[name] = member[()]

    with h5py.File(REAL) as file:
        file.visititems(visit)
    with open_checkpoint(REAL) as checkpoint:
        found: Any = checkpoint.tree
        assert checkpoint.container == "hdf5"
        assert found.keys() == expected.keys()
        for name, array in expected.items():
            assert np.array_equal(checkpoint.array(found[name]), array)


def test_names_are_keras_own(tmp_path: Path) -> None:
    weights = [("", "net.a.bias"), ("", "net.a.kernel"), ("", "b.kernel")]

    assert names(made(tmp_path / "w", model)) == weights

    def whole(file: h5py.File) -> None:
        model(file.create_group("model_weights"))
        layer(file, "optimizer_weights", {"Adam/m/kernel": np.ones(3)})

    expected = [(place, f"model_weights.{name}") for place, name in weights]
    expected.append(("optimizer_weights", "Adam.m.kernel"))
    assert names(made(tmp_path / "m", whole)) == expected

    def third(file: h5py.File) -> None:
        file["layers/conv2d_1/vars/0"] = np.ones(2)
        file["optimizer/vars/0"] = np.ones(2)

    expected = [("", "layers.conv2d_1.vars.0"), ("optimizer", "vars.0")]
    assert names(made(tmp_path / "3", third)) == expected


def test_a_list_of_names_that_is_cut_in_pieces_is_joined(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        group = layer(file, "a", {"k": np.ones(1), "l": np.ones(1)})
        stored = list(group.attrs["weight_names"])
        del group.attrs["weight_names"]
        for index, name in enumerate(stored):
            group.attrs[f"weight_names{index}"] = [name]

    assert names(made(tmp_path / "w", fill)) == [("", "k"), ("", "l")]


def test_an_optimisers_tensors_are_in_a_mapping_of_their_own(tmp_path: Path) -> None:
    content = made(tmp_path / "w.h5", lambda file: file.__setitem__("optimizer/vars/0", np.ones(2)))
    assert content
    with open_checkpoint(tmp_path / "w.h5") as checkpoint:
        found: Any = checkpoint.tree
        assert checkpoint.array(found["optimizer"]["vars.0"]).tolist() == [1, 1]


def external(file: h5py.File) -> None:
    file["w"] = h5py.ExternalLink("/etc/passwd", "x")


def elsewhere(file: h5py.File) -> None:
    file.create_dataset("w", (3,), "f4", external=[("/etc/passwd", 0, 12)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3,), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (3,))
    file.create_virtual_dataset("w", layout)


def twice(file: h5py.File) -> None:
    for name in "ab":
        layer(file, name, {"kernel": np.ones(1)})


def unlisted(file: h5py.File) -> None:
    model(file)
    layer(file, "c", {"c/kernel": np.ones(1)})


def beside(file: h5py.File) -> None:
    layer(file, "a", {"kernel": np.ones(1)})["more"] = np.ones(1)


UNSAFE = {
    "a link to another file": (external, "w: is a link to another file"),
    "elements in another file": (elsewhere, "w: lies in other files"),
    "a virtual dataset": (virtual, "w: lies in other files"),
    "a tensor twice": (twice, "it has the tensor kernel twice"),
    "a layer that is not listed": (unlisted, "its layer_names leave out c"),
    "a weight that is not listed": (beside, "its weight_names are not the datasets of a"),
}


def stored(*shape: Any, **options: Any) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset("w", *shape, **options)


def soft(file: h5py.File) -> None:
    file["a"] = np.ones(1)
    file["w"] = h5py.SoftLink("/a")


def around(file: h5py.File) -> None:
    group = file.create_group("g")
    group["g"] = group


def doubling(file: h5py.File) -> None:
    """Each group holds the next one twice: 2 to the power of 25 ways."""
    group = file.create_group("g")
    for _ in range(25):
        following = file.create_group(None)
        group["a"] = group["b"] = following
        group = following


def rare(file: h5py.File) -> None:
    """A float of 32 bits whose bits mean something else, which h5py takes for float32."""
    kind = h5py.h5t.IEEE_F32LE.copy()
    kind.set_ebias(100)
    h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple((3,)))


def crowded(file: h5py.File) -> None:
    """More names than groups, in little room."""
    file.create_group("a", track_order=True)
    file["a"].attrs.create("weight_names", np.full((1 << 16) + 1, b""), dtype="S1")


def numbered(file: h5py.File) -> None:
    file.create_group("a").attrs["weight_names"] = [1, 2]


REFUSED = {
    "a soft link": (soft, "w: is a link to another place in the file"),
    "a type": (lambda file: file.__setitem__("w", np.dtype("f4")), "neither a group nor a dataset"),
    "chunks": (stored(data=np.ones(9), chunks=(3,)), "w: is stored in pieces"),
    "compression": (stored(data=np.ones(9), compression="gzip"), "w: is compressed"),
    "checksums": (stored(data=np.ones(9), fletcher32=True), "w: is compressed"),
    "text": (stored(data="text"), "w: holds text"),
    "texts": (stored((2,), h5py.string_dtype()), "w: holds text"),
    "lists": (stored((2,), h5py.vlen_dtype("f4")), "w: holds lists of any length"),
    "references": (stored((2,), h5py.ref_dtype), "w: holds references to objects"),
    "complex": (stored(data=np.ones(2, "c8")), "w: holds records"),
    "big-endian": (stored(data=np.ones(2, ">f4")), "w: holds numbers of a rare type"),
    "truth": (stored(data=np.ones(2, bool)), "w: holds numbers of a rare type"),
    "rare floats": (rare, "w: holds numbers of a rare type"),
    "nothing": (stored(data=h5py.Empty("f4")), "w: holds nothing"),
    "never written": (stored((3,), "f4"), "w: was never written"),
    "a long name": (lambda file: file.__setitem__("n" * 2000, np.ones(1)), "has a longer name"),
    "a circle": (around, "holds more than 32 levels of groups"),
    "a doubling": (doubling, "holds more than 65536 groups and datasets"),
    "too many names": (crowded, "has an attribute weight_names of too many names"),
    "names that are numbers": (numbered, "has an attribute weight_names that is no list of names"),
}


@pytest.mark.parametrize(("fill", "expected"), UNSAFE.values(), ids=UNSAFE)
def test_what_leads_elsewhere_is_unsafe(
    fill: Callable[[h5py.File], object], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(UnsafeInputError, match=expected):
        names(made(tmp_path / "net.h5", fill))


@pytest.mark.parametrize(("fill", "expected"), REFUSED.values(), ids=REFUSED)
def test_what_is_not_read_is_named(
    fill: Callable[[h5py.File], object], expected: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=expected):
        names(made(tmp_path / "net.h5", fill))


def test_a_scalar_and_an_empty_tensor_are_tensors(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["scalar"] = np.float32(7)
        file.create_dataset("empty", (0, 3), "f4")

    made(tmp_path / "net.h5", fill)
    with open_checkpoint(tmp_path / "net.h5") as checkpoint:
        found: Any = checkpoint.tree
        assert checkpoint.array(found["scalar"]) == 7
        assert checkpoint.array(found["empty"]).shape == (0, 3)


# Through the process that h5py runs in.


@pytest.mark.parametrize(
    ("fill", "kind", "expected"),
    [
        (external, UnsafeInputError, "w: is a link to another file, which no checkpoint needs"),
        (soft, InputError, "w: is a link to another place in the file, which is not read"),
    ],
)
def test_its_refusals_are_those_of_the_other_process(
    fill: Callable[[h5py.File], object],
    kind: type[ConversionError],
    expected: str,
    tmp_path: Path,
) -> None:
    content = made(tmp_path / "net.h5", fill)

    assert expected in refusal(content, tmp_path, kind)


def test_a_truncated_file_is_one_sentence(tmp_path: Path) -> None:
    content = REAL.read_bytes()

    for size in (9, 96, 600, len(content) // 2, len(content) - 1):
        assert "is truncated or damaged" in refusal(content[:size], tmp_path)


def test_elements_behind_the_end_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "net.h5").write_bytes(bytes(100))
    said = {"name": "w", "within": "", "dtype": "float32", "shape": [5], "offset": 80}
    expected = {
        "behind the end": {"offset": 81},
        "it said what cannot be": {"offset": -1},
        "process that h5py read it in broke down": {"shape": [2.0]},
        "has its elements behind": {"dtype": "objects"},
        "attack": {"shape": None},
    }
    with SourceFile(tmp_path / "net.h5") as file:
        for words, changes in ({"": {}} | expected).items():
            answer = {"tensors": [said | changes]}
            monkeypatch.setattr(hdf5_container, "_asked", lambda *_, answer=answer: answer)
            if words:
                with pytest.raises(InputError, match=words):
                    read_hdf5(file)
            else:
                assert read_hdf5(file)


@pytest.mark.parametrize("words", [None, 7, "\x1b[2J.", "a\nb.", "a", "a" * 5000 + "."])
def test_a_refusal_that_cannot_be_shown_is_another(words: object, tmp_path: Path) -> None:
    (tmp_path / "net.h5").write_bytes(b"")
    with SourceFile(tmp_path / "net.h5") as file:
        whole = Storage(file.path, 0, 0, None, "")
        for answer in ({"error": "UnsafeInputError", "words": words}, {"error": words}):
            with pytest.raises(InputError, match=r"net\.h5: .*it said nothing that can be shown"):
                hdf5_container.taken(file, answer, whole)


def test_tensors_that_share_bytes_are_refused(tmp_path: Path) -> None:
    def hard_link(file: h5py.File) -> None:
        file["a"] = np.ones(3)
        file["b"] = file["a"]

    content = made(tmp_path / "net.h5", hard_link)
    assert "is damaged, a and b share bytes; " in refusal(content, tmp_path)
    said = {"within": "", "dtype": "float32", "shape": [5]}
    one, other, empty = ({"name": n, "offset": at} for n, at in (("a", 60), ("b", 40), ("c", 50)))
    with SourceFile(tmp_path / "net.h5") as file:
        answer = [said | one, said | other, said | empty | {"shape": [0]}]
        whole = Storage(file.path, 0, file.size, None, "all of it")
        assert hdf5_container.taken(file, {"tensors": answer}, whole)
        with pytest.raises(InputError, match="b and a share bytes"):
            hdf5_container.taken(
                file, {"tensors": [*answer[1:], answer[0] | {"offset": 59}]}, whole
            )


def test_a_file_that_ends_within_its_structure_is_refused(tmp_path: Path) -> None:
    content = made(tmp_path / "net.h5", lambda file: file.__setitem__("g/w", np.ones(9)))
    for size in range(96, len(content), 24):
        cut = bytearray(content[:size])
        cut[40:48] = size.to_bytes(8, "little")  # where the file is said to end
        with pytest.raises(InputError, match="is truncated or damaged"):
            described(Found("net.h5", bytes(cut)))


def test_what_keras_would_run_is_unsafe(tmp_path: Path) -> None:
    def fill(file: h5py.File) -> None:
        file["w"] = np.ones(3)
        file.attrs["model_config"] = '{"class_name": "Lambda"}'

    content = made(tmp_path / "net.h5", fill)
    expected = "model.pyth, model_config: has a layer Lambda, whose function Keras would run"
    assert expected in refusal(content, tmp_path, UnsafeInputError)
    assert not inspect_security(tmp_path / "net.h5").harmless

    def array(file: h5py.File) -> None:
        file.attrs["training_config"] = np.ones(3)

    content = made(tmp_path / "net.h5", array)
    assert "has an attribute training_config that is no short text" in refusal(content, tmp_path)


def test_a_region_of_a_file_is_read_as_a_file(tmp_path: Path) -> None:
    content = made(tmp_path / "net.h5", model)
    (tmp_path / "around").write_bytes(b"before" + content + b"behind")

    with SourceFile(tmp_path / "around") as file:
        part = Storage(file.path, 6, len(content), None, "the part")
        tree: Any = read_hdf5(file, part)
        storage = tree["b.kernel"].storage
        assert file.read(storage.offset, storage.length) == np.arange(4, dtype="<i4").tobytes()


def answer_of(path: Path, code: str) -> str:
    """What a process says that has given up its rights as the one of h5py does, and runs code."""
    program = (
        "from converters.checkpoint.hdf5_child import *\n"
        f"if not give_up_rights(None, MEMORY): print('no Landlock'); raise SystemExit\n{code}"
    )
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-c", program], stdin=file, capture_output=True, text=True, check=False
        )
    return done.stdout + done.stderr.strip().rpartition("\n")[2]


def test_the_other_process_opens_no_other_file(tmp_path: Path) -> None:
    said = answer_of(REAL, f"open({str(REAL)!r}, 'rb')")
    if "no Landlock" in said:
        pytest.skip("this kernel has no Landlock")
    assert "PermissionError" in said
    assert "PermissionError" in answer_of(REAL, f"open({str(tmp_path / 'x')!r}, 'wb')")
    assert "PermissionError" in answer_of(REAL, "os.listdir('/')")
    assert "MemoryError" in answer_of(REAL, "bytearray(MEMORY)")


def test_a_process_that_breaks_down_or_hangs_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = made(tmp_path / "net.h5", model)
    monkeypatch.setattr(hdf5_container, "_START", "import os; os.abort() # {path}")
    assert "(it ended with -6)" in refusal(content, tmp_path)
    monkeypatch.setattr(hdf5_container, "_START", "import time; time.sleep(99) # {path}")
    monkeypatch.setattr(hdf5_container, "SECONDS", 0.3)
    assert "(it was not done within 0 seconds)" in refusal(content, tmp_path)


def test_without_h5py_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made(tmp_path / "net.h5", model)
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)

    with pytest.raises(StorageError) as caught:
        open_checkpoint(tmp_path / "net.h5")
    message = str(caught.value)
    assert message == (
        "h5py is not installed, and HDF5 files are read with it; install it with `pip install "
        '"regnet-converters[keras]"`.'
    )


def by_place(path: Path) -> dict[int, np.ndarray]:
    """The arrays that h5py reads, by where they lie."""
    found: dict[int, np.ndarray] = {}

    def visit(_: str, member: h5py.Group | h5py.Dataset) -> None:
        if isinstance(member, h5py.Dataset):
            found[member.id.get_offset() or 0] = member[()]

    with h5py.File(path) as file:
        file.visititems(visit)
    return found


def apart(check: Callable[[bytes], int], contents: list[bytes]) -> list[int]:
    """What a check gives of each, below 255, in a process of its own; 0 where that dies of it.

    What is damaged may kill libhdf5, which only the readers' own process is made for.
    """
    given: list[int] = []
    while len(given) < len(contents):
        read, write = os.pipe()
        child = os.fork()
        if not child:
            try:
                for content in contents[len(given) :]:
                    os.write(write, bytes([check(content)]))
            except BaseException:
                os.write(write, b"\xff")
                raise
            finally:
                os._exit(0)
        os.close(write)
        with open(read, "rb") as said:  # noqa: PTH123 -- a pipe
            given += said.read()
        os.waitpid(child, 0)
        assert 255 not in given
        if len(given) < len(contents):
            given.append(0)
    return given


def alike(changed: bytes, path: Path) -> int:
    """How many tensors both find, where both read the file; they must lie at the same places."""
    try:
        found = described(Found("net.h5", changed))
    except ConversionError:
        return 0
    path.write_bytes(changed)
    try:
        theirs = by_place(path)
    except (OSError, RuntimeError):
        return 0  # it goes another way through the file, on which it gets lost
    for said in found:
        array = theirs[said["offset"]]
        ours = changed[said["offset"] :][: array.nbytes]
        assert (list(array.shape), array.dtype.name) == (said["shape"], said["dtype"])
        assert ours == array.tobytes()
    return len(found)


def test_what_is_read_of_a_damaged_file_is_what_h5py_reads(tmp_path: Path) -> None:
    """Bytes of the structure are changed; a tensor that is read must lie where h5py finds it."""
    content = made(tmp_path / "net.h5", model)
    draw = random.Random(3)  # noqa: S311 -- the same every time
    damaged = []
    for _ in range(300):
        changed = bytearray(content)
        for _ in range(draw.randint(1, 2)):
            changed[draw.randrange(8, len(changed))] = draw.randrange(256)
        damaged.append(bytes(changed))
    assert sum(apart(lambda content: alike(content, tmp_path / "changed.h5"), damaged)) > 100


def test_the_audit_says_what_it_is_and_that_nothing_runs() -> None:
    report = inspect_security(REAL)

    assert (report.kind, report.pickles, report.refusal) == ("hdf5", (), None)
    assert report.harmless
