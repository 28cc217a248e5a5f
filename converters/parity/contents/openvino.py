"""What OpenVINO's format holds: constants that the ``.xml`` names and the ``.bin`` holds.

The exporter names weights as our ONNX does. OpenVINO keeps them in shapes of its own: a grouped
kernel with the group as its first axis, a bias or what a norm holds with axes of size 1. The graph
is judged by its numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

from converters.formats.onnx.form import FOLDED_BIAS
from converters.parity.contents.held import Contents, HeldTensor, mapped, part

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}
"""OpenVINO's names of element types to torch's."""

_GROUPED = 5
"""Axes of a grouped kernel: groups, channels out and in of each, height, width."""

_NORM = ".normalization."
"""In the names of tensors of norms, which all have one axis."""

_MOST_VALUES = 4
"""Of a constant that is no weight: axes, sizes and the numbers in an activation."""


def read_openvino(_: ConvertedFolder, path: Path) -> Contents:
    """Read which constants OpenVINO's ``.xml`` names, and where in the ``.bin`` they lie.

    Raises:
        OSError: If a file cannot be opened.
        ValueError: If the ``.xml`` declares entities, or a constant lies outside the ``.bin``.
        xml.etree.ElementTree.ParseError: If it is no XML.
    """
    text = path.read_bytes()
    if b"<!" in text:
        raise ValueError("it declares what XML may expand without end")
    weights = mapped(path.with_suffix(".bin"))
    layers = ET.fromstring(text).iter("layer")  # noqa: S314 -- entities are refused above
    constants = (_held(layer, weights) for layer in layers if layer.get("type") == "Const")
    return Contents(tuple(tensor for tensor in constants if _may_be_weight(tensor)))


def _held(layer: ET.Element, weights: memoryview) -> HeldTensor:
    data = layer.find("data")
    if data is None:
        raise ValueError("a constant has no data")
    name, stated = layer.get("name", ""), data.attrib
    shape = tuple(int(size) for size in stated["shape"].split(",") if size.strip())
    elements = part(weights, int(stated["offset"]), int(stated["size"]))
    dtype = stated["element_type"]
    return HeldTensor(name, _DTYPES.get(dtype, dtype), _as_stored(name, shape), elements)


def _as_stored(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape that the weights have, in which groups are part of the first axis."""
    if len(shape) == _GROUPED:
        return (shape[0] * shape[1], *shape[2:])
    if name.endswith((".bias", FOLDED_BIAS)) or _NORM in name:
        return (math.prod(shape),)
    return shape


def _may_be_weight(tensor: HeldTensor) -> bool:
    """Whether it has a weight's name, or as many values as one."""
    return "." in tensor.name or math.prod(tensor.shape) > _MOST_VALUES
