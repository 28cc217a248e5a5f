"""Every value inside a ``.tflite`` file: a copy in memory that keeps them all.

A ReLU that is part of the operator before it hides what that operator makes, so in the copy it is
one of its own; but in integers, whose grid has no place for what it hides. The reference kernels
compute it, operator by operator, or the others where these lack one.
"""

from __future__ import annotations

from copy import copy
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import InputError, in_words, require_extra
from converters.formats.litert.runtime import LiteRtRuntime
from converters.parity.contents.litert.certificate import graph_differences
from converters.parity.contents.litert.integers import LEAST, MOST
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import values_of
from regnet.architecture import PIXELS, Act, folded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

_IDENTIFIER = b"TFL3"
_ON_GRID = ".int8"
"""What follows the name of a value in that of its integers."""

_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_AXES_OF_MAPS = 4


def run_litert(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    """Run a ``.tflite`` file and keep the value of every operation.

    Arguments are those of `run_with_intermediates`.

    Raises:
        InputError: If this project's exporter did not write it.
    """
    for package in ("ai_edge_litert", "flatbuffers"):
        require_extra(package, "litert")
    operations = folded(folder.architecture.operations)
    called = {
        operation.output: made.name
        for operation, made in zip(operations, values_of(folder, folded=True), strict=False)
    }
    before = {each.output: each.inputs[0] for each in operations if isinstance(each, Act)}
    wrong = graph_differences(folder, path).items()
    differences = {called[value]: clause for value, clause in wrong}
    try:
        computed, grids = _run(_with_relus(path.read_bytes(), before), pixels)
    except Exception as error:  # noqa: BLE001 -- whatever the library raises
        return Intermediates({}, folded=True, differences=differences, failure=in_words(error))
    values = {name: computed[value] for value, name in called.items() if value in computed}
    if 2 * len(values) < len(called):
        raise InputError(
            f"{path.name} calls its values otherwise than this project's exporter, so that none "
            "can be told; export it with `regnet export`."
        )
    hidden = [
        called[value]
        for made, value in before.items()
        if value not in computed and made in computed
    ]
    values |= {name: computed[name] for name in folder.output_names if name in computed}
    called[PIXELS] = PIXELS
    grids = {name: grids[value] for value, name in called.items() if value in grids}
    values |= {name: computed[name] for name in (PIXELS,) if name in grids}
    precision = LiteRtRuntime(path, folder.output_names).precision
    return Intermediates(values, True, differences, precision=precision, grids=grids, hidden=hidden)


def _with_relus(content: bytes, before: Mapping[str, str]) -> bytes:
    """The file with an operator for every ReLU.

    Args:
        content: The file.
        before: The value that an activation function makes to the one that it reads.
    """
    import flatbuffers
    from ai_edge_litert import schema_py_generated as schema

    model = schema.ModelT.InitFromPackedBuf(content, 0)
    graph, relu = model.subgraphs[0], schema.BuiltinOperator.RELU
    code = schema.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = relu
    model.operatorCodes.append(code)
    operators: list[Any] = []
    for operator in graph.operators:
        operators.append(operator)
        fused = getattr(operator.builtinOptions, "fusedActivationFunction", None)
        if fused != schema.ActivationFunctionType.RELU:
            continue
        if graph.tensors[operator.outputs[0]].type == schema.TensorType.INT8:
            continue
        made = copy(graph.tensors[operator.outputs[0]])
        made.name = before.get(made.name.decode(), made.name)
        activation = schema.OperatorT()
        activation.opcodeIndex = len(model.operatorCodes) - 1
        activation.inputs, activation.outputs = [len(graph.tensors)], operator.outputs
        operator.builtinOptions.fusedActivationFunction = schema.ActivationFunctionType.NONE
        operator.outputs = activation.inputs
        graph.tensors.append(made)
        operators.append(activation)
    graph.operators = operators
    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), _IDENTIFIER)
    return bytes(builder.Output())


def _run(
    content: bytes, pixels: NDArray[np.float32]
) -> tuple[dict[str, NDArray[np.float32]], dict[str, tuple[float, float]]]:
    """Every value of a file by its own name, channels first; the ends of those in integers."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    def opened(kernels: OpResolverType) -> Interpreter:
        return Interpreter(
            model_content=content,
            experimental_op_resolver_type=kernels,
            experimental_preserve_all_tensors=True,
        )

    try:
        interpreter = opened(OpResolverType.BUILTIN_REF)
    except ValueError:  # which has no ELU
        interpreter = opened(OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES)
    images = pixels.transpose(_CHANNELS_LAST)
    (first,) = interpreter.get_input_details()
    interpreter.resize_tensor_input(first["index"], images.shape, strict=True)
    interpreter.allocate_tensors()
    interpreter.set_tensor(first["index"], images)
    interpreter.invoke()
    values: dict[str, NDArray[np.float32]] = {}
    grids: dict[str, tuple[float, float]] = {}
    for tensor in interpreter.get_tensor_details():
        name, array = tensor["name"], interpreter.get_tensor(tensor["index"])
        numbers = tensor["quantization_parameters"]
        if len(numbers["scales"]) == 1 and array.dtype == np.int8:
            step, zero = float(numbers["scales"][0]), int(numbers["zero_points"][0])
            name = name.removesuffix(_ON_GRID)
            grids[name] = ((LEAST - zero) * step, (MOST - zero) * step)
            array = (array.astype(np.float32) - zero) * step
        is_map = array.ndim == _AXES_OF_MAPS
        values[name] = array.transpose(_CHANNELS_FIRST) if is_map else array
    return values, grids
