"""The formats: which file each is, what writes it and what runs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.folder import ONNX_NAME, TORCHSCRIPT_NAME

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from converters.folder import ConvertedFolder
    from converters.parity.contents import Contents, ReadContents
    from converters.runtimes.runtime import Runtime


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How artefacts are written.

    Attributes:
        share_weights: Whether ONNX points into ``model.safetensors`` instead of holding a copy.
        weights_sha256: Digests of the weights files, where they are known already.
    """

    share_weights: bool = False
    weights_sha256: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """One kind of artefact.

    Attributes:
        title: For people.
        file_name: In a converted folder.
        export: Writes it from a folder to a path.
        load: Opens it for running, given the names of its outputs.
        contents: Takes it apart into tensors, for :func:`converters.parity.tensors.certify`.
    """

    title: str
    file_name: str
    export: Callable[[ConvertedFolder, Path, ExportOptions], None]
    load: Callable[[Path, tuple[str, ...]], Runtime]
    contents: ReadContents


def _export_onnx(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.exporters.onnx import export_onnx

    export_onnx(
        folder,
        path,
        share_weights=options.share_weights,
        weights_sha256=options.weights_sha256,
    )


def _load_onnx(path: Path, _: tuple[str, ...]) -> Runtime:
    from converters.runtimes.onnxruntime import OnnxRuntime

    return OnnxRuntime(path)


def _read_onnx(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents_onnx import read_onnx

    return read_onnx(folder, path)


def _export_torchscript(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.exporters.torchscript import export_torchscript

    export_torchscript(folder, path)


def _load_torchscript(path: Path, output_names: tuple[str, ...]) -> Runtime:
    from converters.runtimes.torchscript import TorchScriptRuntime

    return TorchScriptRuntime(path, output_names)


def _read_torchscript(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents_torchscript import read_torchscript

    return read_torchscript(folder, path)


FORMATS = {
    "onnx": Format("ONNX", ONNX_NAME, _export_onnx, _load_onnx, _read_onnx),
    "torchscript": Format(
        "TorchScript",
        TORCHSCRIPT_NAME,
        _export_torchscript,
        _load_torchscript,
        _read_torchscript,
    ),
}
