"""What OpenVINO's format holds: constants that the ``.xml`` names and the ``.bin`` holds.

The exporter names weights as our ONNX does. OpenVINO keeps them in shapes of its own: a grouped
kernel with the group as its first axis, a bias or what a norm holds with axes of size 1. The graph
is judged by its numbers.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import printable
from converters.formats.onnx.form import FOLDED_BIAS
from converters.formats.openvino import parsed_xml
from converters.parity.contents.held import Contents, HeldTensor, mapped, part
from regnet.architecture import NORMALISED, PROBABILITIES, Normalise, Softmax

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from xml.etree import ElementTree as ET

    from converters.folder.folder import ConvertedFolder

_NUMBERS = (f"{NORMALISED}.mean", f"{NORMALISED}.std")
"""Constants by which images are normalised."""

_ENDS_OF_IMAGES = {f"{NORMALISED}.centred": "Subtract", NORMALISED: "Divide"}
_ENDS = (*_ENDS_OF_IMAGES, PROBABILITIES)
"""Layers before and behind the network, and their kinds."""

_DTYPES = {"f32": "float32", "f16": "float16", "bf16": "bfloat16", "f64": "float64"}
"""OpenVINO's names of element types to torch's."""

_GROUPED = 5
"""Axes of a grouped kernel: groups, channels out and in of each, height, width."""

_NORM = ".normalization."
"""In the names of tensors of norms, which all have one axis."""

_MOST_VALUES = 4
"""Of a constant that is no weight: axes, sizes and the numbers in an activation."""


def read_openvino(folder: ConvertedFolder, path: Path) -> Contents:
    """Read which constants OpenVINO's ``.xml`` names, and where in the ``.bin`` they lie.

    Raises:
        OSError: If a file cannot be opened.
        ValueError: If the ``.xml`` declares entities, or a constant lies outside the ``.bin``.
        xml.etree.ElementTree.ParseError: If it is no XML.
    """
    layers = list(parsed_xml(path).iter("layer"))
    weights = mapped(path.with_suffix(".bin"))
    held = [_held(layer, weights) for layer in layers if layer.get("type") == "Const"]
    kinds = {layer.get("name", ""): layer.get("type", "") for layer in layers}
    numbers = {tensor.name: tensor for tensor in held if tensor.name in _NUMBERS}
    return Contents(
        tuple(each for each in held if _may_be_weight(each) and each.name not in numbers),
        faults=tuple(_faults_at_the_ends(folder, kinds, numbers)),
    )


def _faults_at_the_ends(
    folder: ConvertedFolder, kinds: Mapping[str, str], numbers: Mapping[str, HeldTensor]
) -> Iterator[str]:
    """What of the normalisation and the probabilities is missing, too much or another."""
    first, *_, last = folder.architecture.operations
    normalises, gives = isinstance(first, Normalise), isinstance(last, Softmax)
    due = dict.fromkeys(_ENDS) | (_ENDS_OF_IMAGES if normalises else {})
    due |= {PROBABILITIES: "SoftMax"} if gives else {}
    for name, kind in due.items():
        if (found := kinds.get(name)) != kind:
            yield f"{name} is {printable(found or 'missing')} where {kind or 'nothing'} belongs"
    for name in _NUMBERS if normalises else ():
        wanted = np.array(getattr(first, name.rpartition(".")[2]), np.float32)
        tensor = numbers.get(name)
        if tensor is None or tensor.dtype != "float32" or bytes(tensor.data) != wanted.tobytes():
            yield f"{name} is not that of the folder's image processor"


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
