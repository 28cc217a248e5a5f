"""Anybody's ONNX file, in ONNX Runtime or in ONNX's own reference evaluator."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from onnx import TensorProto, numpy_helper

from converters.checkpoint.onnx_places import open_onnx, require_readable
from converters.errors import InputError
from converters.formats.onnx.runtime import NAME, open_session, session_options
from converters.parity.compare.foreign import IMAGE_AXES, by, in_a_sentence, named
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnx.reference import ReferenceEvaluator
    from onnxruntime import InferenceSession

    from converters.parity.metrics import Outputs


class ForeignOnnx:
    """What stands in the process of a `ConfinedForeign`; external data must lie beside the file.

    Attributes:
        precision: What the weights say it computes in.

    Raises:
        InputError: If it cannot be loaded, or is no network of images.
        UnsafeInputError: If its weights lie outside of its folder.
    """

    evaluator = "ONNX's reference evaluator"
    noise = "float32 ONNX Runtime"

    def __init__(self, file: Path | str) -> None:
        self._path = path = Path(file)
        require_readable(path)
        remedy = "check that the file is whole and its weights are beside it"
        with in_a_sentence(path, "loaded by ONNX Runtime", remedy):
            self._session = open_session(path)
            self.precision = _precision(path)
        self.name = NAME
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != IMAGE_AXES:
            shapes = ", ".join(f"{node.name} {node.shape}" for node in inputs)
            raise InputError(
                f"{path.name} takes {shapes or 'nothing'} where one batch of images (N, C, H, W) "
                "is needed; compare networks that classify images."
            )
        (self._input,) = inputs
        n, c, h, w = (axis if isinstance(axis, int) else None for axis in self._input.shape)
        self.layout = (n, c, h, w)
        stated = self._session.get_modelmeta()
        self.producer = stated.producer_name
        self.metadata = stated.custom_metadata_map
        self._outputs = [node.name for node in self._session.get_outputs()]

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs; a fixed batch is fed as often as it takes."""
        return self._feed(self._session, pixel_values)

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same without any optimisation of the graph."""
        return self._feed(self._plain_session, pixel_values)

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The outputs as ONNX's own reference evaluator computes them."""
        remedy = "compare it with a checkpoint or a converted folder"
        # Its sigmoid overflows on the way to 0.
        with in_a_sentence(self._path, "run in float64", remedy), np.errstate(all="ignore"):
            return self._run(self._doubled, pixel_values.astype(np.float64))

    @cached_property
    def _plain_session(self) -> InferenceSession:
        return open_session(self._path, session_options(optimised=False))

    @cached_property
    def _doubled(self) -> ReferenceEvaluator:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(_doubled(open_onnx(self._path, weights=True)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The initialisers, by name.

        Raises:
            ValueError: If weights are not where the file says.
        """
        graph = open_onnx(self._path, weights=True).graph
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def _feed(self, session: InferenceSession, pixel_values: NDArray[np.float32]) -> Outputs:
        """Run a session on pixels of the type that it takes."""
        half = self._input.type == "tensor(float16)"
        pixels = pixel_values.astype(np.float16) if half else pixel_values
        what = f"run on images {by(pixels.shape)}"
        with in_a_sentence(self._path, what, "give it images that it takes"):
            return self._run(session, pixels)

    def _run(
        self, session: InferenceSession | ReferenceEvaluator, pixels: NDArray[np.floating]
    ) -> Outputs:
        """Feed as many images at a time as the graph takes."""
        batches = _batches(pixels, self.layout[0] or len(pixels))
        runs = [session.run(None, {self._input.name: batch}) for batch in batches]
        arrays = [np.concatenate(parts)[: len(pixels)] for parts in zip(*runs, strict=True)]
        return named(self._path.name, dict(zip(self._outputs, arrays, strict=True)))


def _batches(pixels: NDArray[Any], size: int) -> Sequence[NDArray[Any]]:
    """Cut into batches of one size; the last is filled up with its last image."""
    missing = -len(pixels) % size
    filled = np.concatenate([pixels, *[pixels[-1:]] * missing])
    return np.split(filled, len(filled) // size)


def _precision(path: Path) -> str:
    """The narrowest type among operators and weights, which is what decides how far it may be."""
    graph = open_onnx(path).graph
    if any("QuantizeLinear" in node.op_type or "QLinear" in node.op_type for node in graph.node):
        return "int8"
    types = {tensor.data_type for tensor in graph.initializer}
    narrow = {"float16": TensorProto.FLOAT16, "bfloat16": TensorProto.BFLOAT16}
    return next((name for name, number in narrow.items() if number in types), COMPUTED)


def _doubled(model: ModelProto) -> ModelProto:
    """The model with every float32 or float16 in it a float64."""
    narrow = {TensorProto.FLOAT, TensorProto.FLOAT16}
    constants = [
        attribute.t
        for node in model.graph.node
        for attribute in node.attribute
        if attribute.name == "value"
    ]
    for tensor in [*model.graph.initializer, *constants]:
        if tensor.data_type in narrow:
            wide = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for node in model.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i in narrow:
                attribute.i = TensorProto.DOUBLE
    for value in [*model.graph.input, *model.graph.output, *model.graph.value_info]:
        if value.type.tensor_type.elem_type in narrow:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    return model
