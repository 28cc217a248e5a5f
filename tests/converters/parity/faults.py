"""Single faults, planted in one node of an ONNX file, and the module each belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import NodeProto, helper, numpy_helper

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto

    Change = Callable[[NDArray[Any]], NDArray[Any]]


@dataclass(frozen=True)
class Operation:
    """A node that computes something else.

    Attributes:
        place: How the names of the nodes end that it can be planted in.
        plant: Changes the node.
        shows: Whether the values must show it; else the certificate is enough.
        only_y: Whether only Y networks have such nodes.
        only_sharing: Whether only sharing files have them.
    """

    place: str
    plant: Callable[[NodeProto], None]
    shows: bool = True
    only_y: bool = False
    only_sharing: bool = False

    def nodes(self, model: ModelProto) -> Iterator[NodeProto]:
        return (node for node in model.graph.node if node.name.endswith(self.place))


def becomes(operator: str, inputs: int = 1, **attributes: Any) -> Callable[[NodeProto], None]:
    """Another operator on the first inputs."""

    def plant(node: NodeProto) -> None:
        node.op_type = operator
        del node.input[inputs:], node.attribute[:]
        node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())

    return plant


def sets(**attributes: Any) -> Callable[[NodeProto], None]:
    """Other attributes."""

    def plant(node: NodeProto) -> None:
        kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
        del node.attribute[:]
        changed = (helper.make_attribute(*item) for item in attributes.items())
        node.attribute.extend([*kept, *changed])

    return plant


def _second_input_twice(node: NodeProto) -> None:
    node.input[0] = node.input[1]


OPERATIONS = {
    "a missing ReLU": Operation(".activation", becomes("Identity")),
    "an ELU for a ReLU": Operation(".activation", becomes("Elu")),
    "a padding at the end": Operation("layer.1.convolution", sets(pads=[0, 0, 2, 2])),
    "a dilation": Operation("layer.1.convolution", sets(dilations=[2, 2], pads=[2] * 4)),
    "a missing sum": Operation(".add", becomes("Identity")),
    "a shortcut added to itself": Operation(".add", _second_input_twice),
    "a difference for a sum": Operation(".add", becomes("Sub", inputs=2)),
    "a largest value for the mean": Operation("regnet.pooler", becomes("GlobalMaxPool")),
    "half of the classifier": Operation("classifier.1", sets(alpha=0.5)),
    "an epsilon of 1e-3": Operation(".normalization", sets(epsilon=1e-3), only_sharing=True),
    "an epsilon of 2e-5": Operation(
        ".normalization", sets(epsilon=2e-5), shows=False, only_sharing=True
    ),
    "a largest value squeezed": Operation("2.pooler", becomes("GlobalMaxPool"), only_y=True),
    "a hard sigmoid": Operation(".attention.3", becomes("HardSigmoid"), only_y=True),
    "a squeeze without ReLU": Operation(".attention.1", becomes("Identity"), only_y=True),
    "a missing gate": Operation(".mul", becomes("Identity"), only_y=True),
}


def replace_tensor(model: ModelProto, folder: Path, name: str, change: Change) -> None:
    """Change an initialiser, which then lies in the file itself, even if it was shared."""
    tensor = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array = change(numpy_helper.to_array(tensor, str(folder)))
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def change_tensor(model: ModelProto, folder: Path, name: str, channel: int) -> None:
    """Change one output channel of an initialiser."""
    replace_tensor(model, folder, name, lambda array: changed_channel(array, channel))


def changed_channel(array: NDArray[Any], channel: int) -> NDArray[Any]:
    """A copy with one output channel half as large again, and a little more; never negative."""
    array = array.copy()
    array[channel] = np.float32(1.5) * array[channel] + np.float32(0.1)
    return array
