"""Arguments and options that several commands share: name, default and help of each, once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from converters.errors import InputError, reason_of
from converters.families.known import FAMILIES, written_back

UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's; typer neither exports it nor says from which of two packages it comes."""


if TYPE_CHECKING:
    from collections.abc import Iterable

    Framework = str
    Target = str
else:  # from which typer takes the choices
    Framework = Literal[*FAMILIES]
    Target = Literal[*written_back()]


def require_commas(extra: Iterable[str]) -> None:
    """Do nothing unless what is too much on a command line are formats or runtimes.

    Raises:
        UsageError: If they are, as of ``--format onnx pt2``.
    """
    from converters.formats.registry import FORMATS, OTHER_RUNTIMES

    names = [name for name in extra if name in FORMATS or name in OTHER_RUNTIMES]
    if names:
        raise UsageError(f"{names[0]} stands alone; put commas between several: a,b,c.")


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


def _svg(given: Path | None) -> Path | None:
    if given is not None and str(given) != "-" and given.suffix.lower() != ".svg":
        raise InputError(f"--plot draws SVG, and {given} does not end in .svg; name it so.")
    return given


Plot = Annotated[
    Path | None,
    typer.Option(
        "--plot", callback=_svg, help="Draw it into an SVG file; - is stdout.", show_default=False
    ),
]
Folder = Annotated[Path, typer.Argument(help="A converted folder.", show_default=False)]
Verify = Annotated[
    bool,
    typer.Option(
        help="Run and judge every artefact before it appears; without that, no torch is needed."
    ),
]
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
        help="onnx-int8, onnx-int8-tuned, litert-int8: images to set ranges by: a file, folder or "
        "pattern; repeatable. Of a converted folder, by default, those in its calibration/.",
        show_default=False,
    ),
]
Dynamic = Annotated[
    str | None,
    typer.Option(
        help="ONNX: axes whose size stays open; the others are fixed.",
        show_default="batch,height,width",
    ),
]
Shape = Annotated[
    str | None,
    typer.Option(help="ONNX: fixed sizes, for example 1,3,224,224.", show_default=False),
]
Opset = Annotated[
    int | None, typer.Option(help="ONNX: version of the operators.", show_default="18")
]
Block = Annotated[
    int | None,
    typer.Option(
        help="onnx-tuned, onnx-int8-tuned: channels that the runtime computes together, 16 with "
        "AVX-512, 8 with AVX2; nothing is timed then.",
        show_default="timed on this machine",
    ),
]
Share = Annotated[
    bool, typer.Option("--share-weights", help="Let model.onnx point into model.safetensors.")
]

_RUNTIMES = (
    "a format of `regnet export`; tract, mnn, opencv or ort for model.onnx; torch for eager PyTorch"
)


def _known(name: str) -> str:
    from converters.jobs.predict import require_known

    require_known(name)
    return name


def _all_known(given: list[str] | None) -> list[str]:
    return [_known(name) for names in given or () for name in names.split(",")]


Runtime = Annotated[str, typer.Option(callback=_known, help=f"What runs the network: {_RUNTIMES}.")]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        callback=_all_known,
        help=f"What runs the network: {_RUNTIMES}; repeat for several, or put commas.",
        show_default="all that the folder has",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")]


def read_labels(path: Path, *, of_folders: bool = False) -> list[str]:
    """Read class names from JSON in any usual form or a text file with one per line.

    Args:
        path: The file.
        of_folders: Whether they are names of folders, which are ImageNet's synsets where it has
            synsets and names.

    Raises:
        InputError: If the file cannot be read or is neither.
    """
    from converters.families.labels import in_class_order
    from regnet.files.reading import parse_json, read_text

    try:
        text = read_text(path)
    except (OSError, ValueError) as error:
        raise InputError(f"The labels {path} cannot be read ({reason_of(error)}).") from error
    if not text.lstrip().startswith(("[", "{")):
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        labels = parse_json(text)
    except ValueError as error:
        raise InputError(f"The labels {path} cannot be read ({reason_of(error)}).") from error
    names = in_class_order(labels, synsets=of_folders)
    if names is None:
        raise InputError(
            f"The labels {path} must be a JSON list of names in class order, or an object that "
            'numbers them all from 0: {"0": "cat"} or {"cat": 0}.'
        )
    return list(names)
