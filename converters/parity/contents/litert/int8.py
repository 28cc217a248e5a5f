"""What a ``.tflite`` file in int8 states, and whether it computes just that in integers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import printable
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.int8_graph import Int8Plan, layer_names
from converters.formats.onnx.quantised import Quantisation
from converters.parity.contents.litert.codes import Code
from converters.parity.contents.litert.model import stated_in_model

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.litert.walk import Walk


def details(path: Path) -> dict[str, Any]:
    """What is recorded of an int8 file beside its digest: what it states, as values for JSON.

    Raises:
        ValueError: If it is damaged, or states nothing.
    """
    return Quantisation.stated(stated_in_model(path)).details


def computed_in_integers(folder: ConvertedFolder, left: Collection[str]) -> set[str]:
    """The values that are computed in integers if some layers are left in float."""
    graph = build_graph(folder.config, classifier=folder.has_classifier, fold_norms=True)
    return Int8Plan(graph, layer_names(folder), left).computed


def other_values(walk: Walk, computed: Collection[str]) -> Iterator[str]:
    """Values that are computed in integers and should not be, or the other way round."""
    found = {each.tensor for each in walk.found.values()}
    due = {walk.found[name].tensor for name in computed if name in walk.found}
    for step in walk.model.steps:
        (made,) = step.outputs
        tensor = walk.model.tensors[made]
        if step.code in {Code.QUANTIZE, Code.DEQUANTIZE}:
            if step.inputs[0] not in found:
                yield f"{printable(tensor.name)} is moved in the middle of an operation"
        elif made in found and (tensor.dtype == "int8") != (made in due):
            kind = "int8" if made in due else "float32"
            yield f"{printable(tensor.name)} is not computed in {kind}, as the file states"
