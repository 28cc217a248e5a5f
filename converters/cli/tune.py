"""`regnet tune`: the same ONNX, laid out for the blocks that ONNX Runtime computes in."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from converters.cli.console import Output
from converters.cli.export import listed, numbers, show_exported
from converters.cli.options import (
    Block,
    CalibrationImages,
    Dynamic,
    Folder,
    Json,
    Opset,
    Quiet,
    Shape,
    Verify,
)


def tune_command(
    folder: Folder,
    block: Block = None,
    int8: Annotated[
        bool, typer.Option("--int8", help="Write onnx-int8-tuned too, calibrated on images.")
    ] = False,
    calibration_images: CalibrationImages = None,
    dynamic: Dynamic = None,
    shape: Shape = None,
    opset: Opset = None,
    verify: Verify = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Write ONNX that ONNX Runtime runs faster on this machine, and that computes the same.

    Example: regnet tune out/ --block 16
    """
    from converters.formats.onnx.formats import ONNX_INT8_TUNED, ONNX_TUNED
    from converters.jobs.export import changed_network, export

    chosen = [ONNX_TUNED.name, *([ONNX_INT8_TUNED.name] if int8 else ())]
    output = Output(as_json, quiet)
    with output.progress() as progress:
        report = export(
            folder,
            chosen,
            block=block,
            dynamic=listed(dynamic),
            shape=numbers(shape),
            opset=opset,
            calibration_images=calibration_images or (),
            verify=verify,
            progress=progress,
        )
    show_exported(output, folder, chosen, report, partial(changed_network, folder))
