"""Opening an artefact that was found in a folder, whoever wrote it.

It may be anybody's program: it is opened in this process only if its graph or code is what this
project writes for the configuration, and in one of its own (:mod:`converters.formats.confined`)
otherwise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.formats.confined.runtime import ConfinedRuntime
from converters.formats.registry import FORMATS
from converters.parity.contents.tensors import contents_of

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.runtime import ArtefactRuntime


def open_found(folder: ConvertedFolder, kind: str, threads: int = 1) -> ArtefactRuntime:
    """Open an artefact that lies in a folder, in a process of its own unless it is known.

    Args:
        folder: A converted folder that holds it.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        threads: How many compute.

    Raises:
        Exception: Of whatever class the runtime raises, if it cannot be opened.
    """
    path = folder.path / FORMATS[kind].file_name
    if is_ours(folder, kind, path):
        return FORMATS[kind].load(path, folder.output_names, threads)
    return ConfinedRuntime(folder, kind, path, threads)


def is_ours(folder: ConvertedFolder, kind: str, path: Path) -> bool:
    """Whether an artefact's graph or code is exactly what is written for its folder.

    Then it does what the configuration says and ends when that is done, whatever its tensors hold.
    Compiled programs, and those whose graph cannot be written again, are never known to be.
    """
    try:
        contents = contents_of(folder, kind, path)
    except Exception:  # noqa: BLE001 -- what a damaged file leads to has any class
        return False
    return contents.graph_compared and not contents.faults
