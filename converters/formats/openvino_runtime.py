"""OpenVINO on the CPU, which computes in what it is asked to and says what that was."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import require_extra
from converters.formats.memory import require_memory

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray
    from openvino import CompiledModel

_DEVICE = "CPU"
_HINT = "INFERENCE_PRECISION_HINT"
_COPIES = 3
"""How many times the weights' size it takes: mapped, packed for the processor, and in passing."""

_PRECISIONS = {"f16": "float16", "bf16": "bfloat16"}
"""OpenVINO's names of what is less than float32."""


class OpenVinoRuntime:
    """Runs an ``openvino_model.xml``, or any other file that OpenVINO opens.

    Left alone OpenVINO computes in bfloat16 on processors that have it, with some hundred times the
    error of float32. So float32 is asked for, and what was really compiled is looked up.

    Args:
        path: The file.
        output_names: Of what it returns, in order.
        threads: How many compute.
        precision: What to ask for: ``f32``; None leaves it to OpenVINO.

    Attributes:
        name: Runtime and version, and this processor's default where that is not float32.
        precision: In which the compiled network computes: ``float32``, ``bfloat16`` or ``float16``.

    Raises:
        MemoryShortError: If the weights would not fit into memory.
        StorageError: If OpenVINO is not installed.
        RuntimeError: From OpenVINO, if it cannot use the file.
    """

    def __init__(
        self,
        path: Path,
        output_names: Sequence[str] = ("logits",),
        threads: int = 1,
        precision: str | None = "f32",
    ) -> None:
        version = require_extra("openvino", "openvino")
        import openvino

        weights = path.with_suffix(".bin")
        require_memory(_COPIES * (weights if weights.is_file() else path).stat().st_size)
        core = openvino.Core()
        default = core.get_property(_DEVICE, _HINT).to_string()
        settings: dict[str, int | bool | str] = {
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": 1,
            "ENABLE_CPU_PINNING": False,
        }
        if precision is not None:
            settings[_HINT] = precision
        self._compiled = core.compile_model(path, _DEVICE, settings)
        self.precision = _computed_in(self._compiled)
        self.name = f"openvino {version}"
        if default in _PRECISIONS:
            self.name += f" (by default {_PRECISIONS[default]} on this processor)"
        self._output_names = tuple(output_names)

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
        """Compute every output.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.

        Returns:
            The outputs by name.
        """
        arrays = self._compiled(pixel_values).to_tuple()
        return dict(zip(self._output_names, arrays, strict=True))


def _computed_in(compiled: CompiledModel) -> str:
    """The least precise type that an operation of the compiled network runs in."""
    nodes = compiled.get_runtime_model().get_ops()
    used = {str(node.get_rt_info()["runtimePrecision"].value) for node in nodes}
    reduced = [name for short, name in _PRECISIONS.items() if short in used]
    return reduced[0] if reduced else "float32"
