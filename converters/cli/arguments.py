"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from converters.families.known import FAMILIES, written_back

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's; typer neither exports it nor says from which of two packages it comes."""


if TYPE_CHECKING:
    Framework = str
    WrittenBack = str
else:  # from which typer takes the choices
    Framework = Literal[*FAMILIES]
    WrittenBack = Literal[*written_back()]

Source = Annotated[
    Path,
    typer.Argument(
        help="The checkpoint: a file, a folder, or a name from `regnet list`.", show_default=False
    ),
]
Order = Annotated[
    Literal["rgb", "bgr"] | None,
    typer.Option(
        help="Order of the channels the network was trained on.",
        show_default="as the checkpoint says, else the framework's own",
    ),
]
Weights = Annotated[
    Literal["raw", "ema", "best"],
    typer.Option(
        help="Which weights, where the file has several; best is what its own loader takes."
    ),
]
From = Annotated[
    Framework | None,
    typer.Option("--from", help="Who saved the checkpoint.", show_default="recognised"),
]
Head = Annotated[
    str | None,
    typer.Option(
        help="Which head, where the file has several; none for the trunk alone.", show_default=False
    ),
]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", help="A photograph to run as well; repeatable.", show_default=False),
]
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
        help="onnx-int8: images to set ranges by: a file, folder or pattern; repeatable. Of a "
        "converted folder, by default, those in its calibration/.",
        show_default=False,
    ),
]
Share = Annotated[
    bool, typer.Option("--share-weights", help="Let model.onnx point into model.safetensors.")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks.")]
