"""ONNX Runtime, on one CPU thread and without its telemetry; nobody else here imports it.

Its library (1.32, on Linux), on being loaded, writes an identifier of the machine and a file of
events below HOME and a session's below TMPDIR, and says so on stderr where it cannot. Its own
switch, ``disable_telemetry_events``, comes too late for that; the library looks at the environment.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.checkpoint.onnx_places import require_readable
from converters.formats.memory import MemoryShortError, require_memory
from converters.formats.onnx.form import PRECISION_KEY, stated_sizes
from converters.formats.runtime import ArtefactRuntime
from regnet.architecture import PIXELS
from regnet.files.dtypes import COMPUTED
from regnet.files.system import available_memory

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

import onnxruntime

onnxruntime.disable_telemetry_events()  # by whoever imported it before us

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray
    from onnx import ModelProto
    from onnxruntime import InferenceSession, SessionOptions

NAME = f"onnxruntime {onnxruntime.__version__}"
"""What it calls itself in verdicts, such as ``onnxruntime 1.32.0``."""

_ERRORS_ONLY = 3

_ELEMENTS = {"tensor(float16)": "float16"}
"""ONNX Runtime's names of element types that are not float32, to NumPy's."""

_COPIES = 3
"""How many times the weights' size a session takes: it folds them, packs them and keeps both."""

_PROVIDERS = ("CPUExecutionProvider",)
"""Always named: what is built into the library, and so its default, differs by package."""


class OnnxRuntime(ArtefactRuntime):
    """Runs an ONNX file, self-contained or sharing.

    On one thread sums keep their order, so that results repeat to the last bit, and other work on
    the machine keeps its cores. A sharing file whose weights would not fit into memory is run as it
    is, without optimisation, on the mapped weights.

    Attributes:
        precision: Of the weights and of what passes between layers, as the file states. Where the
            processor has no float16 arithmetic, what it adds up in between is float32.
        sizes: (batch, height, width) that the file says it fixes, None where it does not. Sizes
            fixed by mistake are not stated, so that other images show them.
    """

    def __init__(self, path: Path, _: Sequence[str] = (), threads: int = 1) -> None:
        files = [path.with_name(name) for name in require_readable(path)]
        self.name = NAME
        beside = sum(file.stat().st_size for file in files if file.is_file())
        fits = _COPIES * (path.stat().st_size + beside) <= available_memory()
        options = session_options(threads, optimised=fits)
        if not fits:
            _check_held_weights(path)
            _leave_weights_mapped(options)
            self.name += ", without optimisation"
        self._session = open_session(path, options)
        stated = self._session.get_modelmeta().custom_metadata_map
        self.precision: str = stated.get(PRECISION_KEY, COMPUTED)
        pixels = self._session.get_inputs()[0]
        self._element = _ELEMENTS.get(pixels.type, COMPUTED)
        self.sizes = stated_sizes(stated)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output; where the file takes float16, pixels are rounded to it."""
        pixels = pixel_values.astype(self._element, copy=False)
        return run_session(self._session, PIXELS, pixels)


def _check_held_weights(path: Path) -> None:
    """Refuse weights inside the file that do not fit; those beside it can stay mapped."""
    try:
        require_memory(_COPIES * path.stat().st_size)
    except MemoryShortError:
        import onnx

        onnx.checker.check_model(path)  # by path, which reads no weights beside the file
        raise


def _leave_weights_mapped(options: SessionOptions) -> None:
    """Compute with weights where they are: not packed, in memory that is given back.

    RegNetY-32GF (0.58 GB) takes 1.2 GB of anonymous memory otherwise, and so 0.1 GB, in twice the
    time.
    """
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False


def open_session(
    model: Path | ModelProto, options: SessionOptions | None = None
) -> InferenceSession:
    """Open a file, or a model with all of its weights, below 2 GB."""
    source = model if isinstance(model, Path) else model.SerializeToString()
    options = options or session_options()
    return onnxruntime.InferenceSession(source, options, providers=_PROVIDERS)


def run_session(
    session: InferenceSession, name: str, value: NDArray[Any]
) -> dict[str, NDArray[Any]]:
    """Compute every output, by its name, of a graph with one input."""
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {name: value}), strict=True))


def session_options(threads: int = 1, *, optimised: bool = True) -> SessionOptions:
    """Settings of a session that gives the same bits each time, for a number of threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return options
