"""The initialisers of an ONNX file: folded values, or pointers into the safetensors.

A convolution takes in the batch norm behind it (:func:`regnet.architecture.scale_and_shift`): two
operators become one, and nothing but rounding differs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from converters.errors import InputError
from converters.formats.blocks import placed, placed_shape, spreads
from converters.formats.onnx.file import ONNX_TYPES, Weight, external
from converters.formats.onnx.graph import folded_names
from regnet.architecture import Conv, folded, scale_and_shift
from regnet.files.dtypes import COMPUTED, widened

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.blocks import Spread, Stages
    from converters.formats.onnx.form import Element
    from regnet.architecture import Norm, Operation, Slot


def folded_weights(
    folder: ConvertedFolder, element: Element = "float32", stages: Stages = ()
) -> Iterator[Weight]:
    """List the initialisers of a self-contained file, in the order of the state dict.

    Kernels and biases are folded in float64 and rounded once; what belongs to no batch norm keeps
    its name and, if it is of the type wanted, its bytes.

    Args:
        folder: Whose weights.
        element: What to round to. A weight that float16 cannot hold is refused when it is computed.
        stages: How the groups of each stage lie.

    Raises:
        InputError: If a tensor is no float of 16 bits or more, or groups cannot lie so.
    """
    _parameters(folder)  # refuses what is no float
    operations = folded(folder.architecture.operations)
    found = spreads(operations, stages)
    for operation in operations:
        for weight in _folded(folder, operation, element):
            yield _among_zeros(weight, operation, found) if found else weight


def _folded(folder: ConvertedFolder, operation: Operation, element: Element) -> Iterator[Weight]:
    """The initialisers of an operation."""
    if isinstance(operation, Conv) and operation.norm:
        (kernel,), norm = operation.slots, operation.norm
        weight, bias = folded_names(operation.around)
        scaled = partial(_folded_kernel, folder, kernel, norm, element)
        yield Weight(weight, kernel.shape, scaled, element)
        yield Weight(bias, kernel.shape[:1], partial(_folded_bias, folder, norm), element)
        return
    for slot in operation.slots:
        if not slot.is_counter:  # of a batch norm that no convolution can take in
            yield Weight(slot.name, slot.shape, partial(_readable, folder, slot), element)


def _among_zeros(weight: Weight, operation: Operation, found: Mapping[str, Spread]) -> Weight:
    """The same where it lies in blocks."""
    shape = placed_shape(weight.shape, operation, found)
    return replace(weight, shape=shape, compute=lambda: placed(weight.compute(), operation, found))


def shared_weights(folder: ConvertedFolder) -> Iterator[TensorProto]:
    """List the initialisers of a sharing file: where in the folder's weights files each one lies.

    Raises:
        InputError: If a tensor is no float of 16 bits or more.
    """
    for slot in _parameters(folder):
        stored, storage = folder.tensors[slot.name], folder.tensors[slot.name].storage
        kind = ONNX_TYPES[stored.dtype]
        tensor = TensorProto(name=slot.name, dims=slot.shape, data_type=kind)
        yield external(tensor, storage.path.name, storage.offset, storage.length)


def cast_names(folder: ConvertedFolder) -> frozenset[str]:
    """Name the initialisers of a sharing file that are not float32, as the operators want them."""
    names = (slot.name for slot in _parameters(folder))
    return frozenset(name for name in names if folder.tensors[name].dtype != COMPUTED)


def _parameters(folder: ConvertedFolder) -> list[Slot]:
    """The tensors of the state dict without its counters."""
    slots = [slot for slot in folder.architecture.slots if not slot.is_counter]
    for slot in slots:
        tensor = folder.tensors[slot.name]
        if tensor.dtype not in ONNX_TYPES:
            raise InputError(
                f"{tensor.storage.path.name} holds {slot.name} as {tensor.dtype} where ONNX wants "
                "floats; convert the source again."
            )
    return slots


def _folded_kernel(
    folder: ConvertedFolder, slot: Slot, norm: Norm, element: Element
) -> NDArray[np.floating]:
    kernel = _readable(folder, slot)
    scale = affine(folder, norm)[0].reshape(-1, 1, 1, 1)
    # Multiplied in float64 and rounded by a buffer of some thousand elements: no float64 copy.
    folded = np.empty(kernel.shape, element)
    np.multiply(kernel, scale, out=folded, dtype=np.float64, casting="same_kind")
    return folded


def _folded_bias(folder: ConvertedFolder, norm: Norm) -> NDArray[np.float64]:
    return affine(folder, norm)[1]


def affine(folder: ConvertedFolder, norm: Norm) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """What a batch norm multiplies each channel by, and what it then adds."""
    statistics = (
        _readable(folder, slot).astype(np.float64) for slot in norm.slots if not slot.is_counter
    )
    return scale_and_shift(statistics, norm.eps)


def _readable(folder: ConvertedFolder, slot: Slot) -> NDArray[np.floating]:
    """Map a tensor, as floats that NumPy can compute with."""
    return widened(folder.array(slot.name), folder.tensors[slot.name].dtype)
