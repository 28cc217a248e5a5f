"""``.keras``: a zip archive of a network's description in JSON and its weights in HDF5.

Nothing that the description names is imported, and no code in it is run. In the HDF5 file a layer
is called by its class and by how many of that class come before it (``layers/conv2d_3``); which it
is says the description, where that lists the layers.

Source: Keras 3.15.1 and tf_keras 2.21.0 ``saving/saving_lib.py`` (what is in the archive, how the
groups of layers are called).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import TYPE_CHECKING, Any
from zlib import crc32

from converters.checkpoint.file_audit import require_no_code_beside
from converters.checkpoint.hdf5_container import read_hdf5
from converters.checkpoint.keras_config import require_no_code
from converters.checkpoint.sniff import HDF5_START, KERAS_CONFIG, KERAS_WEIGHTS
from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import Storage, Tree
from converters.checkpoint.zip_directory import (
    ENCRYPTED,
    SIZES_FOLLOW,
    STORED,
    UTF8_NAME,
    ZipDirectory,
)
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.checkpoint.source_file import SourceFile

MAX_CONFIG = 1 << 22
"""Bytes of a description, which this process takes to pieces; those of the largest RegNet are two
millions."""

MAX_LEVELS = 8
"""Of networks in networks."""


def read_keras(file: SourceFile) -> tuple[Tree, dict[str, str]]:
    """Find the tensors of an archive.

    Returns:
        Tensors as `converters.checkpoint.hdf5_container.read_hdf5` has them, called by the names
        of their layers where the description lists these; and the description, as text, by the
        name of its entry.

    Raises:
        InputError: It is damaged, its weights are compressed, or it holds what is not read.
        UnsafeInputError: It has a pickle that runs code, programs may disagree on what it holds, or
            Keras would run code for it.
        StorageError: h5py is not installed.
    """
    directory = ZipDirectory(file)
    directory.require_one_reading()
    require_no_code_beside(file, directory, ())
    text, config = _described(file, directory)
    whole = _place(file, directory, KERAS_WEIGHTS)
    if file.read(whole.offset, min(len(HDF5_START), whole.length)) != HDF5_START:
        raise damaged(f"{file.name}, {KERAS_WEIGHTS}", "is no HDF5 file", "the file")
    layers = dict(_layers(config, "", "", 0))
    return read_hdf5(file, whole, layers), {KERAS_CONFIG: text}


def layers_of(network: Any) -> list[dict[str, Any]]:
    """The layers that a network's description lists; none if it lists none.

    Args:
        network: A network or layer as Keras describes it, or anything.
    """
    config = network.get("config") if isinstance(network, dict) else None
    listed = config.get("layers") if isinstance(config, dict) else None
    return (
        [layer for layer in listed if isinstance(layer, dict)] if isinstance(listed, list) else []
    )


def _described(file: SourceFile, directory: ZipDirectory) -> tuple[str, Any]:
    """The description, as text and as what that says."""
    where = f"{file.name}, {KERAS_CONFIG}"
    place = _place(file, directory, KERAS_CONFIG)
    if place.length > MAX_CONFIG:
        raise InputError(f"{where}: has {place.length} bytes, too many for a RegNet's.")
    data = file.read(place.offset, place.length)
    if crc32(data) != place.crc32:
        raise damaged(where, "is damaged, its bytes do not have the checksum the file states")
    require_no_code(where, data)
    text = data.decode()
    return text, json.loads(text)


def _place(file: SourceFile, directory: ZipDirectory, name: str) -> Storage:
    """Where the bytes of an entry are, which must be stored as they are."""
    where = f"{file.name}, {name}"
    entry = next((entry for entry in directory.entries if entry.name == name), None)
    if entry is None:
        raise damaged(where, "is missing", "the file")
    if entry.method == STORED and not entry.flags & ~(SIZES_FOLLOW | UTF8_NAME):
        offset = directory.data_offset(entry)
        return Storage(file.path, offset, entry.size, entry.crc32, name)
    what = "is encrypted" if entry.flags & ENCRYPTED else "is compressed"
    raise InputError(
        f"{where}: {what}; load the network in Keras and save it again, or unpack the archive and "
        "pack it anew with `zip -0`."
    )


def _layers(network: Any, path: str, place: str, depth: int) -> Iterator[tuple[str, str]]:
    """The layers that a network lists, those of networks in it too.

    Yields:
        The group of each in the HDF5 file, levels joined by dots; and its name, behind those of
        the networks that it is in.
    """
    seen: Counter[str] = Counter()
    for layer in layers_of(network):
        config = layer.get("config")
        name = config.get("name") if isinstance(config, dict) else None
        kind = _in_snake_case(str(layer.get("class_name")))
        group = f"{path}layers.{kind}_{seen[kind]}" if seen[kind] else f"{path}layers.{kind}"
        seen[kind] += 1
        if isinstance(name, str) and depth < MAX_LEVELS:
            yield group, f"{place}{name}"
            yield from _layers(layer, f"{group}.", f"{place}{name}.", depth + 1)


def _in_snake_case(name: str) -> str:
    """A class's name as Keras calls groups by it: ``batch_normalization``, ``conv2d``.

    Source: Keras 3.15.1 ``utils/naming.py``.
    """
    words = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", words).lower()
