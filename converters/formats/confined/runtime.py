"""An artefact that may be anybody's, opened and run like any other, in a process of its own.

What a job has just written itself it opens by :data:`converters.formats.registry.FORMATS`. What
lies in a folder is opened here unless :mod:`converters.parity.found` knows it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import printable
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.registry import FORMATS
from converters.formats.runtime import ArtefactRuntime

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.runtime import Runtime


class ConfinedRuntime(ArtefactRuntime):
    """Runs an artefact in a process of its own.

    Args:
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The file.
        files: All that it is made of, by whose size it may take time and memory.
        output_names: Of what it returns.
        threads: How many compute.

    Attributes:
        name: Runtime and version.
        precision: In which it computes.
        sizes: (batch, height, width) that it says it fixes.

    Raises:
        Exception: Whatever the runtime in the other process raises: a `ConversionError` or a
            `MemoryShortError` as itself, else a `ProgramError` with its words.
    """

    def __init__(
        self,
        kind: str,
        path: Path,
        files: Sequence[Path],
        output_names: Sequence[str],
        threads: int = 1,
    ) -> None:
        self._program = ConfinedProgram(
            f"{__name__}:_Served",
            (kind, str(path), list(output_names), threads),
            ("name", "precision", "sizes"),
            Allowance.of(files),
        )
        stated = self._program.attributes
        self.name = printable(str(stated["name"]))
        self.precision = printable(str(stated["precision"]))
        self.sizes = stated["sizes"]

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        """Compute every output.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.
        """
        return self._program.call("__call__", pixel_values)

    def seconds(self, pixel_values: NDArray[np.float32], calls: int) -> list[float]:
        """How long calls take where it runs, without the way there and back.

        Args:
            pixel_values: (N, num_channels, H, W), normalised.
            calls: How many are timed; one before them is not.
        """
        timed = self._program.call("seconds", pixel_values, repetitions=calls + 1)
        return [float(second) for second in timed["seconds"]]


class _Served:
    """What stands in the process of a `ConfinedRuntime`."""

    def __init__(self, kind: str, path: str, output_names: Sequence[str], threads: int) -> None:
        self._runtime = FORMATS[kind].load(Path(path), tuple(output_names), threads)
        self.name = self._runtime.name
        self.precision = self._runtime.precision
        self.sizes = self._runtime.sizes

    def __call__(self, pixel_values: NDArray[np.float32]) -> dict[str, NDArray[np.floating]]:
        return self._runtime(pixel_values)

    def seconds(
        self, pixel_values: NDArray[np.float32], repetitions: int
    ) -> dict[str, NDArray[np.float64]]:
        return {"seconds": np.array(seconds_of(self._runtime, pixel_values, repetitions - 1))}


def seconds_of(network: Runtime, pixel_values: NDArray[np.float32], calls: int) -> list[float]:
    """Time calls of a network, after one that is not timed.

    Args:
        network: What runs it; one in another process times itself there.
        pixel_values: (N, num_channels, H, W), normalised.
        calls: How many are timed.
    """
    if isinstance(network, ConfinedRuntime):
        return network.seconds(pixel_values, calls)
    network(pixel_values)
    seconds = []
    for _ in range(calls):
        begin = time.perf_counter()
        network(pixel_values)
        seconds.append(time.perf_counter() - begin)
    return seconds


def open_confined(
    folder: ConvertedFolder, kind: str, path: Path, threads: int = 1
) -> ConfinedRuntime:
    """Open an artefact of a folder in a process of its own.

    Args:
        folder: A converted folder.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact, in the folder or in a copy of it.
        threads: How many compute.

    Raises:
        Exception: As `ConfinedRuntime` does.
    """
    companions = [folder.path / name for name in FORMATS[kind].companion_names]
    files = [path, *(file for file in companions if file.is_file()), *folder.weight_files]
    return ConfinedRuntime(kind, path, files, folder.output_names, threads)
