"""Every value that an artefact computes on the way, from one run of one session.

Values are called as in :mod:`converters.parity.locate.walk`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from converters.errors import ConversionError, InputError, in_words
from converters.folder.folder import ConvertedFolder
from converters.formats.confined import Allowance, ConfinedProgram
from converters.formats.registry import FORMATS, offered_by
from converters.parity.contents.tensors import is_ours
from regnet.files.dtypes import COMPUTED
from regnet.files.late import imported

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

_FACTS = ("folded", "differences", "failure", "precision", "grids", "hidden")
"""Of `Intermediates`, beside the values; no module is called so."""


@dataclass(frozen=True, slots=True)
class Intermediates:
    """What an artefact computed, and how it says it does.

    Attributes:
        values: By name, float32; empty if the artefact cannot be run. The pixels are among them
            where the artefact fixes sizes, to which they were cut or repeated.
        folded: Whether convolutions have taken in their batch norms.
        differences: What the file says to do otherwise than it should, a clause by the name of the
            value; not everything can be seen this way.
        failure: Why it cannot be run, in the runtime's words; None if it was.
        precision: What weights and values are rounded to: ``float32``, ``float16`` or ``int8``.
        grids: Of values in integers the least and the largest that each can be, by its name.
        hidden: Names of values that the artefact does not show, since the operator that makes one
            goes on to the next.
    """

    values: Mapping[str, NDArray[np.float32]]
    folded: bool
    differences: Mapping[str, str]
    failure: str | None = None
    precision: str = COMPUTED
    grids: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    hidden: Sequence[str] = ()


def run_with_intermediates(
    folder: ConvertedFolder, kind: str, path: Path, pixels: NDArray[np.float32]
) -> Intermediates:
    """Run an artefact that this project wrote, and keep every value.

    One whose graph or code was changed runs in a process of its own.

    Args:
        folder: Whose artefact it is.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact; one that shares weights lies beside them.
        pixels: (N, num_channels, H, W), as it takes them.

    Raises:
        InputError: If it is of a kind whose values cannot be had, or cannot be opened.
    """
    if FORMATS[kind].intermediates is None:
        others = " or ".join(name for name, form in FORMATS.items() if form.intermediates)
        raise InputError(f"{path.name} shows no values inside; locate faults in {others} instead.")
    try:
        if is_ours(folder, kind, path):
            return _run(folder, kind, path, pixels)
        allowance = Allowance.of([*FORMATS[kind].at(path), *folder.weight_files])
        program = ConfinedProgram(
            f"{__name__}:served", (str(folder.path), kind, str(path)), (), allowance
        )
        told = program.call("__call__", pixels)
        return Intermediates(**{name: told.pop(name) for name in _FACTS}, values=told)
    except ConversionError:
        raise
    except Exception as error:
        raise InputError(
            f"{path.name} cannot be opened as {FORMATS[kind].title} ({in_words(error)}); "
            "export it again."
        ) from error


def served(folder: str, kind: str, path: str) -> Callable[[NDArray[np.float32]], dict[str, Any]]:
    """Give what stands in a process of its own: from pixels to values by name and all facts."""

    def run(pixels: NDArray[np.float32]) -> dict[str, Any]:
        own = offered_by(ConvertedFolder(Path(folder)), kind, Path(path))
        found = _run(own, kind, Path(path), pixels)
        return {**found.values, **{name: getattr(found, name) for name in _FACTS}}

    return run


def _run(
    folder: ConvertedFolder, kind: str, path: Path, pixels: NDArray[np.float32]
) -> Intermediates:
    run: Callable[..., Intermediates] = imported(str(FORMATS[kind].intermediates))
    return run(folder, path, pixels)
