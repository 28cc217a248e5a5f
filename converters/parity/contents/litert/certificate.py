"""What a ``.tflite`` file holds: constants, and operators that are held to the network's list.

The graph is not compared with what is written, but read: every operator has to compute what the
list of operations says at its place, and to read the tensor of its name. So the proof shares
neither spelling nor code with the exporter.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from converters.errors import printable
from converters.formats.onnx.quantised import Quantisation
from converters.parity.contents.held import Contents, HeldTensor
from converters.parity.contents.litert.codes import OtherOperatorError
from converters.parity.contents.litert.int8 import computed_in_integers, other_values
from converters.parity.contents.litert.integers import INTEGERS, least_steps, own_name
from converters.parity.contents.litert.model import LiteRtModel
from converters.parity.contents.litert.operations import called, read_operation
from converters.parity.contents.litert.stated import faults_in
from converters.parity.contents.litert.walk import Walk
from regnet.architecture import PIXELS, Conv, Flatten, Linear, Pool, Softmax, extents, folded
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.litert.model import Tensor

    Shapes = dict[str, tuple[tuple[int, ...], int]]  # of each value, and how many axes are open

_MOST_STEPS = 20
"""Operators and tensors for each operation of the network; a group norm has most."""

_KERNEL_AXES = (0, 3, 1, 2)
"""Where (out, in, height, width) are in a kernel, which has channels last."""


def read_litert(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which tensors a ``.tflite`` file holds, and what is computed with them.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged.
    """
    return _read(folder, path, COMPUTED)


def read_float16(folder: ConvertedFolder, path: Path) -> Contents:
    """The same of a file whose weights are float16."""
    return _read(folder, path, "float16")


def read_int8(folder: ConvertedFolder, path: Path) -> Contents:
    """The same of a file that computes in int8 but for the layers that it states.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged, or does not state how it was quantised.
    """
    model = _opened(folder, path)
    computed = computed_in_integers(folder, Quantisation.stated(model.stated.texts).float_layers)
    return _contents(folder, model, COMPUTED, computed)


def _read(folder: ConvertedFolder, path: Path, precision: str) -> Contents:
    return _contents(folder, _opened(folder, path), precision)


def _contents(
    folder: ConvertedFolder,
    model: LiteRtModel,
    precision: str,
    computed: Collection[str] | None = None,
) -> Contents:
    """Judge a file; ``computed`` are the values that are computed in integers, if any may be."""
    weights = [tensor for tensor in model.tensors if _may_be_weight(tensor)]
    faults = [
        *_tensor_faults(model),
        *_order_faults(model),
        *_caller_faults(folder, model),
    ]
    grids: dict[str, tuple[float, float]] = {}
    least: dict[str, NDArray[np.float64]] = {}
    if not faults:
        try:
            walk, wrong = _walked(folder, model, integers=computed is not None)
        except OtherOperatorError as error:  # what makes the outputs
            faults = [str(error)]
        else:
            faults = [*wrong.values()] or list(_left_over(folder, walk))
            if computed is not None and not faults:
                faults = [*other_values(walk, computed)]
                grids, least = walk.grids(), least_steps(model)
    tensors = tuple(_held(tensor, least) for tensor in weights)
    faults = [*faults, *faults_in(folder, model.stated)]
    return Contents(
        tensors, faults=tuple(faults), precision=precision, graph_compared=True, grids=grids
    )


def _opened(folder: ConvertedFolder, path: Path) -> LiteRtModel:
    """Take a file apart that may be the folder's.

    Raises:
        OSError: If it cannot be opened.
        ValueError: If it is damaged.
    """
    return LiteRtModel.read(path, _MOST_STEPS * len(folder.architecture.operations))


def _may_be_weight(tensor: Tensor) -> bool:
    """Whether it has a weight's name; other constants are known by what reads them."""
    return tensor.data is not None and "." in tensor.name


def _held(tensor: Tensor, least: Mapping[str, NDArray[np.float64]]) -> HeldTensor:
    """A weight with the axes that the folder's has."""
    axes = _KERNEL_AXES if len(tensor.shape) == len(_KERNEL_AXES) else ()
    shape = tuple(tensor.shape[axis] for axis in axes) or tensor.shape
    data = memoryview(b"") if tensor.data is None else tensor.data
    fault, steps = tensor.fault, None
    if tensor.dtype in INTEGERS:
        steps = tensor.grid.scale if tensor.grid else np.ones(0, np.float32)
        if steps.shape != shape[:1]:
            fault = "does not say what each channel's integers are worth"
    needed = least.get(tensor.name)
    return HeldTensor(own_name(tensor), tensor.dtype, shape, data, fault, steps, needed, axes)


def _tensor_faults(model: LiteRtModel) -> Iterator[str]:
    for tensor in model.tensors:
        if tensor.fault and not _may_be_weight(tensor):
            yield f"{printable(tensor.name)} {tensor.fault}"


def _order_faults(model: LiteRtModel) -> Iterator[str]:
    """Each value is computed once, before it is read, and nothing else is."""
    ready = {index for index, tensor in enumerate(model.tensors) if tensor.data is not None}
    if not ready.isdisjoint(model.inputs):
        yield "an input is a constant"
    ready.update(model.inputs)
    for step in model.steps:
        if len(step.outputs) != 1 or step.outputs[0] in ready:
            yield "an operator makes what is there already"
        if not ready.issuperset(step.inputs):
            yield "an operator reads what is not there yet"
        ready.update(step.outputs)


def _caller_faults(folder: ConvertedFolder, model: LiteRtModel) -> Iterator[str]:
    """Inputs and outputs, by their places and by the names of the signature."""
    names = folder.output_names
    for what, due, places, named in (
        ("inputs", (PIXELS,), model.inputs, model.signature[0]),
        ("outputs", names, model.outputs, model.signature[1]),
    ):
        if len(places) != len(due):
            yield f"it has {len(places)} {what}"
        elif named != dict(zip(due, places, strict=True)):
            yield f"its signature names other {what}"


def graph_differences(folder: ConvertedFolder, path: Path) -> dict[str, str]:
    """Where the operators of a file compute something else: name of a value to a clause.

    What feeds nothing but such an operator is not looked at.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged.
    """
    model = _opened(folder, path)
    integers = any(tensor.dtype == "int8" for tensor in model.tensors)
    return _walked(folder, model, integers=integers)[1]


def _walked(
    folder: ConvertedFolder, model: LiteRtModel, *, integers: bool = False
) -> tuple[Walk, dict[str, str]]:
    """Go through the network backwards, and say what is wrong where."""
    walk = Walk(
        model, dict(zip(folder.output_names, model.outputs, strict=False)), integers=integers
    )
    shapes = _shapes(folder)
    wrong: dict[str, str] = {}
    for operation in reversed(folded(folder.architecture.operations)):
        if found := walk.found.get(operation.output):
            try:
                walk.shape(found.tensor, *shapes[operation.output], called(operation))
                read_operation(walk, operation, found)
            except ValueError as error:
                wrong[operation.output] = str(error)
    return walk, wrong


def _left_over(folder: ConvertedFolder, walk: Walk) -> Iterator[str]:
    """What is wrong with a file in which every operation was found."""
    model = walk.model
    (pixels,) = model.inputs
    if walk.found[PIXELS].tensor != pixels:
        yield f"the network does not begin with {PIXELS}"
    walk.shape(pixels, *_shapes(folder)[PIXELS], PIXELS)
    for place in (pixels, *model.outputs):
        if model.tensors[place].dtype != COMPUTED:
            yield f"{printable(model.tensors[place].name)} is no {COMPUTED} for the caller"
    for index, tensor in enumerate(model.tensors):
        if index not in walk.met:
            yield f"nothing needs {printable(tensor.name)}"


def _shapes(folder: ConvertedFolder) -> Shapes:
    """The shape of each value for one image of the folder's size."""
    operations, side = folded(folder.architecture.operations), folder.image_size
    sizes = extents(operations, side)
    shapes: Shapes = {PIXELS: ((1, side, side, folder.config.num_channels), 3)}
    for operation in operations:
        (*_, channels), open_axes = shapes[operation.inputs[0]]
        if isinstance(operation, Conv | Linear):
            channels = operation.slots[0].shape[0]
        if isinstance(operation, Pool):
            open_axes = 1
        flat = isinstance(operation, Flatten | Linear | Softmax)
        size = sizes[operation.output]
        shape = (1, channels) if flat else (1, size, size, channels)
        shapes[operation.output] = shape, open_axes
    return shapes
