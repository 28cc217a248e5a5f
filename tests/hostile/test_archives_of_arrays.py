"""66 and 67: Keras' archives, with HDF5 in them, and NumPy's."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
from safetensors.numpy import load_file

from tests.converters.checkpoint import test_hdf5 as hdf5
from tests.converters.checkpoint.keras_files import archive, entries, functional, keras, layer
from tests.converters.checkpoint.test_npz import PLAIN, Attack
from tests.converters.checkpoint.test_zip_refusals import encrypted
from tests.frameworks.environments import RECORDED
from tests.hostile.test_named_tensors import CONTROL, cut, laid_out, refused, written

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.hostile.victim import Victim

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
NETWORK = entries()
"""Of a file of Keras' own."""

ELSEWHERE = ("../../x", "..\\x", "C:/x", "/x")
BOMB = bytes(100_000_000)


def with_entries(**more: bytes) -> bytes:
    """The network with other entries, by the first words of their names, or with more of them."""
    called = {"config": CONFIG, "weights": WEIGHTS}
    return archive(NETWORK | {called.get(name, name): data for name, data in more.items()})


def added(content: bytes, name: str, data: bytes, method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive with one entry more, whatever it is called."""
    with zipfile.ZipFile(buffer := io.BytesIO(content), "a") as out:
        out.writestr(name, data, method)
    return buffer.getvalue()


def of_layer(class_name: str, **config: Any) -> bytes:
    """The network with the description of one that has such a layer."""
    return with_entries(config=json.dumps(functional(layer(class_name, "x", **config))).encode())


def with_number(number: float) -> bytes:
    """The network, of which one weight is another number, with right checksums."""
    with h5py.File(buffer := io.BytesIO(NETWORK[WEIGHTS]), "r+") as file:
        file["layers/dense/vars/0"][0, 0] = number
    return with_entries(weights=buffer.getvalue())


def two_convolutions(file: h5py.File) -> None:
    """Layers of Keras 3, called by their class."""
    for group in ("conv2d", "conv2d_1"):
        file[f"layers/{group}/vars/0"] = np.ones((3, 3, 3, 8), "f4")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_66_keras_archives_that_run_code_are_read_in_two_ways_or_lie(victim: Victim) -> None:
    honest = archive(NETWORK)
    refused(
        victim,
        3,
        of_layer("Lambda", function={"class_name": "__lambda__", "config": {"code": "4wEAAAA"}}),
        of_layer("Dense", activation={"class_name": "__lambda__", "config": {"code": "4wEAAA"}}),
        of_layer(
            "Dense", activation={"module": "os", "class_name": "function", "config": "system"}
        ),
        of_layer("StringLookup", vocabulary="/etc/passwd"),
        added(honest, "assets/a.pkl", b"cposix\nsystem\n(X\x02\x00\x00\x00lstR."),
    )
    victim.refused(3, "inspect", "model.pyth", "--security", "-q")
    refused(victim, 3, *(added(honest, name, b"{}") for name in (CONFIG, "CONFIG.JSON")))
    refused(victim, 3, *(added(honest, name, b"") for name in ELSEWHERE))
    for fill in (hdf5.external, hdf5.elsewhere, hdf5.virtual):
        refused(victim, 3, with_entries(weights=written(fill)))
    twice = functional(layer("Conv2D", "a"), layer("Conv2D", "a"))
    refused(victim, 3, keras(twice, written(two_convolutions)))
    refused(
        victim,
        2,
        archive({f"net/{name}": data for name, data in NETWORK.items()}),
        archive(NETWORK, zipfile.ZIP_DEFLATED),
        added(archive({CONFIG: NETWORK[CONFIG]}), WEIGHTS, BOMB, zipfile.ZIP_DEFLATED),
        added(archive({WEIGHTS: NETWORK[WEIGHTS]}), CONFIG, BOMB, zipfile.ZIP_DEFLATED),
        encrypted(honest),
        honest[:-1],
        honest[: len(honest) // 2],
        honest.replace(b'"se_ratio": 0.25', b'"se_ratio": 0.26'),
        archive({CONFIG: NETWORK[CONFIG]}),
        with_entries(config=b"[" * 100_000),
        with_entries(config=b" " * (1 << 22) + b"{}"),
        with_entries(weights=b"PK"),
        with_entries(weights=cut(700)),
        with_entries(weights=laid_out(size=1 << 62)),
        added(with_entries(weights=laid_out(start=4096)), "assets/behind", bytes(1 << 14)),
        with_entries(weights=written(lambda f: f.create_dataset("w", (8,), "f4", chunks=(4,)))),
        with_entries(
            weights=written(lambda f: f.create_dataset("w", data=np.zeros(9), compression="gzip"))
        ),
        keras(functional(layer("Conv2D", CONTROL)), written(two_convolutions)),
        with_number(np.nan),
    )


STATE = load_file(RECORDED / "mlx-image" / "y.safetensors")


def saved(arrays: Mapping[str, np.ndarray]) -> bytes:
    """An archive as NumPy writes it."""
    np.savez(buffer := io.BytesIO(), allow_pickle=True, **arrays)
    return buffer.getvalue()


def said(shape: str) -> bytes:
    """An archive with an array that says another shape."""
    text = f"{shape}, }}".ljust(32).encode()
    return archive({"w.npy": PLAIN.replace(b"(2, 3, 4), }".ljust(len(text)), text)})


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_67_numpy_archives_that_unpickle_are_read_in_two_ways_or_lie(victim: Victim) -> None:
    honest = saved(STATE)
    refused(victim, 3, saved({"w": np.array([Attack()])}))
    victim.refused(3, "inspect", "model.pyth", "--security", "-q")
    refused(
        victim,
        3,
        added(honest, "fc.weight.npy", PLAIN),
        added(honest, "FC.WEIGHT.npy", PLAIN),
        added(honest, "fc/weight.npy", PLAIN),
        added(honest, "fc.weight.npy.npy", PLAIN),
        *(added(honest, f"{name}.npy", PLAIN) for name in ELSEWHERE),
    )
    refused(
        victim,
        2,
        saved({"w": np.array([1, None])}),
        archive({"w.npy": PLAIN}, zipfile.ZIP_DEFLATED),
        added(archive({"w.npy": PLAIN}), "bomb.npy", BOMB, zipfile.ZIP_DEFLATED),
        encrypted(archive({"w.npy": PLAIN})),
        honest[:-1],
        *(said(f"({size},)") for size in ("25", "23", "-24", "9" * 18, "9" * 19, "open('a')")),
        said("(4294967296, 4294967296)"),
        archive({"w.npy": PLAIN[:8] + b"\xff\xff" + PLAIN[10:]}),
        archive({"w.npy": PLAIN[:40]}),
        archive({"w.npy": PLAIN + b"\0"}),
        archive({"w.npy": b""}),
        saved(STATE | {CONTROL: np.ones(2, "f4")}),
        saved({name: array.astype(np.int8) for name, array in STATE.items()}),
        saved({name: array.astype(">f4") for name, array in STATE.items()}),
        saved(STATE | {"fc.weight": STATE["fc.weight"] * np.nan}),
    )
