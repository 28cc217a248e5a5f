"""ONNX Runtime on a graph with preprocessing: its network alone, and all of its values."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnx import TensorProto, helper

from converters.checkpoint.onnx_places import open_onnx
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.onnx.form import stated_sizes
from converters.formats.onnx.graph import LOGITS
from converters.formats.onnx.preprocessing import IMAGE, PREFIX, PROBABILITIES, TOP_INDICES
from converters.formats.onnx.runtime import NAME, open_session, run_session, session_options
from converters.formats.runtime import ArtefactRuntime
from regnet.architecture import PIXELS

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

_BEHIND = (PROBABILITIES, TOP_INDICES, "top")


class NetworkOfPreprocessing(ArtefactRuntime):
    """Runs what lies between preprocessing and probabilities, which takes any normalised pixels."""

    def __init__(self, path: Path, _: Sequence[str] = (), threads: int = 1) -> None:
        self.name = NAME
        model = open_onnx(path, weights=True)
        graph = model.graph
        inside = [n for n in graph.node if not n.name.startswith(PREFIX) and n.name not in _BEHIND]
        del graph.node[:], graph.input[:], graph.output[:]
        graph.node.extend(inside)
        shape = ["batch", "channels", "height", "width"]
        graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.FLOAT, shape))
        graph.output.append(helper.make_empty_tensor_value_info(LOGITS))
        self._session = open_session(model, session_options(threads))

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute the logits."""
        return run_session(self._session, PIXELS, pixel_values)


class WholeWithPreprocessing:
    """Runs all of the graph, and shows what passes between its three parts.

    Attributes:
        sizes: (batch, height, width) of the images where the file says it fixes them, else None.
    """

    def __init__(self, path: Path | str) -> None:
        model = open_onnx(Path(path), weights=True)
        inner = [helper.make_empty_tensor_value_info(name) for name in (PIXELS, LOGITS)]
        model.graph.output.extend(inner)
        self.sizes = stated_sizes({entry.key: entry.value for entry in model.metadata_props})
        self._session = open_session(model)

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Compute every output, ``pixel_values`` and ``logits``.

        Args:
            image: (N, height, width, num_channels).
        """
        return run_session(self._session, IMAGE, image)


class ConfinedWhole(ConfinedProgram):
    """A `WholeWithPreprocessing` in a process of its own."""

    def __init__(self, path: Path) -> None:
        whole = f"{__name__}:{WholeWithPreprocessing.__name__}"
        super().__init__(whole, (str(path),), ("sizes",), Allowance.of([path]))
        self.sizes: Sequence[int | None] = self.attributes["sizes"]

    def __call__(self, image: NDArray[np.uint8]) -> dict[str, NDArray[Any]]:
        """Compute every output, ``pixel_values`` and ``logits``."""
        return self.call("__call__", image)
