"""Every value inside an ONNX file: a copy of the graph in memory with all of them as outputs.

One session computes them all, as the nodes say: with the optimiser off, since what it fuses would
be other values, and what it may not fuse, because they are outputs, gains nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import helper, numpy_helper

from converters.checkpoint.onnx_places import open_onnx
from converters.errors import InputError, in_words
from converters.formats.blocks import spreads
from converters.formats.onnx.form import FOLDED_WEIGHT, INT8, SYMMETRIC_INT8
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.runtime import open_session, run_session, session_options
from converters.parity.contents.onnx_int8 import written_int8
from converters.parity.contents.written import form_of, stated_precision
from converters.parity.locate.intermediates import Intermediates
from converters.parity.locate.walk import values_of
from regnet.architecture import PIXELS
from regnet.architecture import folded as taken_in

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import GraphProto, ModelProto, NodeProto

    from converters.folder.folder import ConvertedFolder

_CONVOLUTION = ".convolution"
_OFF_GRID = ".float32"
"""What follows the name of a value in that of what its grid leaves of it."""

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def run_onnx(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    """Run an ONNX file and keep the value of every node.

    Arguments are those of `run_with_intermediates`.

    Raises:
        InputError: If this project's exporter did not write it.
    """
    model = open_onnx(path)
    nodes = {node.name: node for node in model.graph.node}
    read = (name for node in model.graph.node for name in node.input)
    folded = any(FOLDED_WEIGHT in name for name in read)
    modules = {operation.name for operation in values_of(folder, folded=folded)}
    names = {_module(name, modules): node.output[0] for name, node in nodes.items()}
    names |= {output.name: output.name for output in model.graph.output}
    if 2 * len(names.keys() & modules) < len(modules):
        raise InputError(
            f"{path.name} calls its nodes otherwise than this project's exporter, so that none can "
            "be told; export it with `regnet export`."
        )
    precision = stated_precision(model).partition("-")[0]
    expected, grids = _written(folder, model, folded=folded), _grids(model)
    differences = dict(_differences(expected, nodes, modules))
    try:
        computed = _run(model, path.parent, pixels)
    except Exception as error:  # noqa: BLE001 -- ONNX Runtime raises classes of its own
        return Intermediates({}, folded, differences, failure=in_words(error))
    on_grid = {value: computed.get(value + _OFF_GRID, made) for value, made in computed.items()}
    spread = spreads(taken_in(folder.architecture.operations), form_of(model, model.graph).stages)
    for value in spread.keys() & on_grid.keys():
        on_grid[value] = on_grid[value][:, spread[value].positions]
    if PIXELS in grids:
        names[PIXELS], on_grid[PIXELS] = PIXELS, computed[PIXELS + _OFF_GRID]
    values = {
        name: on_grid[value].astype(np.float32) for name, value in names.items() if value in on_grid
    }
    grids = {name: grids[value] for name, value in names.items() if value in grids}
    return Intermediates(values, folded, differences, precision=precision, grids=grids)


def _written(folder: ConvertedFolder, model: ModelProto, *, folded: bool) -> GraphProto:
    """What is written today in the form that a file is in."""
    if stated_precision(model) in {INT8, SYMMETRIC_INT8}:
        return written_int8(folder, model)
    return build_graph(
        folder.config,
        classifier=folder.has_classifier,
        fold_norms=folded,
        form=form_of(model, model.graph),
        network=folder.architecture,
    )


def _grids(model: ModelProto) -> dict[str, tuple[float, float]]:
    """Of values that are put on a grid its least and its largest number."""
    held = {tensor.name: tensor for tensor in model.graph.initializer}
    found = {}
    for node in model.graph.node:
        if node.op_type != "QuantizeLinear":
            continue
        numbers = [numpy_helper.to_array(held[name]) for name in node.input[1:] if name in held]
        if [array.size for array in numbers] == [1, 1]:
            step, zero = (array.item() for array in numbers)
            limits = np.iinfo(numbers[1].dtype)
            found[node.input[0]] = (limits.min - zero) * step, (limits.max - zero) * step
    return found


def _run(
    model: ModelProto, folder: Path, pixels: NDArray[np.float32]
) -> dict[str, NDArray[np.float32]]:
    """Every value of the graph by its own name."""
    outputs = {output.name for output in model.graph.output}
    made = dict.fromkeys(name for node in model.graph.node for name in node.output)
    hidden = (helper.make_empty_tensor_value_info(name) for name in made if name not in outputs)
    model.graph.output.extend(hidden)
    options = session_options(optimised=False)
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(folder))
    return run_session(open_session(model, options), PIXELS, pixels)


def _module(node: str, modules: Container[str]) -> str:
    """The module around a convolution that has taken in its batch norm, else the node's own."""
    return node if node in modules else node.removesuffix(_CONVOLUTION)


def _owner(node: str, modules: Container[str]) -> str:
    """The module of whose value a node makes a part; empty if it is none's."""
    while node and node not in modules:
        node, _, _ = node.rpartition(".")
    return node


def _differences(
    graph: GraphProto, nodes: Mapping[str, NodeProto], modules: Container[str]
) -> Iterator[tuple[str, str]]:
    """What nodes say otherwise than the exporter's, by the value they take part in."""
    for expected in reversed(graph.node):  # of several parts of a value the first counts
        found = nodes.get(expected.name)
        difference = _difference(found, expected) if found else "its node is missing"
        if difference:
            yield _owner(expected.name, modules), difference


def _difference(found: NodeProto, expected: NodeProto) -> str | None:
    if found.op_type != expected.op_type:
        return f"its operator is {found.op_type} where {expected.op_type} belongs"
    if found.input != expected.input:
        return f"it reads {', '.join(found.input)} where {', '.join(expected.input)} belongs"
    stated, due = (
        {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        for node in (found, expected)
    )
    for name in due | stated:
        if stated.get(name) != due.get(name):
            return f"its {name} is {stated.get(name)} where {due.get(name)} belongs"
    return None
