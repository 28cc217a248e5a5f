"""Faults in the graph of an ONNX file."""

from __future__ import annotations

import re
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, get_args

from onnx import ModelProto, NodeProto, TensorProto, helper

from benchmarks.mutation.artefact import OnnxArtefact
from benchmarks.mutation.mutant import Mutant, spread
from converters.formats.onnx.graph import build_graph
from regnet.config import Activation
from tests.converters.parity.faults import becomes, sets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import numpy as np

    from benchmarks.mutation.artefact import Artefact
    from converters.folder.folder import ConvertedFolder

    NodeFault = Callable[[ModelProto, NodeProto], None]
    ModelFault = Callable[[ModelProto], None]

_IMAGE_RANGE = (-2.12, 2.64)
"""What normalised photographs lie in."""


def in_place(change: Callable[[NodeProto], None]) -> NodeFault:
    """A fault that needs to see its node alone."""
    return lambda _, node: change(node)


def feed_through(operator: str, position: int = 0, *more: float, **attributes: Any) -> NodeFault:
    """An operator between a node and one of its inputs, with scalars for further inputs."""

    def plant(model: ModelProto, node: NodeProto) -> None:
        name = f"{node.name}.{operator.lower()}{len(model.graph.node)}"
        inputs = [node.input[position], *_scalars(model, node, more)]
        new = helper.make_node(operator, inputs, [name], name=name, **attributes)
        _insert_before(model, node, new)
        node.input[position] = name

    return plant


def _scalars(model: ModelProto, node: NodeProto, values: Iterable[float]) -> Iterator[str]:
    """Constants before a node; gives their names."""
    for value in values:
        name = f"{node.name}.scalar{len(model.graph.node)}"
        new = helper.make_node("Constant", [], [name], name=name, value_float=float(value))
        _insert_before(model, node, new)
        yield name


def _insert_before(model: ModelProto, node: NodeProto, new: NodeProto) -> None:
    place = next(i for i, each in enumerate(model.graph.node) if each.name == node.name)
    model.graph.node.insert(place, new)


def clipped(low: float, high: float) -> NodeFault:
    """A Clip for the operator of a node."""

    def plant(model: ModelProto, node: NodeProto) -> None:
        ends = list(_scalars(model, node, (low, high)))
        becomes("Clip")(node)
        node.input.extend(ends)

    return plant


def _rounded(dtype: int) -> NodeFault:
    """What a node reads goes through another type of float."""

    def plant(model: ModelProto, node: NodeProto) -> None:
        feed_through("Cast", to=dtype)(model, node)
        feed_through("Cast", to=TensorProto.FLOAT)(model, node)

    return plant


def _from_block_before(model: ModelProto, node: NodeProto) -> None:
    """A shortcut that begins a block too early, where that has one."""
    stage, number, _ = node.name.rsplit(".", 2)
    name = f"{stage}.{int(number) - 1}.add"
    earlier = [each.input[1] for each in model.graph.node if each.name == name]
    node.input[1] = next(iter(earlier), node.input[1])


def _before_activation(model: ModelProto, node: NodeProto) -> None:
    """A shortcut from the sum of the block before, not from its activation, if it has one."""
    name = f"{node.input[1].removesuffix('activation')}add"
    if any(each.name == name for each in model.graph.node):
        node.input[1] = name


def _same_padding(node: NodeProto) -> None:
    sets(auto_pad="SAME_UPPER")(node)
    node.attribute.remove(next(each for each in node.attribute if each.name == "pads"))


def _second_twice(node: NodeProto) -> None:
    node.input[0] = node.input[1]


def _twice_as_many(node: NodeProto) -> None:
    """Groups that a norm's channels are taken for."""
    images, groups, rest = node.attribute[0].ints
    sets(value_ints=[images, 2 * groups, rest])(node)


def _group_more(node: NodeProto, by: int) -> None:
    sets(group=next(a.i for a in node.attribute if a.name == "group") + by)(node)


def _stride_one(model: ModelProto, node: NodeProto) -> None:
    """In a 3x3 convolution, and in the shortcut beside it, so that the shapes fit."""
    block = node.name.rpartition(".layer.")[0]
    for each in model.graph.node:
        if each.name in {node.name, f"{block}.shortcut.convolution"}:
            sets(strides=[1, 1])(each)


_CONV = r"Conv .*layer\.1\.convolution|Conv .*embedder\.convolution"
_STRIDED = r"Conv .*layers\.0\.layer\.1\.convolution|Conv .*embedder\.convolution"
ACTIVATION = r"Relu .*\.activation"
SUM = r"Add .*\.layers\.\d+\.add"
POOLER = r".* (regnet\.)?pooler"
_LATER_SUM = r"Add .*\.layers\.[1-9]\d*\.add"
_INPUT = r"Conv .*embedder\.convolution"
_OUTPUT = r"Gemm .*"

NODE_FAULTS: dict[str, tuple[str, NodeFault]] = {
    "stride 1 for 2": (_STRIDED, _stride_one),
    "padding at the end": (_CONV, in_place(sets(pads=[0, 0, 2, 2]))),
    "padding at the beginning": (_CONV, in_place(sets(pads=[2, 2, 0, 0]))),
    "TensorFlow's SAME padding": (_STRIDED, in_place(_same_padding)),
    "no padding": (_INPUT, in_place(sets(pads=[0, 0, 0, 0]))),
    "dilation 2": (_CONV, in_place(sets(dilations=[2, 2], pads=[2] * 4))),
    "one group more": (_CONV, in_place(partial(_group_more, by=1))),
    "ReLU missing": (ACTIVATION, in_place(becomes("Identity"))),
    "ReLU6 for ReLU": (ACTIVATION, clipped(0, 6)),
    "ReLU clipped at float16's largest": (ACTIVATION, clipped(0, 65504)),
    "LeakyReLU for ReLU": (ACTIVATION, in_place(becomes("LeakyRelu", alpha=0.01))),
    "ELU for ReLU": (ACTIVATION, in_place(becomes("Elu"))),
    "hard sigmoid in a SiLU": (r"Sigmoid .*activation.sigmoid", in_place(becomes("HardSigmoid"))),
    "tanh for erf in a GELU": (r"Erf .*", in_place(becomes("Tanh"))),
    "hard sigmoid for the gate": (r"Sigmoid .*attention\.3", in_place(becomes("HardSigmoid"))),
    "tanh for the gate": (r"Sigmoid .*attention\.3", in_place(becomes("Tanh"))),
    "squeeze without ReLU": (r"Relu .*attention\.1", in_place(becomes("Identity"))),
    "largest value squeezed": (r".* .*layer\.2\.pooler", in_place(becomes("GlobalMaxPool"))),
    "gate missing": (r"Mul .*layer\.2\.mul", in_place(becomes("Identity"))),
    "gate added": (r"Mul .*layer\.2\.mul", in_place(becomes("Add", inputs=2))),
    "residual missing": (SUM, in_place(becomes("Identity"))),
    "shortcut twice": (SUM, in_place(_second_twice)),
    "difference for sum": (SUM, in_place(becomes("Sub", inputs=2))),
    "shortcut from a block before": (_LATER_SUM, _from_block_before),
    "shortcut from before the activation": (_LATER_SUM, _before_activation),
    "largest value for the mean": (POOLER, in_place(becomes("GlobalMaxPool"))),
    "epsilon 1e-3": (r"BatchNormalization .*", in_place(sets(epsilon=1e-3))),
    "epsilon 2e-5": (r"BatchNormalization .*", in_place(sets(epsilon=2e-5))),
    "epsilon 1.1e-5": (r"BatchNormalization .*", in_place(sets(epsilon=1.1e-5))),
    "values rounded to float16": (_CONV, _rounded(TensorProto.FLOAT16)),
    "values rounded to bfloat16": (_CONV, _rounded(TensorProto.BFLOAT16)),
    "height and width exchanged": (_INPUT, feed_through("Transpose", perm=[0, 1, 3, 2])),
    "input clipped": (_INPUT, feed_through("Clip", 0, *_IMAGE_RANGE)),
    "input rescaled again": (_INPUT, feed_through("Mul", 0, 1 / 255)),
    "classifier scaled": (_OUTPUT, in_place(sets(alpha=0.5))),
    "classifier bias halved": (_OUTPUT, in_place(sets(beta=0.5))),
}
"""What is planted, and in which nodes, by operator and name."""

_POOLER = r"AveragePool .*shortcut\.pooler"
_PIXELS: dict[str, Any] = {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1}

WIDER_NODE_FAULTS: dict[str, tuple[str, NodeFault]] = {
    "no ceiling in a mean of 2x2": (_POOLER, in_place(sets(ceil_mode=0))),
    "padding counted in a mean of 2x2": (
        _POOLER,
        in_place(sets(ceil_mode=0, pads=[0, 0, 1, 1], count_include_pad=1)),
    ),
    "largest of 2x2 for the mean": (
        _POOLER,
        in_place(becomes("MaxPool", **_PIXELS)),
    ),
    "variance for deviation": (r"Sqrt .*\.deviation", in_place(becomes("Identity"))),
    "mean not subtracted": (r"Sub .*\.centred", in_place(becomes("Identity"))),
    "largest value for a group's mean": (
        r"GlobalAveragePool .*normalization\.mean",
        in_place(becomes("GlobalMaxPool")),
    ),
    "hard sigmoid in an EvoNorm": (
        r"Sigmoid .*normalization\.sigmoid",
        in_place(becomes("HardSigmoid")),
    ),
    "v lost": (r"Mul .*\.sloped", in_place(becomes("Identity"))),
    "a norm's weight lost": (r"Mul .*normalization\.scaled", in_place(becomes("Identity"))),
    "a norm's bias lost": (r"Add .*\.normalization", in_place(becomes("Identity"))),
    "a norm's epsilon 1.1e-3": ("Constant epsilon", in_place(sets(value_float=1.1e-3))),
    "twice as many groups": (r"Constant shape_0_\d+_rest", in_place(_twice_as_many)),
}
"""Likewise in networks that transformers does not have."""


def _fixed(model: ModelProto, sizes: dict[int, int]) -> None:
    dimensions = model.graph.input[0].type.tensor_type.shape.dim
    for axis, size in sizes.items():
        dimensions[axis].dim_value = size


def _everywhere(model: ModelProto, epsilon: float) -> None:
    for node in model.graph.node:
        if node.op_type == "BatchNormalization":
            sets(epsilon=epsilon)(node)


def _appended(model: ModelProto, operator: str, **attributes: Any) -> None:
    """An operator behind the first output."""
    output = model.graph.output[0].name
    node = next(each for each in model.graph.node if output in each.output)
    node.output[0] = before = f"{output}.before"
    model.graph.node.append(
        helper.make_node(operator, [before], [output], name=f"{output}.after", **attributes)
    )


def _outputs_exchanged(model: ModelProto) -> None:
    """Both outputs under each other's name, with the shapes to fit."""
    first, second = model.graph.output
    names = {first.name: second.name, second.name: first.name}
    for node in model.graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(value, value) for value in values]
    shapes = deepcopy(first.type), deepcopy(second.type)
    first.type.CopyFrom(shapes[1])
    second.type.CopyFrom(shapes[0])


def _renamed_output(model: ModelProto) -> None:
    output = model.graph.output[0].name
    node = next(each for each in model.graph.node if output in each.output)
    model.graph.output[0].name = "output"
    for each in model.graph.node:
        each.input[:] = ["output" if value == output else value for value in each.input]
    node.output[0] = "output"


MODEL_FAULTS: dict[str, ModelFault] = {
    "fixed batch": partial(_fixed, sizes={0: 1}),
    "fixed size": partial(_fixed, sizes={2: 64, 3: 64}),
    "epsilon 1e-3": partial(_everywhere, epsilon=1e-3),
    "epsilon 2e-5": partial(_everywhere, epsilon=2e-5),
    "epsilon 1.1e-5": partial(_everywhere, epsilon=1.1e-5),
    "softmax added": partial(_appended, operator="Softmax", axis=1),
    "output negated": partial(_appended, operator="Neg"),
    "outputs exchanged": _outputs_exchanged,
    "output under another name": _renamed_output,
}
"""What has no node of its own."""


def graph_mutants(
    model: ModelProto, folder: ConvertedFolder, count: int, random: np.random.Generator
) -> Iterator[Mutant]:
    """Every kind of fault, in ``count`` nodes each."""
    yield from _node_mutants(model, count, random)
    yield from _model_mutants(folder)


def nodes_where(model: ModelProto, where: str) -> list[NodeProto]:
    """The nodes whose operator and name match, in the order of the network."""
    return [node for node in model.graph.node if re.fullmatch(where, f"{node.op_type} {node.name}")]


def _node_mutants(model: ModelProto, count: int, random: np.random.Generator) -> Iterator[Mutant]:
    for kind, (where, fault) in {**NODE_FAULTS, **WIDER_NODE_FAULTS}.items():
        places = [node.name for node in nodes_where(model, where)]
        for place in spread(places, count, random):
            yield Mutant(kind, place, partial(_plant_in_node, fault=fault, place=place))


def _plant_in_node(artefact: Artefact, fault: NodeFault, place: str) -> None:
    model = model_of(artefact)
    fault(model, next(node for node in model.graph.node if node.name == place))


def _model_mutants(folder: ConvertedFolder) -> Iterator[Mutant]:
    for kind, fault in MODEL_FAULTS.items():
        if kind != "outputs exchanged" or not folder.has_classifier:
            plant = partial(_plant_in_model, fault=fault)
            yield Mutant(kind, "everywhere", plant)


def configuration_mutants(folder: ConvertedFolder) -> Iterator[Mutant]:
    """The nodes of other configurations, around the same weights."""
    for fields in other_configurations(folder):
        plant = partial(_plant_nodes, folder=folder, fields=fields)
        (kind,) = fields
        yield Mutant(f"another {kind}", str(fields[kind]), plant)


def _plant_in_model(artefact: Artefact, fault: ModelFault) -> None:
    fault(model_of(artefact))


def _plant_nodes(artefact: Artefact, folder: ConvertedFolder, fields: dict[str, Any]) -> None:
    """The nodes of another configuration, around the same weights."""
    graph = model_of(artefact).graph
    config = deepcopy(folder.config)
    for key, value in fields.items():
        setattr(config, key, value)
    folded = any(tensor.name.endswith(".folded_weight") for tensor in graph.initializer)
    written = build_graph(config, classifier=folder.has_classifier, fold_norms=folded)
    del graph.node[:]
    graph.node.extend(written.node)


def other_configurations(folder: ConvertedFolder) -> Iterator[dict[str, Any]]:
    """Fields that the shapes of the weights say nothing about, with another value."""
    for activation in get_args(Activation):
        if activation != folder.config.hidden_act:
            yield {"hidden_act": activation}
    yield {"downsample_in_first_stage": not folder.config.downsample_in_first_stage}
    if folder.config.wider_fields():
        yield {"norm_eps": 2 * folder.config.norm_eps}
        yield {"padding": "symmetric" if folder.config.padding == "same" else "same"}


def model_of(artefact: Artefact) -> ModelProto:
    """The model of an ONNX artefact.

    Raises:
        TypeError: If it is another.
    """
    if not isinstance(artefact, OnnxArtefact):
        raise TypeError(f"{artefact} is no ONNX file.")
    return artefact.model
