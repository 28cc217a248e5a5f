"""The formats that there are, and what is asked of all of them."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from converters.checkpoint.digests import sha256_of
from converters.errors import ConversionError, InputError, printable, require_extra
from converters.folder.interface import NETWORK, Interface
from converters.formats.aotinductor import AOTINDUCTOR
from converters.formats.beside import Beside, beside
from converters.formats.coreai import COREAI
from converters.formats.coreml.formats import COREML, COREML_FP16
from converters.formats.executorch import EXECUTORCH
from converters.formats.format import IMAGE_INPUT, INTERFACE_OPTIONS, SPELLED
from converters.formats.litert.formats import LITERT, LITERT_FP16, LITERT_INT8
from converters.formats.memory import memory_of_all
from converters.formats.ncnn import NCNN
from converters.formats.onnx.formats import (
    ONNX,
    ONNX_FP16,
    ONNX_INT8,
    ONNX_INT8_TUNED,
    ONNX_PREPROCESSING,
    ONNX_TUNED,
    ONNX_WEB,
)
from converters.formats.openvino import OPENVINO
from converters.formats.pt2 import PT2
from converters.formats.stablehlo import STABLEHLO
from converters.formats.torchscript import TORCHSCRIPT
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions, Format, Load, OtherRuntime
    from converters.formats.torch_process import TorchProcess
    from converters.progress import Progress

FORMATS: dict[str, Format] = {
    kind.name: kind
    for kind in (
        ONNX,
        ONNX_FP16,
        ONNX_INT8,
        ONNX_TUNED,
        ONNX_INT8_TUNED,
        ONNX_WEB,
        ONNX_PREPROCESSING,
        TORCHSCRIPT,
        PT2,
        AOTINDUCTOR,
        OPENVINO,
        EXECUTORCH,
        NCNN,
        LITERT,
        LITERT_FP16,
        LITERT_INT8,
        STABLEHLO,
        COREML,
        COREML_FP16,
        COREAI,
    )
}
"""Each format under its name on the command line, in the order in which they are shown."""

OTHER_RUNTIMES: dict[str, tuple[Format, OtherRuntime]] = {
    other.name: (kind, other) for kind in FORMATS.values() for other in kind.others
}
"""What else runs a format's files, by its name on the command line."""

_COPIES = 3
"""How often what an artefact holds is in memory at a time, roughly."""

DEFAULT_FORMATS = (ONNX.name, TORCHSCRIPT.name)
"""What is written where nobody asks for others."""


def artefact_names() -> set[str]:
    """Every file that a format may write into a converted folder."""
    return {name for kind in FORMATS.values() for name in kind.files}


def artefacts_in(folder: Path) -> dict[str, Path]:
    """The artefacts that lie in a converted folder: key of :data:`FORMATS` to the file."""
    present = {name: kind for name, kind in FORMATS.items() if kind.is_in(folder)}
    return {name: folder / kind.file_name for name, kind in present.items()}


def beside_verifying(folder: ConvertedFolder, torch: TorchProcess | None = None) -> Beside:
    """What verifies a folder side by side, if there is memory for all that it holds at once.

    Args:
        folder: Which.
        torch: From :func:`converters.formats.beside.torch_beside`.
    """
    try:
        needed = memory_of_all(folder.config, folder.image_size)
    except ConversionError:  # which is said where it is in the way
        return Beside()
    for name, path in artefacts_in(folder.path).items():
        needed += _COPIES * sum(file.stat().st_size for file in FORMATS[name].at(path))
    return beside(needed, torch)


def are_traced(formats: Collection[str]) -> bool:
    """Whether torch has to trace one of those named, for which no second process need have it."""
    return any(FORMATS[name].traced for name in formats)


def run_by(runtime: str) -> Format:
    """Whose files a runtime runs: a key of :data:`FORMATS` or of :data:`OTHER_RUNTIMES`."""
    return OTHER_RUNTIMES[runtime][0] if runtime in OTHER_RUNTIMES else FORMATS[runtime]


def loader(runtime: str) -> Load:
    """What opens the files that a runtime runs."""
    return OTHER_RUNTIMES[runtime][1].load if runtime in OTHER_RUNTIMES else FORMATS[runtime].load


def takers(option: str, formats: Sequence[str] | None = None) -> list[str]:
    """Which formats heed an option: of those named, or of all.

    Args:
        option: A key of :data:`converters.formats.format.SPELLED`.
        formats: Keys of :data:`FORMATS`; None is all of them.
    """
    names = FORMATS if formats is None else formats
    return [name for name in names if option in FORMATS[name].options]


def write_artefacts(
    folder: ConvertedFolder,
    places: Mapping[str, Path],
    options: ExportOptions,
    progress: Progress = SILENT,
    written: Callable[[str, Path], object] | None = None,
) -> None:
    """Write artefacts of a folder that is not published yet.

    Args:
        folder: What to export.
        places: Key of :data:`FORMATS` to the file.
        options: How.
        progress: Who wants to know how far it is.
        written: Called with each once it is there.

    Raises:
        InputError: If the folder or the options cannot be used.
        StorageError: If a package or a compiler is missing.
        OSError: If a file cannot be written.
    """
    for name, path in places.items():
        progress.step(FORMATS[name].title)
        path.parent.mkdir(exist_ok=True)
        watched = replace(options, progress=progress)
        FORMATS[name].export(folder.offering(options.interface), path, watched)
        if written is not None:
            written(name, path)
    _link_equal_files(folder.path)


def _link_equal_files(folder: Path) -> None:
    """Let ``onnx/model.onnx`` and ``model.onnx`` be one file on the disk where they are equal.

    Artefacts are replaced and never written into, so neither changes with the other.
    """
    for kind in FORMATS.values():
        if kind.may_equal is None:
            continue
        own, other = (folder / one.file_name for one in (kind, FORMATS[kind.may_equal]))
        both = own.is_file() and other.is_file() and own.stat().st_size == other.stat().st_size
        if both and not own.samefile(other) and sha256_of(own) == sha256_of(other):
            with suppress(OSError):  # not on every file system
                second = own.with_name(f"{own.name}.second")
                second.hardlink_to(other)
                second.replace(own)


def require_writable(formats: Sequence[str], options: ExportOptions) -> None:
    """Check, before anything is written, that formats can be written as they are asked for.

    Args:
        formats: What to write.
        options: How; each must be heeded by one of them at least.

    Raises:
        InputError: If a format is not known, or an option says nothing about any of them.
        StorageError: If a package is missing.
    """
    _require_known(formats)
    for option in sorted(options.given):
        heed = takers(option, formats)
        if option in {*INTERFACE_OPTIONS, IMAGE_INPUT} and 0 < len(heed) < len(formats):
            others = [name for name in formats if name not in heed]
            raise InputError(
                f"{SPELLED[option]} says how {', '.join(takers(option))} is written, and not how "
                f"{', '.join(others)} is; write that by itself."
            )
        if heed:
            continue
        raise InputError(
            f"{SPELLED[option]} says how {', '.join(takers(option))} is written, and "
            f"{', '.join(formats) or 'no format'} is asked for; leave it out or choose another "
            "--format."
        )
    for needs in filter(None, (FORMATS[name].needs for name in formats)):
        require_extra(*needs)


def interface_of(name: str, path: Path) -> Interface:
    """What an artefact states that it takes and gives; the network's own if it says nothing.

    Args:
        name: Key of :data:`FORMATS`.
        path: The artefact, which is read and not run.
    """
    states = FORMATS[name].states
    try:
        return Interface.stated(states(path)) if states else NETWORK
    except Exception:  # noqa: BLE001 -- of what cannot be read, whoever runs it says more
        return NETWORK


def offered_by(folder: ConvertedFolder, name: str, path: Path) -> ConvertedFolder:
    """A folder with what one of its artefacts takes and gives.

    Where it cannot have that, say because it has no classes, it is as it was: an artefact that
    states what cannot be is held to what it should be.
    """
    try:
        return folder.offering(interface_of(name, path))
    except InputError:
        return folder


def named_formats(texts: Sequence[str]) -> tuple[str, ...]:
    """What ``--format`` names.

    Args:
        texts: A name each, or several between commas; none at all means the default.

    Returns:
        Keys of :data:`FORMATS`, each once.

    Raises:
        InputError: If one is not known.
    """
    names = [word.strip() for text in texts for word in text.split(",") if word.strip()]
    _require_known(names)
    return tuple(dict.fromkeys(names or DEFAULT_FORMATS))


def _require_known(names: Sequence[str]) -> None:
    if isinstance(names, str):
        raise InputError(f'formats is a list of names; write formats=["{printable(names)}"].')
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]} is not known; choose among {', '.join(FORMATS)}.")
