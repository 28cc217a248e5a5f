"""Every value that an artefact computes on the way, from one run of one session.

Values are called as in :mod:`converters.parity.locate.walk`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError, InputError, in_words
from converters.folder.folder import ConvertedFolder
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.found import is_ours
from converters.formats.registry import FORMATS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np
    from numpy.typing import NDArray

_FACTS = ("folded", "differences", "failure")
"""Of `Intermediates`, beside the values; no module is called so."""


@dataclass(frozen=True, slots=True)
class Intermediates:
    """What an artefact computed, and how it says it does.

    Attributes:
        values: By name, float32; empty if the artefact cannot be run.
        folded: Whether convolutions have taken in their batch norms.
        differences: What the file says to do otherwise than it should, a clause by the name of the
            value; not everything can be seen this way.
        failure: Why it cannot be run, in the runtime's words; None if it was.
    """

    values: Mapping[str, NDArray[np.float32]]
    folded: bool
    differences: Mapping[str, str]
    failure: str | None = None


def run_with_intermediates(
    folder: ConvertedFolder, kind: str, path: Path, pixels: NDArray[np.float32]
) -> Intermediates:
    """Run an artefact that this project wrote, and keep every value.

    One whose graph or code was changed runs in a process of its own.

    Args:
        folder: Whose artefact it is.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact; one that shares weights lies beside them.
        pixels: (N, num_channels, H, W), normalised.

    Raises:
        InputError: If it is of a kind whose values cannot be had, cannot be opened, or does not
            compute in float32.
    """
    if kind not in READERS:
        raise InputError(
            f"{path.name} shows no values inside; locate faults in {' or '.join(READERS)} instead."
        )
    try:
        if is_ours(folder, kind, path):
            return READERS[kind](folder, path, pixels)
        return _run_confined(folder, kind, path, pixels)
    except ConversionError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be opened as {FORMATS[kind].title} ({in_words(error)}); "
            "export it again."
        ) from error


def _run_confined(
    folder: ConvertedFolder, kind: str, path: Path, pixels: NDArray[np.float32]
) -> Intermediates:
    program = ConfinedProgram(
        f"{__name__}:_Served",
        (str(folder.path), kind, str(path)),
        (),
        Allowance.of([path, *folder.weight_files]),
    )
    told = program.call("run", pixels)
    facts = {name: told.pop(name) for name in _FACTS}
    return Intermediates(told, **facts)


class _Served:
    """What stands in the process of `_run_confined`."""

    def __init__(self, folder: str, kind: str, path: str) -> None:
        self._folder, self._kind, self._path = ConvertedFolder(Path(folder)), kind, Path(path)

    def run(self, pixels: NDArray[np.float32]) -> dict[str, Any]:
        """The values by name, and what else is told of them."""
        found = READERS[self._kind](self._folder, self._path, pixels)
        return {**found.values, **{name: getattr(found, name) for name in _FACTS}}


def _onnx(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    from converters.parity.locate.intermediates_onnx import run_onnx

    return run_onnx(folder, path, pixels)


def _torchscript(folder: ConvertedFolder, path: Path, pixels: NDArray[np.float32]) -> Intermediates:
    from converters.parity.locate.intermediates_torchscript import run_torchscript

    return run_torchscript(folder, path, pixels)


READERS: dict[str, Callable[[ConvertedFolder, Path, NDArray[np.float32]], Intermediates]] = {
    "onnx": _onnx,
    "onnx-web": _onnx,
    "torchscript": _torchscript,
}
"""Format to what runs it, of those whose values can be had; keys of
:data:`converters.formats.registry.FORMATS`."""
