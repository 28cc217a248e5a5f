"""What a format is: which file, what it is asked for, what writes it and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from converters.formats.onnx.form import DEFAULT_FORM, GraphForm

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.runtime import Runtime
    from converters.parity.contents.held import ReadContents
    from converters.parity.verdict import Measurement


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How artefacts are written.

    Attributes:
        share_weights: Whether ONNX points into ``model.safetensors`` instead of holding a copy.
        weights_sha256: Digests of the weights files, where they are known already.
        form: Opset and sizes of ONNX graphs.
        io_float16: Whether ``onnx-fp16`` takes and gives float16 instead of float32.
        external_data: Whether ``onnx-web`` and ``onnx-fp16`` put their weights into a file of their
            own, named like the artefact with ``_data`` appended; beyond 2 GB they always do.
        calibration_images: What ``onnx-int8`` is calibrated on: files, folders, patterns; empty for
            the folder's own ``calibration/``.
        largest_loss: How much of top-1 ``onnx-int8`` may be expected to cost, 0 to 1; None for half
            a point.
    """

    share_weights: bool = False
    weights_sha256: Mapping[str, str] | None = None
    form: GraphForm = DEFAULT_FORM
    io_float16: bool = False
    external_data: bool = False
    calibration_images: Sequence[Path] = ()
    largest_loss: float | None = None

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
        }
        return frozenset(name for name, is_given in given.items() if is_given)


SPELLED = {
    "share_weights": "--share-weights",
    "opset": "--opset",
    "sizes": "--shape or --dynamic",
    "io_float16": "--io-fp16",
    "external_data": "--external-data",
    "calibration_images": "--calibration-images",
    "largest_loss": "largest_loss",
}
"""What formats may be asked for: its name in :attr:`Format.options` to the command line's."""

GRAPH = frozenset({"opset", "sizes"})


class Load(Protocol):
    """Opens an artefact for running."""

    def __call__(self, path: Path, output_names: tuple[str, ...], threads: int = 1, /) -> Runtime:
        """Open a file that returns the named outputs, to compute on so many threads."""
        ...


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of artefact.

    Attributes:
        title: For people.
        file_name: In a converted folder.
        export: Writes it from a folder to a path.
        load: Opens it for running, given the names of its outputs and the number of threads.
        contents: Takes it apart into tensors, for
            :func:`converters.parity.contents.tensors.certify`; None of compiled ones, whose weights
            are packed for a processor, and which are judged by their numbers alone.
        companions: Files that ``export`` may write beside its path; they and the artefact need each
            other, and are staged and recorded together.
        further: What is measured of it beyond its outputs on normalised pixels, if anything; told
            whether to run it in a process of its own.
        details: What ``conversion.json`` records of the file beside its digest, if anything.
        options: Keys of :data:`SPELLED` that ``export`` heeds.
        extra: The extra of this project, called like the package, that it is written with; None if
            nothing further is needed.
    """

    title: str
    file_name: str
    export: Callable[[ConvertedFolder, Path, ExportOptions], None]
    load: Load
    contents: ReadContents | None
    companions: tuple[str, ...] = ()
    further: Callable[[ConvertedFolder, Path, bool], tuple[Measurement, ...]] | None = None
    details: Callable[[Path], dict[str, Any]] | None = None
    options: frozenset[str] = frozenset()
    extra: str | None = None

    @property
    def companion_names(self) -> tuple[str, ...]:
        """The companions' names in a converted folder."""
        above, slash, _ = self.file_name.rpartition("/")
        return tuple(above + slash + name for name in self.companions)
