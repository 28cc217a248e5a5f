"""Anybody's ONNX file, in ONNX Runtime or in float64."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.checkpoint.onnx_places import open_onnx, require_readable
from converters.errors import InputError, in_words
from converters.formats.onnx.runtime import PROVIDERS, session_options
from converters.parity.compare.foreign import IMAGE_AXES, by, named

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnx.reference import ReferenceEvaluator
    from onnxruntime import InferenceSession

    from converters.parity.compare.foreign import Layout
    from converters.parity.metrics import Outputs


class ForeignOnnx:
    """Runs an ONNX file on one thread, in ONNX Runtime or in float64.

    Args:
        path: The file; one with external data beside it.

    Attributes:
        name: Runtime and version.
        precision: What the weights say it computes in.
        layout: The axes of its input that are fixed.
        producer: What says that it wrote the file.
        metadata: What it states of itself, by key.

    Raises:
        InputError: If it cannot be loaded, or is no network of images.
        UnsafeInputError: If its weights lie outside of its folder.
    """

    evaluator = "ONNX's reference evaluator"
    noise = "float32 ONNX Runtime"

    def __init__(self, path: Path) -> None:
        from converters.formats.onnx.silent import onnxruntime

        self._path = path
        require_readable(path)
        try:
            self._session = onnxruntime.InferenceSession(
                path, session_options(), providers=PROVIDERS
            )
            self.precision = _precision(path)
        except Exception as error:
            raise InputError(
                f"{path.name} cannot be loaded by ONNX Runtime ({in_words(error, path)}); check "
                "that the file is whole and its weights are beside it."
            ) from error
        self.name = f"onnxruntime {onnxruntime.__version__}"
        inputs = self._session.get_inputs()
        if len(inputs) != 1 or len(inputs[0].shape) != IMAGE_AXES:
            shapes = ", ".join(f"{node.name} {node.shape}" for node in inputs)
            raise InputError(
                f"{path.name} takes {shapes or 'nothing'} where one batch of images (N, C, H, W) "
                "is needed; compare networks that classify images."
            )
        (self._input,) = inputs
        n, c, h, w = (axis if isinstance(axis, int) else None for axis in self._input.shape)
        self.layout: Layout = (n, c, h, w)
        stated = self._session.get_modelmeta()
        self.producer: str = stated.producer_name
        self.metadata: dict[str, str] = stated.custom_metadata_map
        self._outputs = [node.name for node in self._session.get_outputs()]

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute the outputs; a fixed batch is fed as often as it takes.

        Args:
            pixel_values: (N, C, H, W), normalised.
        """
        return self._feed(self._session.run, pixel_values)

    def in_another_order(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The same without any optimisation of the graph; see `Foreign`."""
        return self._feed(self._plain_session.run, pixel_values)

    def in_float64(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """The outputs as ONNX's own reference evaluator computes them; see `Foreign`.

        Raises:
            InputError: If a part of the graph has no meaning in float64.
        """
        try:
            with np.errstate(all="ignore"):  # its sigmoid overflows on the way to 0
                return self._run(self._doubled.run, pixel_values.astype(np.float64))
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self._path.name} cannot be run in float64 ({in_words(error, self._path)}); "
                "compare it with a checkpoint or a converted folder."
            ) from error

    @cached_property
    def _plain_session(self) -> InferenceSession:
        from converters.formats.onnx.silent import onnxruntime

        options = session_options()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        return onnxruntime.InferenceSession(self._path, options, providers=PROVIDERS)

    @cached_property
    def _doubled(self) -> ReferenceEvaluator:
        from onnx.reference import ReferenceEvaluator

        return ReferenceEvaluator(_doubled(open_onnx(self._path, weights=True)))

    def tensors(self) -> dict[str, NDArray[Any]]:
        """The initialisers, by name.

        Raises:
            ValueError: If weights are not where the file says.
        """
        from onnx import numpy_helper

        graph = open_onnx(self._path, weights=True).graph
        return {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}

    def _feed(self, evaluate: Callable[..., Any], pixel_values: NDArray[np.float32]) -> Outputs:
        """Run a session; what it says when it fails becomes one sentence."""
        half = self._input.type == "tensor(float16)"
        pixels = pixel_values.astype(np.float16) if half else pixel_values
        try:
            return self._run(evaluate, pixels)
        except InputError:
            raise
        except Exception as error:
            raise InputError(
                f"{self._path.name} cannot be run on images {by(pixels.shape)} "
                f"({in_words(error, self._path)}); give it images that it takes."
            ) from error

    def _run(self, evaluate: Callable[..., Any], pixels: NDArray[np.floating]) -> Outputs:
        """Feed as many images at a time as the graph takes."""
        batches = _batches(pixels, self.layout[0] or len(pixels))
        runs = [evaluate(None, {self._input.name: batch}) for batch in batches]
        arrays = [np.concatenate(parts)[: len(pixels)] for parts in zip(*runs, strict=True)]
        return named(self._path.name, dict(zip(self._outputs, arrays, strict=True)))


def _batches(pixels: NDArray[Any], size: int) -> Sequence[NDArray[Any]]:
    """Cut into batches of one size; the last is filled up with its last image."""
    missing = -len(pixels) % size
    filled = np.concatenate([pixels, *[pixels[-1:]] * missing])
    return np.split(filled, len(filled) // size)


def _precision(path: Path) -> str:
    """The narrowest type among operators and weights, which is what decides how far it may be."""
    import onnx

    graph = open_onnx(path).graph
    if any("QuantizeLinear" in node.op_type or "QLinear" in node.op_type for node in graph.node):
        return "int8"
    types = {tensor.data_type for tensor in graph.initializer}
    for name, number in (
        ("float16", onnx.TensorProto.FLOAT16),
        ("bfloat16", onnx.TensorProto.BFLOAT16),
    ):
        if number in types:
            return name
    return "float32"


def _doubled(model: ModelProto) -> ModelProto:
    """The model with every float32 or float16 in it a float64."""
    from onnx import TensorProto, numpy_helper

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
