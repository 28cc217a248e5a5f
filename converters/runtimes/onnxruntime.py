"""ONNX Runtime, on one CPU thread."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from onnxruntime import SessionOptions

_ERRORS_ONLY = 3

PROVIDERS = ("CPUExecutionProvider",)
"""Always named: what is built into the library, and so its default, differs by package."""


class OnnxRuntime:
    """Runs an ONNX file, self-contained or sharing.

    On one thread sums keep their order, so that results repeat to the last bit, and other work on
    the machine keeps its cores.

    Args:
        path: The file; a sharing one beside its weights.
        threads: How many compute.

    Attributes:
        name: Runtime and version, such as ``"onnxruntime 1.32.0"``.
        precision: In which it computes.
    """

    precision = "float32"

    def __init__(self, path: Path, threads: int = 1) -> None:
        import onnxruntime

        self.name = f"onnxruntime {onnxruntime.__version__}"
        options = session_options(threads)
        self._session = onnxruntime.InferenceSession(path, options, providers=PROVIDERS)
        self._output_names = [output.name for output in self._session.get_outputs()]

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.

        Returns:
            The outputs by name: ``logits``, or ``last_hidden_state`` and ``pooler_output``.
        """
        outputs = self._session.run(self._output_names, {"pixel_values": pixel_values})
        return dict(zip(self._output_names, outputs, strict=True))


def session_options(threads: int = 1) -> SessionOptions:
    """Settings of a session that gives the same bits each time, for a number of threads."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.use_deterministic_compute = True
    options.log_severity_level = _ERRORS_ONLY
    return options
