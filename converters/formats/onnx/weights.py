"""The initialisers of an ONNX file: folded values, or pointers into the safetensors.

A batch norm in evaluation is ``gamma * (x - mean) / sqrt(variance + eps) + beta`` for each channel.
After a convolution that is the convolution with its kernel scaled by ``gamma / sqrt(variance +
eps)`` and the bias ``beta - mean * scale``: two operators become one, and nothing but rounding
differs.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from onnx import StringStringEntryProto, TensorProto

from converters.errors import InputError
from converters.formats.onnx.file import ONNX_TYPES, Weight
from converters.formats.onnx.graph import folded_names
from regnet.architecture import BATCH_NORM_LEAVES, COUNTER, KERNEL, NORM_EPS
from regnet.files.dtypes import COMPUTED, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.onnx.form import Element

_NORM_LEAVES = tuple(f".normalization.{leaf}" for leaf in BATCH_NORM_LEAVES)


def folded_weights(folder: ConvertedFolder, element: Element = "float32") -> Iterator[Weight]:
    """List the initialisers of a self-contained file, in the order of the state dict.

    Kernels and biases are folded in float64 and rounded once; what belongs to no batch norm keeps
    its name and, if it is of the type wanted, its bytes.

    Args:
        folder: Whose weights.
        element: What to round to. A weight that float16 cannot hold is refused when it is computed.

    Raises:
        InputError: If a tensor is no float of 16 bits or more.
    """
    for name, shape in _parameters(folder):
        if name.endswith(KERNEL):
            module = name.removesuffix(KERNEL)
            weight, bias = folded_names(module)
            kernel = partial(_folded_kernel, folder, module, element)
            shift = partial(_folded_bias, folder, module, element)
            yield Weight(weight, shape, partial(_held, weight, kernel), element)
            yield Weight(bias, shape[:1], partial(_held, bias, shift), element)
        elif not name.endswith(_NORM_LEAVES):
            own = partial(_own, folder, name, element)
            yield Weight(name, shape, partial(_held, name, own), element)


def shared_weights(folder: ConvertedFolder) -> Iterator[TensorProto]:
    """List the initialisers of a sharing file: where in the folder's weights files each one lies.

    Raises:
        InputError: If a tensor is no float of 16 bits or more.
    """
    for name, shape in _parameters(folder):
        tensor = folder.tensors[name]
        storage = tensor.storage
        place = {
            "location": storage.path.name,
            "offset": str(storage.offset),
            "length": str(storage.length),
        }
        yield TensorProto(
            name=name,
            dims=shape,
            data_type=ONNX_TYPES[tensor.dtype],
            data_location=TensorProto.EXTERNAL,
            external_data=[StringStringEntryProto(key=k, value=v) for k, v in place.items()],
        )


def cast_names(folder: ConvertedFolder) -> frozenset[str]:
    """Name the initialisers of a sharing file that are not float32, as the operators want them."""
    parameters = (name for name, _ in _parameters(folder))
    return frozenset(name for name in parameters if folder.tensors[name].dtype != COMPUTED)


def _parameters(folder: ConvertedFolder) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes of the state dict without its counters."""
    for name, shape in folder.architecture.shapes.items():
        if name.endswith(COUNTER):
            continue
        tensor = folder.tensors[name]
        if tensor.dtype not in ONNX_TYPES:
            raise InputError(
                f"{tensor.storage.path.name} holds {name} as {tensor.dtype} where ONNX wants "
                "floats; convert the source again."
            )
        yield name, shape


# Folding damaged weights, such as a negative variance, gives values that are not finite, as running
# them would; saying so is the verdict's business, and NumPy's warning would say it less well.
_damage_is_judged_later = np.errstate(all="ignore")


def _held(name: str, compute: Callable[[], NDArray[np.floating]]) -> NDArray[np.floating]:
    """Compute a weight, and refuse one that float16 cannot hold."""
    array = compute()
    if array.dtype == np.float16 and np.isinf(array).any():
        raise InputError(
            f"{name} holds numbers beyond {np.finfo(np.float16).max}, which float16 cannot; "
            "export the network in float32, as --format onnx or onnx-web."
        )
    return array


@_damage_is_judged_later
def _folded_kernel(folder: ConvertedFolder, module: str, element: Element) -> NDArray[np.floating]:
    kernel = _readable(folder, module + KERNEL)
    scale = _scale(folder, module)[:, np.newaxis, np.newaxis, np.newaxis]
    # Multiplied in float64 and rounded by a buffer of some thousand elements: no float64 copy.
    folded = np.empty(kernel.shape, element)
    np.multiply(kernel, scale, out=folded, dtype=np.float64, casting="same_kind")
    return folded


@_damage_is_judged_later
def _folded_bias(folder: ConvertedFolder, module: str, element: Element) -> NDArray[np.floating]:
    mean = _norm_leaf(folder, module, "running_mean")
    folded = _norm_leaf(folder, module, "bias") - mean * _scale(folder, module)
    return folded.astype(element)


def _scale(folder: ConvertedFolder, module: str) -> NDArray[np.float64]:
    variance = _norm_leaf(folder, module, "running_var")
    return _norm_leaf(folder, module, "weight") / np.sqrt(variance + NORM_EPS)


def _norm_leaf(folder: ConvertedFolder, module: str, leaf: str) -> NDArray[np.float64]:
    return _readable(folder, f"{module}.normalization.{leaf}").astype(np.float64)


@_damage_is_judged_later
def _own(folder: ConvertedFolder, name: str, element: Element) -> NDArray[np.floating]:
    return _readable(folder, name).astype(element, copy=False)


def _readable(folder: ConvertedFolder, name: str) -> NDArray[np.floating]:
    """Map a tensor, as floats that NumPy can compute with."""
    return widened(folder.array(name), folder.tensors[name].dtype)
