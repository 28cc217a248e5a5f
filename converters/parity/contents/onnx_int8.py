"""What an int8 ONNX file holds: integers, and what each is worth.

Which number a weight should be follows from the folder and its own steps, which follow from the
largest weight, so every weight is proven to be the integer nearest to it. The grids of activations
come from images that nobody has here. They must hold what natural images of verification make of
the network (:mod:`converters.parity.contents.grids`); the numbers that come out judge the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from converters.checkpoint.onnx_places import open_onnx
from converters.formats.onnx.form import PRECISION_KEY, SYMMETRIC_INT8, stated_stages
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.int8 import stated_quantisation
from converters.formats.onnx.int8_graph import (
    BIAS,
    SCALE,
    WEIGHT,
    ZERO_POINT,
    Int8Plan,
    layer_names,
)
from converters.parity.contents.blocks import out_of_blocks
from converters.parity.contents.held import LARGEST_BIAS, Contents, HeldTensor
from converters.parity.contents.written import differences, form_of, metadata_faults, stated_by

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto

    from converters.folder.folder import ConvertedFolder

    Tensors = Mapping[str, NDArray[Any]]

_NEVER_NEGATIVE = ("Relu", "Sigmoid")


def read_onnx_int8(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which integers an ONNX file holds, what they are worth and what reads them.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is damaged, or does not state how it was quantised.
        InputError: If it is of a version that is not known yet.
        UnsafeInputError: If it reads weights elsewhere.
    """
    model = open_onnx(path)
    symmetric = stated_by(model).get(PRECISION_KEY) == SYMMETRIC_INT8
    expected, plan = _expected(folder, model, symmetric=symmetric)
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    faults = [
        *_node_faults(expected, model.graph),
        *_grid_faults(expected, plan, tensors, symmetric=symmetric),
        *_step_faults(expected, tensors),
        *metadata_faults(folder, stated_by(model)),
    ]
    numbers = {value + ending for value in plan.values for ending in (SCALE, ZERO_POINT)}
    least = dict(_least_steps(expected, tensors))
    held = [_held(name, tensors, least) for name in tensors if name not in numbers]
    stages = stated_stages(stated_by(model))
    return Contents(
        out_of_blocks(folder, stages, [tensor for tensor in held if tensor]),
        faults=tuple(faults),
        graph_compared=True,
        grids=dict(_grids(plan, tensors)),
    )


def written_int8(folder: ConvertedFolder, model: ModelProto) -> GraphProto:
    """The graph that is written today for what a file states of itself.

    Raises:
        ValueError: If it does not state how it was quantised.
    """
    symmetric = stated_by(model).get(PRECISION_KEY) == SYMMETRIC_INT8
    return _expected(folder, model, symmetric=symmetric)[0]


def _expected(
    folder: ConvertedFolder, model: ModelProto, *, symmetric: bool
) -> tuple[GraphProto, Int8Plan]:
    """The graph that is written for the layers that a file states to be in float."""
    graph = build_graph(
        folder.config,
        classifier=folder.has_classifier,
        fold_norms=True,
        form=form_of(model, model.graph),
        network=folder.architecture,
    )
    left = stated_quantisation(model).float_layers
    plan = Int8Plan(graph, layer_names(folder), left, symmetric=symmetric)
    return plan.quantised(), plan


def _grids(plan: Int8Plan, tensors: Tensors) -> Iterator[tuple[str, tuple[float, float]]]:
    """The ends of each grid, where it has some."""
    for value in plan.values:
        scale, zero_point = tensors.get(value + SCALE), tensors.get(value + ZERO_POINT)
        if scale is None or zero_point is None or scale.size != 1 or zero_point.size != 1:
            continue
        limits = np.iinfo(zero_point.dtype) if zero_point.dtype.kind in "iu" else None
        if limits:
            zero, step = int(zero_point.item()), float(scale.item())
            yield value, ((limits.min - zero) * step, (limits.max - zero) * step)


def _least_steps(
    expected: GraphProto, tensors: Tensors
) -> Iterator[tuple[str, NDArray[np.float64]]]:
    """What a step of each channel of a kernel is worth at least, for its bias to fit."""
    for node in expected.node:
        held = [name.removesuffix(".float32") for name in node.input[1:]]
        if node.op_type not in {"Conv", "Gemm"} or not held[0].endswith(WEIGHT):
            continue
        steps = tensors.get(held[0] + SCALE)
        biases = [tensors[name] for name in held[1:] if name.endswith(BIAS) and name in tensors]
        if steps is not None and all(bias.shape == steps.shape for bias in biases):
            needed = (np.abs(bias.astype(np.float64)) / LARGEST_BIAS for bias in biases)
            with np.errstate(invalid="ignore"):  # of steps that are no sizes, which is said
                yield held[0], next(needed, np.zeros(steps.shape)) * steps


def _held(
    name: str, tensors: Tensors, least: Mapping[str, NDArray[np.float64]]
) -> HeldTensor | None:
    """A tensor of the network; None for what only says what others are worth."""
    for ending in (WEIGHT, BIAS):
        if name.endswith((ending + SCALE, ending + ZERO_POINT)):
            return None
    array = tensors[name]
    own = name.removesuffix(WEIGHT).removesuffix(BIAS)
    data = memoryview(array.tobytes())
    steps = None if own == name else tensors.get(name + SCALE)
    fault = None
    if own != name and (steps is None or steps.shape != array.shape[:1]):
        fault = "does not say what each channel's integers are worth"
    return HeldTensor(own, str(array.dtype), array.shape, data, fault, steps, least.get(name))


def _node_faults(expected: GraphProto, graph: GraphProto) -> Iterator[str]:
    yield from differences(expected, graph)
    if len({tensor.name for tensor in graph.initializer}) != len(graph.initializer):
        yield "an initialiser is held twice"
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in graph.initializer):
        yield "an initialiser lies in another file"


def _grid_faults(
    expected: GraphProto, plan: Int8Plan, tensors: Tensors, *, symmetric: bool
) -> Iterator[str]:
    """Activations whose 256 steps are no grid, or waste some on what they never are."""
    element = np.int8 if symmetric else np.uint8
    positive = {node.output[0] for node in expected.node if node.op_type in _NEVER_NEGATIVE}
    for value in plan.values:
        scale, zero_point = tensors.get(value + SCALE), tensors.get(value + ZERO_POINT)
        if scale is None or zero_point is None or scale.shape or zero_point.dtype != element:
            yield f"{value} has no grid of 256 steps"
        elif not (np.isfinite(scale) and scale > 0):
            yield f"{value} has steps of {float(scale):g}"
        elif symmetric and zero_point.any():
            yield f"{value} has a zero that is not step 0"
        elif value in positive and zero_point.any():
            yield f"{value} has a zero that is not step 0, though it is never negative"


def _step_faults(expected: GraphProto, tensors: Tensors) -> Iterator[str]:
    """Layers whose biases are not in steps of input times weight, as runtimes take for granted."""
    for node in expected.node:
        if node.op_type not in {"Conv", "Gemm"} or not node.input[1].endswith(".float32"):
            continue
        in_integers = (name for name in node.input if name.endswith(".float32"))
        value, weight, *biases = (name.removesuffix(".float32") + SCALE for name in in_integers)
        if not all(name in tensors for name in (value, weight, *biases)):
            yield f"{node.name} lacks scales"
        elif any(not np.array_equal(tensors[b], tensors[value] * tensors[weight]) for b in biases):
            yield f"the biases of {node.name} have other steps than its input and weights"
        if tensors.get(weight.removesuffix(SCALE) + ZERO_POINT, np.ones(1)).any():
            yield f"the weights of {node.name} have a zero that is not 0"
