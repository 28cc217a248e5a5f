"""The formats that there are, each under its name on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from converters.errors import InputError, require_extra
from converters.folder.folder import ONNX_NAME, TORCHSCRIPT_NAME
from converters.formats.format import GRAPH, SPELLED, Format

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions
    from converters.formats.runtime import Runtime
    from converters.parity.contents.held import Contents
    from converters.parity.verdict import Measurement


def _export_onnx(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.formats.onnx.export import export_onnx

    export_onnx(
        folder,
        path,
        share_weights=options.share_weights,
        weights_sha256=options.weights_sha256,
        form=options.form,
    )


def _export_onnx_web(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.formats.onnx.export import export_onnx_alone

    export_onnx_alone(folder, path, options.form, external_data=options.external_data)


def _export_onnx_fp16(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.formats.onnx.export import export_onnx_alone

    form = options.form.in_float16(io=options.io_float16)
    export_onnx_alone(folder, path, form, external_data=options.external_data)


def _export_onnx_int8(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.formats.onnx.int8 import LARGEST_LOSS, export_int8

    loss = LARGEST_LOSS if options.largest_loss is None else options.largest_loss
    export_int8(folder, path, options.form, options.calibration_images, loss)


def _read_onnx_int8(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents.onnx_int8 import read_onnx_int8

    return read_onnx_int8(folder, path)


def _details_of_int8(path: Path) -> dict[str, Any]:
    from converters.formats.onnx.int8 import read_quantisation

    return {"quantisation": read_quantisation(path)}


def _export_onnx_preprocessing(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
    from converters.formats.onnx.preprocessing import export_with_preprocessing

    export_with_preprocessing(folder, path, options.form)


def _load_onnx_preprocessing(path: Path, _: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.onnx.preprocessing_runtime import NetworkOfPreprocessing

    return NetworkOfPreprocessing(path, threads)


def _measure_preprocessing(
    folder: ConvertedFolder, path: Path, confined: bool
) -> tuple[Measurement, ...]:
    from converters.parity.preprocessing import measure_preprocessing

    return measure_preprocessing(folder, path, confined=confined)


def _load_onnx(path: Path, _: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.onnx.runtime import OnnxRuntime

    return OnnxRuntime(path, threads)


def _read_onnx(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents.onnx import read_onnx

    return read_onnx(folder, path)


def _export_torchscript(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.formats.torchscript import export_torchscript

    export_torchscript(folder, path)


def _load_torchscript(path: Path, output_names: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.torchscript_runtime import TorchScriptRuntime

    return TorchScriptRuntime(path, output_names, threads)


def _read_torchscript(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents.torchscript import read_torchscript

    return read_torchscript(folder, path)


def _export_pt2(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.formats.pt2 import export_pt2

    export_pt2(folder, path)


def _load_pt2(path: Path, output_names: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.torch_program_runtime import Pt2Runtime

    return Pt2Runtime(path, output_names, threads)


def _read_pt2(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents.pt2 import read_pt2

    return read_pt2(folder, path)


def _export_aotinductor(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.formats.aotinductor import export_aotinductor

    export_aotinductor(folder, path)


def _load_aotinductor(path: Path, output_names: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.torch_program_runtime import AotInductorRuntime

    return AotInductorRuntime(path, output_names, threads)


def _export_openvino(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.formats.openvino import export_openvino

    export_openvino(folder, path)


def _load_openvino(path: Path, output_names: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.openvino_runtime import OpenVinoRuntime

    return OpenVinoRuntime(path, output_names, threads)


def _read_openvino(folder: ConvertedFolder, path: Path) -> Contents:
    from converters.parity.contents.openvino import read_openvino

    return read_openvino(folder, path)


def _export_executorch(folder: ConvertedFolder, path: Path, _: ExportOptions) -> None:
    from converters.formats.executorch import export_executorch

    export_executorch(folder, path)


def _load_executorch(path: Path, output_names: tuple[str, ...], threads: int = 1) -> Runtime:
    from converters.formats.executorch_runtime import ExecuTorchRuntime

    return ExecuTorchRuntime(path, output_names, threads)


FORMATS = {
    "onnx": Format(
        "ONNX",
        ONNX_NAME,
        _export_onnx,
        _load_onnx,
        _read_onnx,
        options=GRAPH | {"share_weights"},
    ),
    "onnx-fp16": Format(
        "ONNX in float16",
        "onnx/model_fp16.onnx",
        _export_onnx_fp16,
        _load_onnx,
        _read_onnx,
        companions=("model_fp16.onnx_data",),
        options=GRAPH | {"external_data", "io_float16"},
    ),
    "onnx-int8": Format(
        "ONNX in int8",
        "onnx/model_quantized.onnx",
        _export_onnx_int8,
        _load_onnx,
        _read_onnx_int8,
        details=_details_of_int8,
        options=GRAPH | {"calibration_images", "largest_loss"},
    ),
    "onnx-web": Format(
        "ONNX for transformers.js",
        "onnx/model.onnx",
        _export_onnx_web,
        _load_onnx,
        _read_onnx,
        companions=("model.onnx_data",),
        options=GRAPH | {"external_data"},
    ),
    "onnx-preprocessing": Format(
        "ONNX with preprocessing",
        "onnx/model_with_preprocessing.onnx",
        _export_onnx_preprocessing,
        _load_onnx_preprocessing,
        _read_onnx,
        further=_measure_preprocessing,
        options=GRAPH,
    ),
    "torchscript": Format(
        "TorchScript",
        TORCHSCRIPT_NAME,
        _export_torchscript,
        _load_torchscript,
        _read_torchscript,
    ),
    "pt2": Format("torch.export", "model.pt2", _export_pt2, _load_pt2, _read_pt2),
    "aotinductor": Format(
        "AOTInductor", "model.aoti.pt2", _export_aotinductor, _load_aotinductor, contents=None
    ),
    "openvino": Format(
        "OpenVINO",
        "openvino_model.xml",
        _export_openvino,
        _load_openvino,
        _read_openvino,
        companions=("openvino_model.bin",),
        extra="openvino",
    ),
    "executorch": Format(
        "ExecuTorch",
        "model.pte",
        _export_executorch,
        _load_executorch,
        contents=None,
        extra="executorch",
    ),
}

DEFAULT_FORMATS = ("onnx", "torchscript")
"""What is written where nobody asks for others."""


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
    heeded = {option for name in formats for option in FORMATS[name].options}
    for option in sorted(options.given - heeded):
        takers = ", ".join(name for name, kind in FORMATS.items() if option in kind.options)
        raise InputError(
            f"{SPELLED[option]} says how {takers} is written, and "
            f"{', '.join(formats) or 'no format'} is asked for; leave it out or choose another "
            "--format."
        )
    for extra in filter(None, (FORMATS[name].extra for name in formats)):
        require_extra(extra, extra)


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
    unknown = [name for name in names if name not in FORMATS]
    if unknown:
        raise InputError(f"--format {unknown[0]} is not known; choose among {', '.join(FORMATS)}.")
