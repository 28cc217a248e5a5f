"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[Path, typer.Argument(help="A converted folder.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print nothing but errors.")]
Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        help="Artefact to write, see docs/export.md; repeat for several, or put commas.",
        show_default="onnx,torchscript",
    ),
]
CalibrationImages = Annotated[
    list[Path] | None,
    typer.Option(
        "--calibration-images",
        help="onnx-int8: images to set ranges by: a file, folder or pattern; repeatable.",
        show_default="OUT/calibration/",
    ),
]
Share = Annotated[
    bool, typer.Option("--share-weights", help="Let model.onnx point into model.safetensors.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
