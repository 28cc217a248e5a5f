"""Artefacts taken apart, so that a fault can be planted, and put together again."""

from __future__ import annotations

import zipfile
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from onnx import ModelProto, numpy_helper

from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Array = NDArray[Any]


class Artefact(Protocol):
    """What a fault is planted in."""

    def names(self) -> list[str]:
        """Names of the tensors, in the order of the file."""

    def array(self, name: str) -> Array:
        """A tensor."""

    def replace(self, name: str, array: Array) -> None:
        """Put another tensor in its place."""

    def save(self, path: Path) -> None:
        """Write the file."""


class OnnxArtefact:
    """An ONNX file.

    Args:
        path: The file.
        folder: Where it lies.

    Attributes:
        model: To be changed in place.
    """

    def __init__(self, path: Path, folder: ConvertedFolder) -> None:
        self.model = ModelProto.FromString(path.read_bytes())
        self._folder = folder
        self._tensors = {tensor.name: tensor for tensor in self.model.graph.initializer}

    def names(self) -> list[str]:
        """Names of the initialisers."""
        return list(self._tensors)

    def array(self, name: str) -> Array:
        """An initialiser, wherever its elements lie."""
        return np.asarray(numpy_helper.to_array(self._tensors[name], str(self._folder.path)))

    def replace(self, name: str, array: Array) -> None:
        """Change an initialiser, which then lies in the file even if it was shared."""
        self._tensors[name].CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))

    def save(self, path: Path) -> None:
        """Write the file."""
        path.write_bytes(self.model.SerializeToString())


class ScriptArtefact:
    """A TorchScript archive.

    Args:
        path: The file.
        folder: Whose network it is.

    Attributes:
        entries: Name below the root to content; to be changed in place.
    """

    def __init__(self, path: Path, folder: ConvertedFolder) -> None:
        with zipfile.ZipFile(path) as archive:
            read = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        self.entries = read
        self._folder = folder

    def names(self) -> list[str]:
        """Names of the tensors, as in the state dict."""
        entries = (name.partition("/") for name in self.entries)
        return [name for directory, _, name in entries if directory == "data"]

    def array(self, name: str) -> Array:
        """A tensor of the state dict."""
        stored = self._folder.tensors[name]
        elements = np.frombuffer(self.entries[f"data/{name}"], ELEMENT_TYPES[stored.dtype].numpy)
        return elements.reshape(stored.shape)

    def replace(self, name: str, array: Array) -> None:
        """Change the elements of a tensor."""
        self.entries[f"data/{name}"] = np.ascontiguousarray(array).tobytes()

    def save(self, path: Path) -> None:
        """Write the file."""
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in self.entries.items():
                # Not dated now, as a mere name is: what is not changed must be the same bytes.
                archive.writestr(zipfile.ZipInfo(f"regnet/{name}"), data)
