"""An artefact that may be anybody's, opened and run like any other, in a process of its own.

What a job has just written itself it opens by :data:`converters.formats.registry.FORMATS`. What
lies in a folder is opened here, unless it is the project's own
(:func:`converters.parity.contents.tensors.is_ours`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from converters.errors import printable
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.registry import loader, run_by
from converters.formats.runtime import ArtefactRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder


class ConfinedRuntime(ArtefactRuntime):
    """Runs an artefact of a folder in a process of its own.

    Args:
        folder: A converted folder.
        runtime: Key of :data:`converters.formats.registry.FORMATS` or of
            :data:`converters.formats.registry.OTHER_RUNTIMES`.
        path: The artefact, in the folder or in a copy of it.
        threads: How many compute.

    Raises:
        Exception: Whatever the runtime in the other process raises: a `ConversionError` or a
            `MemoryShortError` as itself, else a `ProgramError` with its words.
    """

    def __init__(self, folder: ConvertedFolder, runtime: str, path: Path, threads: int = 1) -> None:
        self._program = ConfinedProgram(
            f"{__name__}:load",
            (runtime, str(path), folder.output_names, threads),
            ("name", "precision", "sizes", "not_run", "takes_bytes"),
            Allowance.of([*run_by(runtime).at(path), *folder.weight_files]),
        )
        stated = self._program.attributes
        self.name = printable(str(stated["name"]))
        self.precision = printable(str(stated["precision"]))
        self.sizes = stated["sizes"]
        self.not_run = stated["not_run"] and printable(str(stated["not_run"]))
        self.takes_bytes = bool(stated["takes_bytes"])

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Compute every output."""
        return self._program.call("__call__", pixel_values)

    def seconds(self, pixel_values: NDArray[np.float32], calls: int) -> list[float]:
        """How long calls take where it runs, without the way there and back."""
        timed = self._program.call("seconds", pixel_values, repetitions=calls)
        return [float(second) for second in timed["value"]]


def load(runtime: str, path: str, output_names: Sequence[str], threads: int) -> ArtefactRuntime:
    """Open what stands in the process of a `ConfinedRuntime`."""
    return loader(runtime)(Path(path), tuple(output_names), threads)
