"""64 and 65: ONNX files, which hold a graph beside their tensors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.converters.checkpoint.mindspore_files import run
from tests.frameworks.environments import RECORDED
from tests.hostile.test_named_tensors import CONTROL, refused

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from onnx import ModelProto, NodeProto

    from tests.hostile.victim import Victim

NETWORK = RECORDED / "onnx" / "timm-x.onnx"
GRAPH, NODE, ATTRIBUTES, OPERATOR = 7, 1, 5, 4
"""Fields of a model, a graph and a node."""


def holding(*tensors: TensorProto) -> bytes:
    """A graph of nothing but tensors."""
    return graph([], tensors)


def graph(
    nodes: Sequence[NodeProto], tensors: Sequence[TensorProto] = (), opset: int = 18
) -> bytes:
    """A graph of images, which need not be sound."""
    image = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 8, 8])
    content = helper.make_graph(nodes, "g", [image], [], initializer=tensors)
    opsets = [helper.make_opsetid("", opset)]
    return bytes(helper.make_model(content, opset_imports=opsets).SerializeToString())


def tensor(dims: tuple[int, ...] = (2, 3), size: int = 24, name: str = "w") -> TensorProto:
    return TensorProto(name=name, data_type=TensorProto.FLOAT, dims=dims, raw_data=bytes(size))


def beside(location: str, name: str = "w", **place: int) -> TensorProto:
    """A tensor whose elements lie in another file."""
    found = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=[2, 3])
    found.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, **place}.items():
        found.external_data.add(key=key, value=str(value))
    return found


def changed(edit: Callable[[ModelProto], object]) -> bytes:
    """A network to which something was done."""
    model = onnx.load(NETWORK)
    edit(model)
    return bytes(model.SerializeToString())


def test_64_onnx_whose_tensors_lie_elsewhere_or_cannot_be(victim: Victim) -> None:
    victim.put(bytes(40), "w.data")
    Path("link").symlink_to("/etc/hostname")
    elsewhere = ("../w.data", "/etc/hostname", "a/../../w.data", "C:\\w.data", "..")
    refused(victim, 3, *(holding(beside(location)) for location in elsewhere))
    refused(victim, 2, *(holding(beside(location)) for location in ("absent", "link", "", ".")))
    places: tuple[dict[str, int], ...] = (
        {"offset": 41},
        {"offset": 20, "length": 24},
        {"offset": -4, "length": 24},
        {"offset": 1 << 62, "length": 1 << 62},
        {"length": 20},
    )
    refused(victim, 2, *(holding(beside("w.data", **place)) for place in places))
    overlapping = beside("w.data", "a", offset=0, length=24), beside("w.data", offset=8, length=24)
    sizes = ((1 << 40, 1 << 40), (1 << 32, 1 << 31, 2), (-2, -3), (1 << 62,), (1,) * 65, (3, 3))
    refused(victim, 2, holding(*overlapping), *(holding(tensor(dims)) for dims in sizes))
    twice = tensor()
    twice.float_data.append(1.0)
    refused(victim, 2, holding(tensor(size=23)), holding(twice), holding(tensor(), tensor()))

    def spoil(model: ModelProto) -> None:
        kernel = next(each for each in model.graph.initializer if len(each.dims) == 4)
        kernel.raw_data = np.float32(np.nan).tobytes() + kernel.raw_data[4:]

    refused(victim, 2, changed(spoil))
    victim.put(holding(beside("../w.data")))
    victim.refused(3, "inspect", "model.pyth", "--security", "-q")


def chain(operator: str, length: int) -> bytes:
    """Each node reads the one before, twice if it takes two."""
    count = 1 + (operator in {"Add", "Mul"})
    nodes = [
        helper.make_node(operator, [f"v{index}" if index else "x"] * count, [f"v{index + 1}"])
        for index in range(length)
    ]
    return graph(nodes)


def flood(node: bytes, count: int) -> bytes:
    """A graph of many nodes, by the bytes of one."""
    model = onnx.ModelProto.FromString(graph([]))
    nodes = run(NODE, node) * count + model.graph.SerializeToString()
    model.ClearField("graph")
    return bytes(model.SerializeToString()) + run(GRAPH, nodes)


def nested(depth: int) -> bytes:
    """Branches in branches."""
    node = b""
    for _ in range(depth):
        inside = run(1, b"then_branch") + b"\xa0\x01\x05" + run(6, run(NODE, node))
        node = run(OPERATOR, b"If") + run(ATTRIBUTES, inside)
    return flood(node, 1)


def test_65_onnx_whose_graph_is_endless_or_blows_up(victim: Victim) -> None:
    def close(model: ModelProto) -> None:
        model.graph.node[0].input[0] = model.graph.node[-1].output[0]

    def repeat(model: ModelProto) -> None:
        model.graph.node[5].output[0] = model.graph.node[1].output[0]

    def name(model: ModelProto) -> None:
        model.graph.node[3].name, model.graph.node[3].op_type = CONTROL, "Softmax"

    def restate(model: ModelProto) -> None:
        model.graph.node[0].attribute.append(model.graph.node[0].attribute[0])

    refused(victim, 2, *(changed(edit) for edit in (close, repeat, name, restate)))
    refused(victim, 2, graph([helper.make_node("Relu", ["y"], ["y"])]))
    relu = run(1, b"a") + run(2, b"b") + run(OPERATOR, b"Relu")
    refused(victim, 2, flood(relu, 1_000_000), nested(5_000))
    refused(victim, 2, *(chain(operator, 500) for operator in ("Relu", "Mul", "Add", "Identity")))
    number = numpy_helper.from_array(np.float32(1), "c")
    often = [numpy_helper.from_array(np.array([(1 << 20) - i]), f"s{i}") for i in range(100)]
    expand = [helper.make_node("Expand", ["c", f"s{i}"], [f"v{i}"]) for i in range(100)]
    refused(victim, 2, graph(expand, [number, *often]))
    refused(victim, 2, *(graph([], opset=opset) for opset in (0, 6, 29, 1 << 62)))
    model = onnx.load(NETWORK)
    model.functions.add(name="f")
    refused(victim, 2, bytes(model.SerializeToString()), NETWORK.read_bytes()[:-1])
