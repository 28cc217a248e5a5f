"""Writes the weights of a Keras model as HDF5, laid out as by Keras; the same bytes every time.

Source: Keras 2.15 ``saving/legacy/hdf5_format.py``: a group a layer, which lists its weights in the
order in which Keras' own loader takes them; transformers goes by their names. Keras 3.15
``saving/saving_lib.py``: a group a layer, called by its class and place, and arrays numbered in it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.hdf5_child import LAYERS, TOP_LEVEL, WEIGHTS
from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import h5py

    from converters.checkpoint.array import Array

LIMIT = 64512
"""Bytes of an attribute, of which HDF5 has room for 64 KiB with its header."""

LIBRARY = ("earliest", "v110")
"""The versions of HDF5 whose layouts are used: the oldest there are, whatever h5py prefers."""

TYPES = frozenset({"float16", "float32", "float64"})
"""Of those that weights are stored in, the ones that HDF5 and Keras have."""


def write_hdf5(path: Path, layers: Mapping[str, Mapping[str, Array]], version: str) -> None:
    """Write layers with their weights; one weight is in memory at a time.

    Args:
        path: Created or replaced.
        layers: By name, in the model's order; of each the weights in Keras' order, whose names have
            their levels behind slashes.
        version: Of the Keras whose layout that is, by which Keras' own loader goes.

    Raises:
        ValueError: If a weight gives more or fewer bytes than its shape says.
        OSError: If the file cannot be written.
    """
    import h5py

    # What is staged holds a lock on it already, with which HDF5's own would clash.
    with h5py.File(path, "w", libver=LIBRARY, locking=False) as file:
        _list(file, LAYERS, layers)
        file.attrs["backend"] = "tensorflow"
        file.attrs["keras_version"] = version
        for name in sorted(layers):
            _write_layer(file.create_group(name), layers[name])
        _write_layer(file.create_group(TOP_LEVEL), {})


def write_places(
    path: Path, arrays: Mapping[str, Array], names: Mapping[str, str], model: str
) -> None:
    """Write arrays as Keras 3 places them, one in memory at a time.

    Args:
        path: Created or replaced.
        arrays: By the names of their datasets, levels behind slashes, in the model's order.
        names: The name of each layer, by the group of its arrays.
        model: The group of the model's own arrays, of which it need not have any.

    Raises:
        ValueError: If an array gives more or fewer bytes than its shape says.
        OSError: If the file cannot be written.
    """
    import h5py

    with h5py.File(path, "w", libver=LIBRARY) as file:
        file.create_group(model)
        for group, name in names.items():
            file.create_group(group).attrs["name"] = name
        for place, array in arrays.items():
            _write_array(file, place, array)


def _write_layer(group: h5py.Group, weights: Mapping[str, Array]) -> None:
    _list(group, WEIGHTS, weights)
    for name, array in weights.items():
        _write_array(group, name, array)


def _write_array(group: h5py.Group, name: str, array: Array) -> None:
    import numpy as np

    dtype = np.dtype(ELEMENT_TYPES[array.dtype].numpy)
    dataset = group.create_dataset(name, array.shape, dtype, track_times=False)
    dataset[...] = np.frombuffer(array.whole(), dtype).reshape(array.shape)


def _list(group: h5py.Group, attribute: str, names: Iterable[str]) -> None:
    """List names in an attribute, or where that has no room in several, numbered from zero."""
    import numpy as np

    listed = np.array([name.encode() for name in names])
    count = 1
    while any(piece.nbytes > LIMIT for piece in np.array_split(listed, count)):
        count += 1
    for number, piece in enumerate(np.array_split(listed, count)):
        group.attrs[attribute if count == 1 else f"{attribute}{number}"] = piece
