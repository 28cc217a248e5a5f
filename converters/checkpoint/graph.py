"""A network as an exporter leaves it: nodes, the values between them, and constants.

What any of it means is not known here; see `converters.families.graph_values`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from converters.errors import printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint.values import StoredTensor

Number = int | float

LABELS, PREPROCESSING = "id2label", "preprocessing"
"""Keys of what this project's files state beside the network, as JSON: the names of classes, and
the settings of the image processor."""

INTERFACE = "interface"
"""Key of what they take and give, where that is more than the network does: an object whose keys
are called like the options ``--normalize`` and ``--softmax``."""

BLOCKS = "blocks"
"""Key of what this project's files state whose groups of channels lie in blocks: JSON, for each
stage how many channels each group of the network takes and how many groups are one, or null."""


@dataclass(frozen=True, slots=True)
class Constant:
    """A tensor that is in the file.

    Attributes:
        dtype: torch's name of the element type, or what the format calls one that torch lacks.
        shape: The sizes.
        tensor: Where its elements lie; None if they do not lie one after another.
        numbers: Its elements in row-major order, if they are few; else None.
    """

    dtype: str
    shape: tuple[int, ...]
    tensor: StoredTensor | None = None
    numbers: tuple[Number, ...] | None = None


Attribute = int | float | str | tuple[int | str, ...] | tuple[float, ...] | Constant | None
"""Of a node; None for what no network of images needs, such as a graph of its own, and ATen's None.
A text among sizes is the name of a value."""


@dataclass(frozen=True, slots=True)
class Node:
    """A step of the computation.

    Attributes:
        name: Its own; often empty.
        op: The operator.
        domain: Whose operator; empty for the format's own.
        inputs: Names of the values and constants that it reads; empty where one is left out.
        outputs: Names of the values that it makes.
        attributes: By name.
    """

    name: str
    op: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """What messages call it: ``Conv 'conv2d_3'``, by its first output if it has no name."""
        operator = f"{self.domain}.{self.op}" if self.domain else self.op
        name = self.name or next(filter(None, self.outputs), "")
        return f"{printable(operator)} '{printable(name)}'"


@dataclass(frozen=True, slots=True)
class ValueInfo:
    """What a graph takes or gives.

    Attributes:
        name: Of the value.
        dtype: As of a :class:`Constant`; empty if it is not stated.
        shape: The sizes, None for those that are open; None if nothing is stated.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, slots=True)
class Graph:
    """The whole.

    Attributes:
        inputs: What it takes; constants that could be replaced are not among them.
        outputs: What it gives.
        nodes: In the order of computation.
        constants: By name.
        opset: Version of the operators.
        producer: What wrote it, and which version of that; empty if nothing says so.
    """

    inputs: tuple[ValueInfo, ...]
    outputs: tuple[ValueInfo, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, Constant]
    opset: int
    producer: str = ""
