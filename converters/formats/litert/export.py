"""The LiteRT exporter: a graph, its weights, and the flatbuffer that holds both."""

from __future__ import annotations

from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from converters.errors import DISTRIBUTION, InputError
from converters.formats.format import DEFAULTS
from converters.formats.litert import schema
from converters.formats.litert.flatbuffer import Data, FlatBuffer
from converters.formats.litert.graph import build_graph, folded_names, widened
from converters.formats.litert.metadata import METADATA_KEY, append_files, packed_metadata
from converters.formats.onnx.file import Weight
from converters.formats.onnx.weights import affine, folded_weights
from converters.formats.stated import stated_in
from regnet.architecture import PIXELS, Norm, folded

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.litert.flatbuffer import Table
    from converters.formats.litert.graph import Graph
    from converters.formats.onnx.form import Element

LARGEST = 2_000_000_000
"""In bytes: distances in a flatbuffer are below 2**31, and this leaves a margin."""

NOTHING_MORE: Mapping[str, str] = MappingProxyType({})
"""Of files that state nothing but classes and images."""

SIGNATURE = "serving_default"
"""What TensorFlow calls the one function that a model has."""

CHANNELS_LAST = (0, 2, 3, 1)
"""Axes of a kernel (out, in, height, width) as (out, height, width, in)."""


def export_litert(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the folder's network for LiteRT, in float32; two exports give the same bytes.

    Input and outputs are those of :func:`converters.formats.litert.graph.build_graph`, under their
    names in the signature ``serving_default``. Batch, height and width are open.

    Raises:
        InputError: Also if the network is beyond 2 GB.
    """
    _export(folder, path, "float32")


def export_float16(folder: ConvertedFolder, path: Path, _: ExportOptions = DEFAULTS) -> None:
    """Write the folder's network with weights in float16, which LiteRT makes float32 of; see above.

    Raises:
        InputError: Also if float16 cannot hold its weights.
    """
    _export(folder, path, "float16")


def _export(folder: ConvertedFolder, path: Path, element: Element) -> None:
    graph = graph_of(folder)
    weights = held_weights(folder, element)
    if element == "float16":
        graph = widened(graph, {name: held.shape for name, held in weights.items()})
    write(folder, path, graph, weights)


def graph_of(folder: ConvertedFolder) -> Graph:
    """The graph of a folder's network, in float32."""
    return build_graph(
        folder.config,
        classifier=folder.has_classifier,
        image_size=folder.image_size,
        network=folder.architecture,
    )


def write(
    folder: ConvertedFolder,
    path: Path,
    graph: Graph,
    weights: Mapping[str, Held],
    stated: Mapping[str, str] = NOTHING_MORE,
) -> None:
    """Write a graph and its weights.

    Args:
        folder: Whose network it is.
        path: Created or replaced.
        graph: All but the weights.
        weights: By name; kernels have channels last.
        stated: What it states of itself beside its classes and images.

    Raises:
        InputError: If the file would be beyond 2 GB.
    """
    file = FlatBuffer.of(_model(folder, graph, weights, stated), schema.IDENTIFIER)
    if file.nbytes > LARGEST:
        raise InputError(
            f"{folder.path} is larger than the 2 GB that a .tflite file can be; export it as onnx."
        )
    file.write(path)
    append_files(folder, path)


def _model(
    folder: ConvertedFolder, graph: Graph, weights: Mapping[str, Held], stated: Mapping[str, str]
) -> Table:
    """The root of the file."""
    held = {**weights, **{name: small(each) for name, each in graph.constants.items()}}
    read = (name for node in graph.nodes for name in (*node.inputs, node.output))
    index = {name: place for place, name in enumerate(dict.fromkeys((PIXELS, *read)))}
    kinds = list(dict.fromkeys(node.kind for node in graph.nodes))
    tensors: list[Table] = []
    buffers: list[Data | None] = [None]
    for name in index:
        if value := graph.values.get(name):
            tensors.append(
                schema.tensor(name, value.shape, value.element, 0, value.signature, value.steps)
            )
        else:
            shape, element, data, steps = held[name]
            tensors.append(schema.tensor(name, shape, element, len(buffers), steps=steps))
            buffers.append(data)
    operators = [
        schema.operator(
            kinds.index(node.kind),
            [index[name] for name in node.inputs],
            index[node.output],
            node.kind,
            node.options,
        )
        for node in graph.nodes
    ]
    inputs, outputs = ({n: index[n] for n in names} for names in ((PIXELS,), folder.output_names))
    network = schema.subgraph(
        folder.config.model_type, tensors, [*inputs.values()], [*outputs.values()], operators
    )
    called = schema.signature(SIGNATURE, inputs, outputs)
    described = _described(folder)
    said = {key: text.encode() for key, text in {**stated_in(folder), **stated}.items()}
    metadata = {}
    for name, content in {**said, METADATA_KEY: packed_metadata(folder, described)}.items():
        metadata[name] = len(buffers)
        buffers.append(small(np.frombuffer(content, np.uint8)).data)
    return schema.model(kinds, network, buffers, described, called, metadata)


class Held(NamedTuple):
    """A tensor whose elements lie in the file.

    Attributes:
        shape: As the file has it.
        element: NumPy's name of the type.
        data: The elements.
        steps: What one is worth, of integers that stand for numbers.
    """

    shape: tuple[int, ...]
    element: str
    data: Data
    steps: schema.Steps | None = None


def small(array: NDArray[Any]) -> Held:
    """What is in memory anyway."""
    return Held(array.shape, array.dtype.name, Data(array.nbytes, lambda: array))


def held_weights(folder: ConvertedFolder, element: Element = "float32") -> dict[str, Held]:
    """Those of ONNX, kernels with channels last, and norms as a product and a sum."""
    weights = {weight.name: _channels_last(weight) for weight in folded_weights(folder, element)}
    for operation in folded(folder.architecture.operations):
        if isinstance(operation, Norm):
            for place, name in enumerate(folded_names(operation.name)):
                compute = partial(_of_norm, folder, operation, place)
                weight = Weight(name, operation.slots[0].shape, compute, element)
                weights[name] = _channels_last(weight)
    return weights


def _of_norm(folder: ConvertedFolder, norm: Norm, place: int) -> NDArray[np.float64]:
    """What a batch norm multiplies by, or adds."""
    return affine(folder, norm)[place]


def _channels_last(weight: Weight) -> Held:
    """A weight as LiteRT holds it: (out, in, height, width) as (out, height, width, in)."""
    if len(weight.shape) != len(CHANNELS_LAST):
        return Held(weight.shape, weight.element, Data(weight.nbytes, weight.computed))
    shape = tuple(weight.shape[axis] for axis in CHANNELS_LAST)

    def compute() -> NDArray[np.floating]:
        return np.ascontiguousarray(weight.computed().transpose(CHANNELS_LAST))

    return Held(shape, weight.element, Data(weight.nbytes, compute))


def _described(folder: ConvertedFolder) -> str:
    """For people."""
    outputs = folder.interface.gives if folder.has_classifier else "features"
    return (
        f"{folder.config.architecture_name(classifier=folder.has_classifier)}: RGB image, "
        f"{folder.interface.takes}, (batch, height, width, channels), to {outputs}; written by "
        f"{DISTRIBUTION}"
    )
