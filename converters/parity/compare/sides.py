"""The two sides of a comparison, each opened by what it is; a file's name does not matter."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from converters.checkpoint.sniff import HEAD_SIZE, describe_wrong_file
from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_directory import ZIP_START, ZipDirectory
from converters.errors import ConversionError, InputError, StorageError, in_words
from converters.folder.folder import REPORT_NAME, ConvertedFolder
from converters.folder.interface import NETWORK
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import interface_of
from converters.parity.compare.foreign import ONNX, TORCHSCRIPT, ConfinedForeign

if TYPE_CHECKING:
    from collections.abc import Iterator

    from converters.families.options import SourceOptions
    from converters.formats.runtime import Runtime
    from converters.parity.compare.foreign import Layout

_TITLES = {"folder": "converted folder", ONNX: "ONNX file", TORCHSCRIPT: "TorchScript file"}

_EXPORTED = {"pt2": "program of torch.export"}
"""Files that are not run but read, by the name of their framework: their graphs are proven."""


@dataclass(frozen=True)
class _Named:
    """What both kinds of sides have.

    Attributes:
        path: What the user named.
        kind: ``folder``, ``checkpoint``, ``onnx`` or ``torchscript``.
        framework: Who saved a checkpoint; None of all others.
    """

    path: Path
    kind: str
    framework: str | None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.resolve().name

    @property
    def title(self) -> str:
        """What it is, for people."""
        if self.is_proven_graph:
            return _EXPORTED[self.framework or ""]
        return f"checkpoint of {self.framework}" if self.framework else _TITLES[self.kind]

    @property
    def is_proven_graph(self) -> bool:
        """Whether it is a graph that was found to be a RegNet's, node by node, and not run."""
        return self.framework in _EXPORTED


@dataclass(frozen=True)
class WeightsSide(_Named):
    """A side that holds weights, which the reference model runs.

    Attributes:
        folder: Its weights under the reference's names.
    """

    folder: ConvertedFolder

    @cached_property
    def runtime(self) -> Runtime:
        """The reference model in float32."""
        return ReferenceRuntime(self.folder)

    @property
    def layout(self) -> Layout:
        """The axes of its input (N, C, H, W) that are fixed."""
        return (None, self.folder.config.num_channels, None, None)


class ArtefactSide(_Named):
    """A side that is an artefact, which runs by itself."""

    @cached_property
    def runtime(self) -> ConfinedForeign:
        """What runs it.

        Raises:
            InputError: If it cannot be loaded.
        """
        return ConfinedForeign(self.kind, self.path)

    @property
    def layout(self) -> Layout:
        """The axes of its input (N, C, H, W) that are fixed."""
        return self.runtime.layout


Side = WeightsSide | ArtefactSide
"""One side of a comparison."""


@contextmanager
def opened(path: Path, options: SourceOptions) -> Iterator[Side]:
    """Open a side; a checkpoint is converted, its weights alone, for as long as the block lasts.

    Args:
        path: A converted folder, an ONNX or TorchScript file, or a checkpoint of any framework.
        options: What the user decided about checkpoints.

    Raises:
        InputError: If it is none of these or cannot be used.
        UnsafeInputError: If it would run code.
        StorageError: If it cannot be read, or there is no room for its weights.
    """
    kind = kind_of(path)
    if kind == "folder":
        yield WeightsSide(path, kind, None, ConvertedFolder(path))
    elif kind != "checkpoint":
        if interface_of(kind, path) != NETWORK:
            raise InputError(
                f"{path.name} was written with --normalize or --softmax, and is compared with no "
                "network; judge it with `regnet verify FOLDER --artefact`."
            )
        yield ArtefactSide(path, kind, None)
    else:
        with TemporaryDirectory(prefix="regnet-compare-") as temporary:
            framework = _convert(path, Path(temporary), options)
            yield WeightsSide(path, kind, framework, ConvertedFolder(Path(temporary)))


def kind_of(path: Path) -> str:
    """What a path is: ``folder``, ``checkpoint``, ``onnx`` or ``torchscript``, by its content."""
    if path.is_dir():
        return "folder" if (path / REPORT_NAME).is_file() else "checkpoint"
    try:
        with SourceFile(path) as file:
            head = file.read(0, min(HEAD_SIZE, file.size))
            inside = ZipDirectory(file).entries if head.startswith(ZIP_START) else ()
    except ConversionError:
        return "checkpoint"  # whose reader says best what is wrong
    names = {entry.inside for entry in inside}  # an archive of torch.jit's has a folder of code
    if "constants.pkl" in names and any(name.startswith("code/") for name in names):
        return TORCHSCRIPT
    return ONNX if "protobuf" in (describe_wrong_file(head) or "") else "checkpoint"


def _convert(path: Path, folder: Path, options: SourceOptions) -> str:
    """Write a checkpoint's weights and configuration, and nothing else; who saved it."""
    from converters.weights.inspection import inspected
    from converters.weights.stream import write_weights
    from regnet.image_processor import RegNetImageProcessor

    with inspected(path, options) as (checkpoint, inspection):
        try:
            write_weights(checkpoint, inspection.plan, folder, allow_nonfinite=True)
            inspection.output_config().save_pretrained(folder)
            processor = RegNetImageProcessor(**inspection.source.preprocessor_fields())
            processor.save_pretrained(folder)
        except OSError as error:
            raise StorageError(
                f"The weights of {path.name} cannot be unpacked into a temporary folder "
                f"({in_words(error)}); make room, or set TMPDIR to a place "
                "that has some."
            ) from error
        return inspection.source.framework
