"""`regnet export`: artefacts of a converted folder, in any format and form."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, cast

import typer
from rich.text import Text

from converters.cli.console import Output
from converters.cli.options import (
    Block,
    CalibrationImages,
    Dynamic,
    Folder,
    Formats,
    Json,
    Opset,
    Quiet,
    Shape,
    Share,
    Verify,
)
from converters.cli.tables import files_table, outcome_line, report_table, to_verify
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from converters.folder.interface import Largest
    from converters.parity.report import Report


def export_command(
    folder: Folder,
    formats: Formats = None,
    share_weights: Share = False,
    with_preprocessing: Annotated[bool, typer.Option("--with-preprocessing", hidden=True)] = False,
    dynamic: Dynamic = None,
    shape: Shape = None,
    opset: Opset = None,
    io_fp16: Annotated[
        bool, typer.Option("--io-fp16", help="onnx-fp16: float16 input and outputs too.")
    ] = False,
    external_data: Annotated[
        bool,
        typer.Option(
            "--external-data", help="onnx-web, onnx-fp16, onnx-tuned: weights in a file beside it."
        ),
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
    tune: Annotated[
        bool,
        typer.Option("--tune", help="Write onnx-tuned too, and onnx-int8-tuned beside onnx-int8."),
    ] = False,
    block: Block = None,
    verify: Verify = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write artefacts of a converted folder, again or in another form.

    Example: regnet export out/ --format onnx-fp16
    """
    from converters.formats.beside import another, expect_torch
    from converters.formats.onnx.formats import ONNX_INT8, ONNX_INT8_TUNED, ONNX_TUNED
    from converters.formats.registry import FORMATS, are_traced, named_formats

    preparing = [name for name, kind in FORMATS.items() if kind.prepares_images]
    chosen = named_formats([*(formats or ()), *(preparing if with_preprocessing else ())])
    if tune:
        in_int8 = [ONNX_INT8_TUNED.name] if ONNX_INT8.name in chosen else []
        chosen = tuple(dict.fromkeys([*chosen, ONNX_TUNED.name, *in_int8]))
    if verify and not are_traced(chosen):
        expect_torch()
    from converters.jobs.export import changed_network, export

    output = Output(as_json, quiet)
    with another() as others, output.progress() as progress:
        changed = others.later(changed_network, folder)
        if not verify:
            changed.begin()
        report = export(
            folder,
            chosen,
            share_weights=share_weights,
            opset=opset,
            dynamic=listed(dynamic),
            shape=numbers(shape),
            io_float16=io_fp16,
            external_data=external_data,
            calibration_images=calibration_images or (),
            symmetric=symmetric,
            normalize=cast("Largest | None", normalize),
            softmax=softmax,
            image_input=image_input,
            block=block,
            verify=verify,
            progress=progress,
        )
        show_exported(output, folder, chosen, report, changed)


def show_exported(
    output: Output,
    folder: Path,
    chosen: Sequence[str],
    report: Report | None,
    changed: Callable[[], Report | None],
) -> None:
    """Say what was written, and how it was judged.

    Args:
        output: Where to.
        folder: The converted folder.
        chosen: Keys of the formats.
        report: The verdicts, if there are any.
        changed: Gives what :func:`converters.jobs.export.changed_network` does; called without
            verdicts.
    """
    from converters.formats.registry import FORMATS

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
    elif other := changed():
        output.result("", Text(f"{'; '.join(other.failures)}{other.way_out}.", "yellow"))
    else:
        output.result("", f"Not verified yet; do it with: {to_verify(folder)}")
    record = {"folder": folder.name, "formats": list(chosen)}
    output.record(
        record
        | ({"details": details} if details else {})
        | ({"verification": report.to_dict()} if report else {})
    )


def listed(text: str | None) -> list[str] | None:
    """Words between commas; None where nobody gave any."""
    return None if text is None else [word.strip() for word in text.split(",") if word.strip()]


def numbers(text: str | None) -> tuple[int, ...] | None:
    """The sizes of ``--shape``; None where nobody gave any.

    Raises:
        InputError: If they are no numbers.
    """
    try:
        return None if text is None else tuple(int(word) for word in listed(text) or ())
    except ValueError:
        raise InputError(
            f"--shape {text} is no list of numbers; give for example 1,3,224,224."
        ) from None
