"""An artefact of this program's own that torch runs, in the second process, which has torch."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from converters.formats.registry import FORMATS
from converters.formats.runtime import ArtefactRuntime

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.formats.torch_process import TorchProcess

    Outputs = dict[str, NDArray[np.floating]]


class RuntimeApart(ArtefactRuntime):
    """Runs an artefact there, where it stays loaded.

    Args:
        process: The second one.
        name: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact.
        output_names: Of what it returns, in order.

    Raises:
        NotDoneError: If it cannot be loaded there, and from a call if it cannot be run.
    """

    def __init__(
        self, process: TorchProcess, name: str, path: Path, output_names: Sequence[str]
    ) -> None:
        self._process = process
        self._artefact = (name, str(path), tuple(output_names))
        stated = process.call(f"{__name__}:stated", *self._artefact)
        self.name, self.precision, self.sizes, self.not_run, self.takes_bytes = stated

    def __call__(self, pixel_values: NDArray[np.float32]) -> Outputs:
        """Compute every output."""
        return self.run({"": pixel_values})[""]

    def run(self, inputs: Mapping[str, NDArray[np.float32]]) -> dict[str, Outputs]:
        """Compute every output of several batches, (N, num_channels, H, W) each, by their names."""
        found: dict[str, Outputs] = self._process.call(f"{__name__}:run", *self._artefact, inputs)
        return found


def stated(name: str, path: str, output_names: tuple[str, ...]) -> tuple[object, ...]:
    """What the runtime of an artefact says of itself; called in the second process."""
    runtime = _opened(name, path, output_names)
    return runtime.name, runtime.precision, runtime.sizes, runtime.not_run, runtime.takes_bytes


def run(
    name: str,
    path: str,
    output_names: tuple[str, ...],
    inputs: Mapping[str, NDArray[np.float32]],
) -> dict[str, Outputs]:
    """What an artefact computes, likewise."""
    runtime = _opened(name, path, output_names)
    return {batch: runtime(pixels) for batch, pixels in inputs.items()}


@cache
def _opened(name: str, path: str, output_names: tuple[str, ...]) -> ArtefactRuntime:
    return FORMATS[name].load(Path(path), output_names)
