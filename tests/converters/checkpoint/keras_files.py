"""Makes ``.keras`` archives, from what Keras itself saved or from nothing."""

from __future__ import annotations

import io
import json
import zipfile
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np

from converters.checkpoint import hdf5_container
from converters.checkpoint.hdf5_child import described
from converters.checkpoint.source_file import FilePart
from tests.frameworks.environments import RECORDED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import pytest

    from converters.checkpoint.source_file import SourceFile

REAL = RECORDED / "keras" / "y.keras"

Arrays = dict[str, np.ndarray]


def asked_here(file: SourceFile, start: int, size: int) -> object:
    """What the process would say in which h5py reads; without one."""
    return {"tensors": described(FilePart(file, start, size, file.name))}


def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let HDF5 files be taken to pieces in this process, which starts no other for each."""
    monkeypatch.setattr(hdf5_container, "_asked", asked_here)


def entries(path: Path = REAL) -> dict[str, bytes]:
    """What is in an archive, in its order."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def archive(content: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    """An archive of these entries."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as out:
        for name, data in content.items():
            out.writestr(name, data)
    return buffer.getvalue()


def arrays_in(content: bytes) -> Arrays:
    """The datasets of an HDF5 file, by their names with slashes."""
    found: Arrays = {}

    def visit(name: str, member: object) -> None:
        if isinstance(member, h5py.Dataset):
            found[name] = member[()]

    with h5py.File(io.BytesIO(content)) as file:
        file.visititems(visit)
    return found


def hdf5(arrays: Mapping[str, np.ndarray], names: Mapping[str, object] | None = None) -> bytes:
    """An HDF5 file, and the names of layers that their groups state."""
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for place, array in arrays.items():
            file.create_dataset(place, data=array)
        for group, name in (names or {}).items():
            file.require_group(f"{group}/vars").attrs["name"] = name
    return buffer.getvalue()


def keras(config: object, weights: bytes) -> bytes:
    """An archive with a description, and weights as an HDF5 file."""
    described = json.dumps(config).encode()
    return archive({"metadata.json": b"{}", "config.json": described, "model.weights.h5": weights})


def layer(class_name: str, name: str, **config: Any) -> dict[str, Any]:
    """A layer as Keras describes it."""
    return {"class_name": class_name, "config": {"name": name, **config}}


def functional(*layers: dict[str, Any], name: str = "net") -> dict[str, Any]:
    """A network of listed layers, as Keras describes it."""
    return layer("Functional", name, layers=list(layers))
