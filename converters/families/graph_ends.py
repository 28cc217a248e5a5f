"""What a graph does to images before its network, and to the logits behind it.

A deployed network may normalise its images itself and give probabilities. Without these ends its
graph is read like any other (`converters.families.graph_network`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.checkpoint.graph import Constant

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from converters.checkpoint.graph import Graph, Node


_LESS, _DIVIDED = {"Sub", "sub"}, {"Div", "div", "true_divide"}
_SOFTMAX = {"Softmax", "softmax", "_softmax"}
"""Names of operators, ONNX's and ATen's."""

_CLASSES = 1
"""The axis of probabilities."""

_AXIS = ("axis", "dim", "argument 1")
"""What it is called: by ONNX, by torch.export, and in TorchScript's code, which names none."""


@dataclass(frozen=True, slots=True)
class Ends:
    """What was found around a network.

    Attributes:
        mean: What is subtracted from each channel of an image; empty if nothing is.
        std: What that is divided by; likewise.
        softmax: Whether the graph gives probabilities.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    softmax: bool = False


def without_ends(graph: Graph) -> tuple[Graph, Ends]:
    """Take the normalisation off the begin of a graph, and the softmax off its end.

    Constants that are used for nothing else go with them; what is left is otherwise untouched.
    """
    graph, mean, std = _without_normalisation(graph)
    makers = {output: node for node in graph.nodes for output in node.outputs}
    last = makers.get(graph.outputs[0].name) if len(graph.outputs) == 1 else None
    if last is None or last.op not in _SOFTMAX or not _over_classes(last):
        return graph, Ends(mean, std)
    (output,) = graph.outputs
    left = tuple(node for node in graph.nodes if node is not last)
    graph = replace(graph, nodes=left, outputs=(replace(output, name=last.inputs[0]),))
    return graph, Ends(mean, std, softmax=True)


def _over_classes(node: Node) -> bool:
    stated = {key: value for key, value in node.attributes.items() if value is not None}
    axes = {stated.pop(key) for key in _AXIS if key in stated}
    return axes <= {_CLASSES, -1} and len(axes) == 1 and not any(stated.values())


def _without_normalisation(
    graph: Graph,
) -> tuple[Graph, tuple[float, ...], tuple[float, ...]]:
    numbers: list[tuple[float, ...]] = []
    taken: list[Node] = []
    known = _constants(graph)
    (image,) = graph.inputs if len(graph.inputs) == 1 else (None,)
    value = image.name if image else ""
    for operators in (_LESS, _DIVIDED):
        readers = [node for node in graph.nodes if value in node.inputs]
        if len(readers) != 1 or not _is_of_each_channel(known, readers[0], value, operators):
            return graph, (), ()
        (node,) = readers
        constant = known[node.inputs[1]]
        numbers.append(tuple(map(float, constant.numbers or ())))
        taken.append(node)
        value = node.outputs[0]
    left = tuple(node for node in graph.nodes if node not in taken)
    read = {name for node in left for name in node.inputs}
    gone = {node.inputs[1] for node in taken} - read
    constants = {name: each for name, each in graph.constants.items() if name not in gone}
    left = tuple(n for n in left if not (n.outputs and gone.issuperset(n.outputs)))
    assert image is not None  # noqa: S101 -- for mypy: something reads it
    inputs = (replace(image, name=value),)
    return replace(graph, inputs=inputs, nodes=left, constants=constants), numbers[0], numbers[1]


def _constants(graph: Graph) -> dict[str, Constant]:
    """Those of the whole graph, and those that ONNX has nodes for."""
    made = {
        node.outputs[0]: value
        for node in graph.nodes
        if node.op == "Constant" and isinstance(value := node.attributes.get("value"), Constant)
    }
    return {**graph.constants, **made}


def _is_of_each_channel(
    known: Mapping[str, Constant], node: Node, value: str, operators: Collection[str]
) -> bool:
    """Whether a node combines a value with a number for each channel of it, and nothing else."""
    if node.op not in operators or len(node.inputs) != 2 or node.inputs[0] != value:  # noqa: PLR2004
        return False
    constant = known.get(node.inputs[1])
    if constant is None or constant.numbers is None or constant.dtype != "float32":
        return False
    alike = node.attributes.get("alpha", 1) == 1 and set(node.attributes) <= {"alpha"}
    return alike and len(constant.shape) >= 3 and constant.shape[-2:] == (1, 1)  # noqa: PLR2004
