"""`regnet export`: artefacts of a converted folder, in any format and form."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from converters.cli.console import Output
from converters.cli.options import CalibrationImages, Folder, Formats, Json, Quiet, Share, Verify
from converters.cli.tables import files_table, report_table
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.formats.format import ExportOptions


def export_command(
    folder: Folder,
    formats: Formats = None,
    share_weights: Share = False,
    with_preprocessing: Annotated[bool, typer.Option("--with-preprocessing", hidden=True)] = False,
    dynamic: Annotated[
        str | None,
        typer.Option(
            help="ONNX: axes whose size stays open; the others are fixed.",
            show_default="batch,height,width",
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(help="ONNX: fixed sizes, for example 1,3,224,224.", show_default=False),
    ] = None,
    opset: Annotated[
        int | None, typer.Option(help="ONNX: version of the operators.", show_default="18")
    ] = None,
    io_fp16: Annotated[
        bool, typer.Option("--io-fp16", help="onnx-fp16: float16 input and outputs too.")
    ] = False,
    external_data: Annotated[
        bool,
        typer.Option("--external-data", help="onnx-web, onnx-fp16: weights in a file beside it."),
    ] = False,
    calibration_images: CalibrationImages = None,
    verify: Verify = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write artefacts of a converted folder, again or in another form.

    Example: regnet export out/ --format onnx-fp16
    """
    from converters.formats.format import ExportOptions
    from converters.formats.registry import FORMATS, named_formats

    preparing = [name for name, kind in FORMATS.items() if kind.prepares_images]
    chosen = named_formats([*(formats or ()), *(preparing if with_preprocessing else ())])
    options = ExportOptions(
        share_weights=share_weights,
        io_float16=io_fp16,
        external_data=external_data,
        calibration_images=calibration_images or (),
    )
    if opset is not None:
        options = replace(options, form=replace(options.form, opset=opset))
    if dynamic is not None or shape is not None:
        options = _with_sizes(options, folder, dynamic, shape)
    _export(folder, chosen, options, Output(as_json, quiet), verify=verify)


def _with_sizes(
    options: ExportOptions, path: Path, dynamic: str | None, shape: str | None
) -> ExportOptions:
    from converters.folder.folder import ConvertedFolder
    from converters.formats.onnx.form import with_sizes

    axes = None if dynamic is None else _listed(dynamic)
    sizes = None if shape is None else _numbers(shape)
    return replace(options, form=with_sizes(options.form, ConvertedFolder(path), axes, sizes))


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _listed(text))
    except ValueError:
        raise InputError(
            f"--shape {text} is no list of numbers; give for example 1,3,224,224."
        ) from None


def _export(
    path: Path, formats: Sequence[str], options: ExportOptions, output: Output, *, verify: bool
) -> None:
    """Write artefacts into a converted folder; print the files."""
    from converters.formats.registry import FORMATS
    from converters.jobs.export import export_artefacts

    with output.progress() as progress:
        report = export_artefacts(path, formats, options, verify=verify, progress=progress)
    if report:
        output.result(report_table(report))
    output.result(files_table(path))
    described = {name: FORMATS[name].details for name in formats}
    details = {
        name: own
        for name, read in described.items()
        if read and (own := read(path / FORMATS[name].file_name))
    }
    for name, own in details.items():
        if in_words := FORMATS[name].details_in_words:
            output.result(in_words(own))
    if not report:
        output.result(f"\nNot verified yet; do it with: regnet verify {path}")
    record = {"folder": path.name, "formats": list(formats)}
    output.record(
        record
        | ({"details": details} if details else {})
        | ({"verification": report.to_dict()} if report else {})
    )
