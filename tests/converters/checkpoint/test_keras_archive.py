"""``.keras`` archives: what is read is what Keras stored, under its layers' names; no code runs."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from converters.checkpoint import open_checkpoint
from converters.checkpoint.security import inspect_security
from converters.errors import InputError, UnsafeInputError
from tests.converters.checkpoint.files import refusal
from tests.converters.checkpoint.keras_files import (
    REAL,
    archive,
    arrays_in,
    entries,
    functional,
    hdf5,
    keras,
    layer,
    read_here,
)

if TYPE_CHECKING:
    from pathlib import Path

ONE = np.arange(4, dtype=np.float32)
KERNEL = np.ones((1, 1, 2, 2), np.float32)


@pytest.fixture(autouse=True)
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is confined is proven in `test_hdf5`."""
    read_here(monkeypatch)


def names(content: bytes, path: Path) -> list[str]:
    """The names of the tensors in a file."""
    path.write_bytes(content)
    with open_checkpoint(path) as checkpoint:
        tree: Any = checkpoint.tree
        return list(tree)


def test_every_tensor_of_a_real_archive_is_what_h5py_reads() -> None:
    expected = arrays_in(entries()["model.weights.h5"])
    leaves = ["gamma", "beta", "moving_mean", "moving_variance"]

    with open_checkpoint(REAL) as checkpoint:
        found: Any = checkpoint.tree
        assert checkpoint.container == "keras"
        assert json.loads(checkpoint.metadata["config.json"])["class_name"] == "RegNet"
        assert len(found) == len(expected)
        for place, array in expected.items():
            group, _, index = place.rpartition("/vars/")
            kinds = leaves if "batch" in group else ["kernel", "bias"]
            name = f"{group.replace('/', '.')}.{kinds[int(index)]}"
            assert np.array_equal(checkpoint.array(found[name]), array)


def test_a_changed_byte_of_the_weights_is_seen_when_they_are_read(tmp_path: Path) -> None:
    content = bytearray(REAL.read_bytes())
    with open_checkpoint(REAL) as checkpoint:
        found: Any = checkpoint.tree
        run = found["layers.dense.kernel"].runs[0]
    content[run.offset + 5] ^= 1
    path = tmp_path / "net.keras"
    path.write_bytes(content)

    with open_checkpoint(path) as checkpoint:
        found = checkpoint.tree
        with pytest.raises(InputError, match="checksum"):
            checkpoint.verify(found["layers.conv2d.kernel"])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"config.json": b"{"}, "config.json: cannot be read as JSON"),
        ({"config.json": b"[" * 100_000}, "config.json: cannot be read as JSON"),
        ({"config.json": b"\xff{}"}, "config.json: cannot be read as JSON"),
        ({"config.json": b" " * (1 << 22) + b"{}"}, "has 4194306 bytes, too many for a RegNet"),
        ({"config.json": None}, "config.json: is missing"),
        ({"model.weights.h5": None}, "model.weights.h5: is missing"),
        ({"model.weights.h5": b"PK"}, "model.weights.h5: is no HDF5 file"),
        ({"model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(99)}, "cannot be read as HDF5"),
    ],
)
def test_what_is_wrong_with_an_archive_is_named(
    change: dict[str, bytes | None], words: str, tmp_path: Path
) -> None:
    content = {name: data for name, data in (entries() | change).items() if data is not None}

    assert words in refusal(archive(content), tmp_path)


def test_compressed_weights_are_refused(tmp_path: Path) -> None:
    message = refusal(archive(entries(), zipfile.ZIP_DEFLATED), tmp_path)

    assert "is compressed; load the network in Keras and save it again" in message


def test_a_wrong_checksum_of_the_description_is_seen(tmp_path: Path) -> None:
    content = REAL.read_bytes().replace(b'"se_ratio": 0.25', b'"se_ratio": 0.26')

    assert "config.json: is damaged" in refusal(content, tmp_path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_archive_that_programs_read_differently_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO(REAL.read_bytes())
    with zipfile.ZipFile(buffer, "a") as out:
        out.writestr("config.json", "{}")

    assert "two entries called" in refusal(buffer.getvalue(), tmp_path, UnsafeInputError)


def test_a_pickle_that_runs_code_beside_the_weights_is_refused(tmp_path: Path) -> None:
    attack = b"cposix\nsystem\n(X\x02\x00\x00\x00lstR."
    assert pickle.PROTO not in attack

    message = refusal(archive(entries() | {"assets/a.pkl": attack}), tmp_path, UnsafeInputError)

    assert "would run code" in message


def test_code_in_the_description_is_refused_and_not_run(tmp_path: Path) -> None:
    code = {"class_name": "__lambda__", "config": {"code": "4wEAAAAA"}}
    config = functional(layer("Conv2D", "a"), layer("Dense", "b", activation=code))
    content = keras(config, hdf5({"layers/conv2d/vars/0": KERNEL}))

    message = refusal(content, tmp_path, UnsafeInputError)

    assert "config.json: has a function as bytecode, which Keras would run" in message
    report = inspect_security(tmp_path / "model.pyth")
    assert (report.kind, str(report.refusal)) == ("keras", message)
    assert not report.harmless
    (note,) = inspect_security(REAL).notes
    assert note.startswith("holds 122 tensors in Keras' archive, which can name code")


def test_layers_that_the_description_lists_are_called_by_their_names(tmp_path: Path) -> None:
    inner = functional(layer("BatchNormalization", "n"), layer("Conv2D", "c"), name="inner")
    config = functional(
        layer("InputLayer", "in"),
        layer("Conv2D", "z"),
        layer("Conv2D", "y"),
        inner,
        layer("Own", "o"),
    )
    weights = hdf5(
        {
            "layers/conv2d/vars/0": KERNEL,
            "layers/conv2d_1/vars/0": KERNEL,
            "layers/conv2d_1/vars/1": ONE,
            "layers/functional/layers/batch_normalization/vars/3": ONE,
            "layers/functional/layers/conv2d/vars/0": KERNEL,
            "layers/own/vars/0": ONE,
            "layers/own/inside/vars/0": ONE,
            "optimizer/vars/0": ONE,
            "vars/0": ONE,
        },
        {"layers/conv2d": "what the group says itself, which is not asked"},
    )

    assert names(keras(config, weights), tmp_path / "net.keras") == [
        "z.kernel",
        "y.kernel",
        "y.bias",
        "inner.n.moving_variance",
        "inner.c.kernel",
        "layers.own.inside.vars.0",
        "o.0",
        "optimizer",
        "vars.0",
    ]


def test_without_a_description_layers_are_called_as_their_groups_say(tmp_path: Path) -> None:
    arrays = {f"layers/conv2d{at}/vars/0": KERNEL for at in ("", "_1", "_2")}
    arrays |= {
        "_layer_checkpoint_dependencies/dense/vars/1": ONE,
        "layers/a/layers/dense/vars/0": ONE,
    }
    stated = {"layers/conv2d": "z", "layers/conv2d_1": 3, "layers/a/layers/dense": "d"}

    assert names(hdf5(arrays, stated), tmp_path / "net.weights.h5") == [
        "layers.dense.bias",
        "a.d.kernel",
        "z.kernel",
        "layers.conv2d_1.kernel",
        "layers.conv2d_2.kernel",
    ]


@pytest.mark.parametrize("name", ["", "x" * 1025, np.array([b"a", b"b"]), h5py.Empty("S4")])
def test_what_is_no_name_is_none(name: Any, tmp_path: Path) -> None:
    content = hdf5({"layers/conv2d/vars/0": KERNEL}, {"layers/conv2d": name})

    assert names(content, tmp_path / "net.weights.h5") == ["layers.conv2d.kernel"]


def test_two_layers_of_one_name_are_refused(tmp_path: Path) -> None:
    arrays = {"layers/conv2d/vars/0": KERNEL, "layers/conv2d_1/vars/0": KERNEL}
    content = hdf5(arrays, {"layers/conv2d": "a", "layers/conv2d_1": "a"})

    assert "has the tensor a.kernel twice" in refusal(content, tmp_path, UnsafeInputError)


def test_a_group_of_several_networks_in_networks_ends(tmp_path: Path) -> None:
    config: dict[str, Any] = functional(layer("Conv2D", "c"))
    for _ in range(50):
        config = functional(config)

    assert names(keras(config, hdf5({"vars/0": ONE})), tmp_path / "net.keras") == ["vars.0"]
