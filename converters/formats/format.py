"""What a format is: which file, what it is asked for, what writes it and what runs it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from converters.folder.interface import NETWORK, Interface
from converters.formats.onnx.form import DEFAULT_FORM, GraphForm
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.runtime import ArtefactRuntime
    from converters.progress import Progress


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How artefacts are written.

    Attributes:
        share_weights: Whether ONNX points into ``model.safetensors`` instead of holding a copy.
        weights_sha256: Digests of the weights files, where they are known already.
        form: Opset and sizes of ONNX graphs.
        io_float16: Whether ``onnx-fp16`` takes and gives float16 instead of float32.
        open_sizes: Whether somebody asked for all sizes to stay open, of formats that fix them
            where nobody asks for anything.
        external_data: Whether ``onnx-web`` and ``onnx-fp16`` put their weights into a file of their
            own, named like the artefact with ``_data`` appended; beyond 2 GB they always do.
        calibration_images: What int8 is calibrated on: files, folders, patterns; empty for
            the folder's own ``calibration/``.
        largest_loss: How much of top-1 int8 may be expected to cost, 0 to 1; None for half
            a point.
        symmetric: Whether activations of ``onnx-int8`` are int8 with zero points of 0, and biases
            floats, as TensorRT asks for.
        interface: What artefacts take and give. Exporters find it in the folder that they are
            given.
        image_input: Whether Core ML packages take pictures and name classes; then the interface has
            pixels up to 255, and probabilities where there are classes.
        block: How many channels the runtime computes together, for ``onnx-tuned``; None to time
            what is fastest on this machine.
        progress: Who wants to know how far a search is, such as int8's.
    """

    share_weights: bool = False
    weights_sha256: Mapping[str, str] | None = None
    form: GraphForm = DEFAULT_FORM
    open_sizes: bool = False
    io_float16: bool = False
    external_data: bool = False
    calibration_images: Sequence[Path] = ()
    largest_loss: float | None = None
    symmetric: bool = False
    interface: Interface = NETWORK
    image_input: bool = False
    block: int | None = None
    progress: Progress = field(default=SILENT, compare=False)

    @property
    def given(self) -> frozenset[str]:
        """The keys of :data:`SPELLED` that are set otherwise than by default."""
        given = {
            "share_weights": self.share_weights,
            "opset": self.form.opset != DEFAULT_FORM.opset,
            "sizes": bool(self.form.fixed),
            "io_float16": self.io_float16,
            "external_data": self.external_data,
            "calibration_images": bool(self.calibration_images),
            "largest_loss": self.largest_loss is not None,
            "symmetric": self.symmetric,
            "normalize": self.interface.pixels is not None,
            "softmax": self.interface.softmax,
            "image_input": self.image_input,
            "block": self.block is not None,
        }
        return frozenset(name for name, is_given in given.items() if is_given)


IMAGE_INPUT = "image_input"
"""That of :data:`SPELLED` that makes an input a picture, with an interface of its own."""

SPELLED = {
    "share_weights": "--share-weights",
    "opset": "--opset",
    "sizes": "--shape or --dynamic",
    "io_float16": "--io-fp16",
    "external_data": "--external-data",
    "calibration_images": "--calibration-images",
    "largest_loss": "largest_loss",
    "symmetric": "--symmetric",
    "normalize": "--normalize",
    "softmax": "--softmax",
    IMAGE_INPUT: "--image-input",
    "block": "--block",
}
"""What formats may be asked for: its name in :attr:`Format.options` to the command line's."""

INTERFACE_OPTIONS = frozenset({"normalize", "softmax"})
"""Those of :data:`SPELLED` that say what an artefact takes and gives: a format that does not heed
them would write something else than is asked for."""


DEFAULTS = ExportOptions()
"""What is written where nobody asks for anything."""


class Export(Protocol):
    """Writes an artefact; what is said here holds of every ``export_*`` in this room."""

    def __call__(self, folder: ConvertedFolder, path: Path, options: ExportOptions, /) -> None:
        """Write a folder's network.

        Args:
            folder: What to export.
            path: Created or replaced, and with it the companions beside it.
            options: How; those that :attr:`Format.options` does not name say nothing here.

        Raises:
            InputError: If the folder or the options cannot be used.
            StorageError: If a package is missing.
            OSError: If a file cannot be written.
        """


class Load(Protocol):
    """Opens an artefact for running; what is said here holds of every runtime's constructor."""

    def __call__(
        self, path: Path, output_names: tuple[str, ...], threads: int = 1, /
    ) -> ArtefactRuntime:
        """Open a file.

        Args:
            path: The artefact, its companions beside it.
            output_names: Of what it returns, in order; a file that names its outputs is believed.
            threads: How many compute.

        Raises:
            InputError: If no library of this format wrote it.
            MemoryShortError: If it would not fit into memory.
            StorageError: If a package is missing.
            UnsafeInputError: If opening it could run code, or another program find another one
                in it.
            Exception: Of whatever class the runtime raises, if it is damaged.
        """
        ...


@dataclass(frozen=True, slots=True)
class OtherRuntime:
    """Another program that runs a format's files, or the same one told otherwise.

    Attributes:
        name: Behind ``--runtime``.
        title: For people.
        load: Opens the files; but for what is `always` judged, in a process of its own.
        always: Whether no verdict is given on the format without one in this runtime, because it is
            what most will run the files with.
        needs: The package that must be there, as it is imported, and the extra that brings it; None
            if it is the format's own.
    """

    name: str
    title: str
    load: Load
    always: bool = False
    needs: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of artefact.

    What knows the proof of an artefact is named by its place, ``module:name``: a format is written
    without knowing how it is judged, and judged by code that shares nothing with what wrote it.

    Attributes:
        name: On the command line.
        title: For people.
        file_name: In a converted folder; of a format that is a folder of files, that folder's.
        export: Writes it from a folder to a path.
        load: Opens it for running, given the names of its outputs and the number of threads.
        usage: Three lines that load and run it, for the model card; ``{file}`` is the artefact.
        certificate: What takes it apart into tensors (:mod:`converters.parity.contents.held`); None
            of compiled ones, whose weights are packed for a processor, and which are judged by
            their numbers alone.
        intermediates: What runs it and keeps every value, for
            :mod:`converters.parity.locate.intermediates`; None of those that show none.
        prepares_images: Whether it takes images as they are, so that what it makes of them is
            measured too, beyond its outputs on normalised pixels.
        companions: Files that ``export`` may write beside its path; they and the artefact need each
            other, and are staged and recorded together.
        members: Files inside, of a format that is a folder of files; the first is never missing.
        options: Keys of :data:`SPELLED` that ``export`` heeds.
        precision: In which it computes.
        extra: The extra of this project that it is written and run with; None if nothing further is
            needed.
        package: What this extra is for, as it is imported; None if it is called like the extra.
        details: What ``conversion.json`` records of the file beside its digest, if anything.
        details_in_words: The same for people.
        may_equal: Another format whose file may have the very same bytes, and be the same file.
        language: Of ``usage``.
        others: What else its files are run and judged with.
        lacks: Says, as a clause, what else than a package is not on this machine that it is written
            or run with; None if all is.
        states: Reads what a file states beside the network, as :mod:`converters.formats.stated`
            has it, and does not run it; None of those that cannot state anything.
        runs_beside: Whether it may be loaded and run by a thread of its own, beside others.
        in_torch: Whether torch runs it, so that it may be the second process that does.
        traced: Whether torch traces what is written, so that this process needs torch as well.
        apart: Whether it is run in a process of its own also where this one has just written it,
            because the runtime may end the process that it is in.
    """

    name: str
    title: str
    file_name: str
    export: Export
    load: Load
    usage: tuple[str, str, str]
    certificate: str | None = None
    intermediates: str | None = None
    prepares_images: bool = False
    companions: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    options: frozenset[str] = frozenset()
    precision: str = "float32"
    extra: str | None = None
    package: str | None = None
    details: Callable[[Path], dict[str, Any]] | None = None
    details_in_words: Callable[[Mapping[str, Any]], str] | None = None
    may_equal: str | None = None
    language: str = "python"
    others: tuple[OtherRuntime, ...] = ()
    lacks: Callable[[], str | None] = lambda: None
    states: Callable[[Path], Mapping[str, str]] | None = None
    runs_beside: bool = False
    in_torch: bool = False
    traced: bool = False
    apart: bool = False

    @property
    def needs(self) -> tuple[str, str] | None:
        """The package that must be there, as it is imported, and the extra that brings it."""
        return (self.package or self.extra, self.extra) if self.extra else None

    @property
    def companion_names(self) -> tuple[str, ...]:
        """The companions' names in a converted folder."""
        above, slash, _ = self.file_name.rpartition("/")
        return tuple(above + slash + name for name in self.companions)

    @property
    def files(self) -> tuple[str, ...]:
        """Its files in a converted folder; without the first it is not there."""
        if self.members:
            return tuple(f"{self.file_name}/{name}" for name in self.members)
        return (self.file_name, *self.companion_names)

    def at(self, path: Path) -> list[Path]:
        """Those of its files that are there, of an artefact that lies anywhere."""
        own = [path, *(path.parent / name for name in self.companions)]
        files = [path / name for name in self.members] or own
        return [file for file in files if file.is_file()]

    def is_in(self, folder: Path) -> bool:
        """Whether the artefact lies in a converted folder."""
        return (folder / self.files[0]).is_file()

    @property
    def tag(self) -> str:
        """What its folder is to be found by, such as ``onnx`` of all kinds of ONNX."""
        return self.name.partition("-")[0]
