"""ONNX from bytes to classes: resize, crop, rescale, normalise, network, probabilities, best five.

What comes before the network is `regnet.image_processor.RegNetImageProcessor`, which resizes as
Pillow does. ONNX's Resize says the same with ``antialias`` (a filter as wide as the image shrinks),
with weights beyond the border left out (``exclude_outside``) and with Pillow's cubic, whose
coefficient is -0.5 (``src/libImaging/Resample.c``). It takes and gives bytes. Pillow computes in
whole numbers of 22 bits and rounds between its two passes, so a runtime that adds up otherwise is
one byte off now and then; `converters.parity.preprocessing` states how often.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import GraphProto, NodeProto, TensorProto, helper, numpy_helper
from PIL import Image

from converters.errors import InputError
from converters.formats.onnx.export import self_contained
from converters.formats.onnx.file import OnnxFile
from converters.formats.onnx.graph import LOGITS, named_node
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.onnx.form import GraphForm
    from regnet.image_processor import RegNetImageProcessor

IMAGE = "image"
PROBABILITIES = "probabilities"
TOP_SCORES = "top_scores"
TOP_INDICES = "top_indices"

TOP = 5
"""How many of the best classes are given, where there are as many."""

PREFIX = "preprocessing."
"""How the names of all nodes before the network begin."""

_FIRST_OPSET = 18
"""In which Resize learnt ``antialias``."""

_MODES = {Image.Resampling.BILINEAR: "linear", Image.Resampling.BICUBIC: "cubic"}
"""Pillow's filters that ONNX knows, which are those that RegNets were evaluated with."""

_HEIGHT_AND_WIDTH = (2, 3)


def export_with_preprocessing(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    """Write a graph that takes bytes and gives classes; two exports give the same bytes.

    The input is ``image``, uint8 (batch, height, width, num_channels) in RGB: images of any size,
    all of one batch of the same. Outputs are ``probabilities``, float32 (batch, num_labels), and of
    the best five, best first, ``top_scores``, float32, and ``top_indices``, int64, (batch, 5).

    Raises:
        InputError: If the opset is below 18, or the folder has no classifier, or resizes in a way
            that ONNX does not know.
    """
    form = options.form
    if form.opset < _FIRST_OPSET:
        raise InputError(
            f"ONNX resizes like Pillow from opset {_FIRST_OPSET} on; leave out --opset {form.opset}"
            " with --format onnx-preprocessing."
        )
    if not folder.has_classifier or not folder.config.num_labels:
        raise InputError(f"{folder.path} has no classifier, so there are no probabilities to give.")
    file = self_contained(folder, form)
    description = (
        "RegNet classifier: uint8 RGB image of any size to probabilities and best classes."
    )
    next(p for p in file.model.metadata_props if p.key == "description").value = description
    graph = with_preprocessing(folder, file.graph, form)
    OnnxFile(file.model, graph, file.weights).write(path)


def with_preprocessing(folder: ConvertedFolder, network: GraphProto, form: GraphForm) -> GraphProto:
    """Put a classifier's graph between preprocessing and probabilities.

    Args:
        folder: Whose image processor and classes.
        network: From :func:`converters.formats.onnx.graph.build_graph`.
        form: Of ``network``.

    Raises:
        InputError: If the processor resizes in a way that ONNX does not know.
    """
    config = folder.config
    processor = folder.processor
    if len(processor.image_mean) != config.num_channels:
        raise InputError(
            f"{folder.path} prepares {len(processor.image_mean)} channels where its network takes "
            f"{config.num_channels}; mend its preprocessor_config.json."
        )
    writer = _Writer()
    writer.prepare(processor)
    batch, classes, top = form.dim("batch"), config.num_labels, min(TOP, config.num_labels)
    best_classes = [
        named_node("Softmax", PROBABILITIES, LOGITS, axis=1),
        _constant("top", np.array([top], np.int64)),
        helper.make_node(
            "TopK", [PROBABILITIES, "top"], [TOP_SCORES, TOP_INDICES], name=TOP_INDICES, axis=1
        ),
    ]
    outputs = [
        helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [batch, classes]),
        helper.make_tensor_value_info(TOP_SCORES, TensorProto.FLOAT, [batch, top]),
        helper.make_tensor_value_info(TOP_INDICES, TensorProto.INT64, [batch, top]),
    ]
    shape = [batch, form.dim("height"), form.dim("width"), config.num_channels]
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, shape)
    nodes = [*writer.nodes, *network.node, *best_classes]
    return helper.make_graph(nodes, network.name, [image], outputs)


def _constant(name: str, value: NDArray[Any]) -> NodeProto:
    return named_node("Constant", name, value=numpy_helper.from_array(value))


class _Writer:
    """Appends the nodes from ``image`` to ``pixel_values``; methods return the value they made."""

    def __init__(self) -> None:
        self.nodes: list[NodeProto] = []

    def prepare(self, processor: RegNetImageProcessor) -> None:
        """Everything that the processor does, in its order."""
        value = self.add("Transpose", "channels_first", IMAGE, perm=[0, 3, 1, 2])
        if processor.do_resize:
            value = self.resize(value, processor)
        value = self.add("Cast", "float32", value, to=TensorProto.FLOAT)
        if processor.do_rescale:
            factor = self.constant("factor", processor.rescale_factor)
            value = self.add("Mul", "rescaled", value, factor)
        if processor.do_normalize:
            mean = self.constant("mean", [[[number]] for number in processor.image_mean])
            std = self.constant("std", [[[number]] for number in processor.image_std])
            self.add("Div", "normalised", self.add("Sub", "centred", value, mean), std)
        self.nodes[-1].output[0] = PIXELS

    def resize(self, value: str, processor: RegNetImageProcessor) -> str:
        """To a square: at once from 384 pixels on, else the short side, and then a crop."""
        mode = _MODES.get(processor.resample)
        if mode is None:
            raise InputError(
                f"ONNX cannot resize with Pillow's filter {processor.resample.name.lower()}, which "
                "preprocessor_config.json asks for; prepare images outside of the graph."
            )
        edge = processor.size["shortest_edge"]
        settings = {
            "mode": mode,
            "antialias": 1,
            "coordinate_transformation_mode": "half_pixel",
            "cubic_coeff_a": -0.5,
            "exclude_outside": 1,
        }
        if processor.squashes:
            size = self.whole_size(value, self.sizes("size", edge))
            return self.add("Resize", "resized", value, "", "", size, **settings)
        size = self.size_of_short_side(int(edge / processor.crop_pct))
        whole = self.whole_size(value, size)
        value = self.add("Resize", "resized", value, "", "", whole, **settings)
        start = self.crop_start(size, edge, to_even=processor.resize_mode != "convnext")
        end = self.add("Add", "crop_end", start, f"{PREFIX}edge")
        axes = self.constant("axes", _HEIGHT_AND_WIDTH, np.int64)
        return self.add("Slice", "cropped", value, start, end, axes)

    def whole_size(self, value: str, size: str) -> str:
        """Of all four axes: ONNX Runtime 1.32 moves a Transpose past a Resize of two wrongly."""
        kept = self.add("Shape", "batch_and_channels", value, end=2)
        return self.add("Concat", "whole_size", kept, size, axis=0)

    def size_of_short_side(self, short: int) -> str:
        """Height and width that keep the aspect, rounded down."""
        shape = self.add("Shape", "image_size", IMAGE, start=1, end=3)
        least = self.add("ReduceMin", "short_side", shape, keepdims=1)
        scaled = self.add("Mul", "scaled_size", shape, self.sizes("resized_short_side", short))
        return self.add("Div", "size", scaled, least)

    def crop_start(self, size: str, edge: int, *, to_even: bool) -> str:
        """Half of what is too much: ConvNeXT's processor rounds down, torchvision to even."""
        excess = self.add("Sub", "excess", size, self.sizes("edge", edge))
        two = self.sizes("two", 2)
        half = self.add("Div", "half", excess, two)
        if not to_even:
            return half
        # 2k / 2 is k whether or not 1 is added; (2k + 1) / 2 becomes k + 1 where k is odd.
        odd = self.add("Mod", "half_is_odd", half, two)
        return self.add("Div", "crop_start", self.add("Add", "excess_to_even", excess, odd), two)

    def sizes(self, name: str, pixels: int) -> str:
        """The same number of pixels for height and width."""
        return self.constant(name, [pixels, pixels], np.int64)

    def constant(self, name: str, value: Any, kind: type[np.generic] = np.float32) -> str:
        self.nodes.append(_constant(PREFIX + name, np.array(value, kind)))
        return PREFIX + name

    def add(self, operator: str, name: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(named_node(operator, PREFIX + name, *inputs, **attributes))
        return PREFIX + name
