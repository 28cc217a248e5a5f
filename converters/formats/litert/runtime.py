"""The LiteRT interpreter: XNNPACK's kernels, as it takes them by itself, or its reference ones."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import require_extra
from converters.formats.memory import require_memory
from converters.formats.runtime import ArtefactRuntime
from regnet.files.dtypes import COMPUTED

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

_COPIES = 3
"""How many times the weights' size it takes: mapped, packed for the processor, and in passing."""

_CHANNELS_LAST, _CHANNELS_FIRST = (0, 2, 3, 1), (0, 3, 1, 2)
_AXES_OF_MAPS = 4

_REDUCED = ("int8", "float16")
_STDERR = 2


class LiteRtRuntime(ArtefactRuntime):
    """Runs a ``.tflite`` of this project, or any other of one image to the same outputs.

    LiteRT has channels last, so pixels and feature maps are transposed on the way.

    Args:
        reference: Whether to run the interpreter's reference kernels, written to be read instead of
            to be quick.

    Attributes:
        precision: The least precise type that a tensor has. Weights in float16 are made float32 of
            when the file is opened, and computed with in that.
    """

    def __init__(
        self,
        path: Path,
        output_names: Sequence[str] = ("logits",),
        threads: int = 1,
        *,
        reference: bool = False,
    ) -> None:
        version = require_extra("ai_edge_litert", "litert")
        require_memory(_COPIES * path.stat().st_size)
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        kernels = OpResolverType.BUILTIN_REF if reference else OpResolverType.AUTO
        with _silence():
            self._interpreter = Interpreter(
                str(path), num_threads=threads, experimental_op_resolver_type=kernels
            )
        self.name = f"litert {version}" + (", reference kernels" if reference else "")
        (self._pixels,) = self._interpreter.get_input_details()
        self._outputs = self._interpreter.get_output_details()
        self._output_names = tuple(output_names)
        details = self._interpreter.get_tensor_details()
        types = {np.dtype(each["dtype"]).name for each in details}
        self.precision: str = next((kind for kind in _REDUCED if kind in types), COMPUTED)
        self._planned: tuple[int, ...] | None = None

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output; memory is planned anew for images of another size or number."""
        pixels = pixel_values.transpose(_CHANNELS_LAST)
        interpreter, place = self._interpreter, self._pixels["index"]
        if pixels.shape != self._planned:
            interpreter.resize_tensor_input(place, pixels.shape, strict=True)
            with _silence():
                interpreter.allocate_tensors()
            self._planned = pixels.shape
        interpreter.set_tensor(place, pixels)
        interpreter.invoke()
        arrays = (interpreter.get_tensor(output["index"]) for output in self._outputs)
        return {
            name: array.transpose(_CHANNELS_FIRST) if array.ndim == _AXES_OF_MAPS else array
            for name, array in zip(self._output_names, arrays, strict=True)
        }


@contextmanager
def _silence() -> Iterator[None]:
    """Throw away what the library writes to stderr: that it has XNNPACK, which nothing turns off.

    What goes wrong is in the exceptions that it raises.
    """
    kept, nothing = os.dup(_STDERR), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, _STDERR)
    os.close(nothing)
    try:
        yield
    finally:
        os.dup2(kept, _STDERR)
        os.close(kept)
