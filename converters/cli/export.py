"""`regnet export`: artefacts of a converted folder, in any format and form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer

from converters.cli.console import Output
from converters.cli.options import CalibrationImages, Folder, Formats, Json, Quiet, Share, Verify
from converters.cli.tables import files_table, outcome_line, report_table, to_verify
from converters.errors import InputError

if TYPE_CHECKING:
    from converters.folder.interface import Largest


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
    symmetric: Annotated[
        bool,
        typer.Option("--symmetric", help="onnx-int8: for TensorRT, see docs/int8.md."),
    ] = False,
    normalize: Annotated[
        int | None,
        typer.Option(
            help="Take RGB pixels from 0 to 255, or to 1, and normalise them inside.",
            metavar="255|1",
            show_default=False,
        ),
    ] = None,
    softmax: Annotated[
        bool, typer.Option("--softmax", help="Give probabilities instead of logits.")
    ] = False,
    image_input: Annotated[
        bool,
        typer.Option("--image-input", help="Core ML: take pictures, and name the classes."),
    ] = False,
    verify: Verify = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write artefacts of a converted folder, again or in another form.

    Example: regnet export out/ --format onnx-fp16
    """
    from converters.formats.registry import FORMATS, named_formats
    from converters.jobs.export import export

    preparing = [name for name, kind in FORMATS.items() if kind.prepares_images]
    chosen = named_formats([*(formats or ()), *(preparing if with_preprocessing else ())])
    output = Output(as_json, quiet)
    with output.progress() as progress:
        report = export(
            folder,
            chosen,
            share_weights=share_weights,
            opset=opset,
            dynamic=None if dynamic is None else _listed(dynamic),
            shape=None if shape is None else _numbers(shape),
            io_float16=io_fp16,
            external_data=external_data,
            calibration_images=calibration_images or (),
            symmetric=symmetric,
            normalize=cast("Largest | None", normalize),
            softmax=softmax,
            image_input=image_input,
            verify=verify,
            progress=progress,
        )
    if report:
        output.result(report_table(report))
    output.result(files_table(folder))
    details = {}
    for kind in (FORMATS[name] for name in chosen):
        if kind.details and (own := kind.details(folder / kind.file_name)):
            details[kind.name] = own
            if kind.details_in_words:
                output.result(kind.details_in_words(own))
    if report:
        output.result("", outcome_line(report))
    else:
        output.result("", f"Not verified yet; do it with: {to_verify(folder)}")
    record = {"folder": folder.name, "formats": list(chosen)}
    output.record(
        record
        | ({"details": details} if details else {})
        | ({"verification": report.to_dict()} if report else {})
    )


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()]


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in _listed(text))
    except ValueError:
        raise InputError(
            f"--shape {text} is no list of numbers; give for example 1,3,224,224."
        ) from None
