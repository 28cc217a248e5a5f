"""`regnet predict`: the classes of images, as a table, as CSV, as a picture."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output, write_text
from converters.cli.options import BatchSize, Folder, Json, Quiet, Runtime
from converters.errors import InputError, escaped, first

if TYPE_CHECKING:
    from collections.abc import Sequence

    from converters.jobs.predict import Prediction

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula: the signs, their full-width twins, and what is skipped before them."""

_COLUMNS = ("image", "rank", "label", "probability")


def predict_command(
    folder: Folder,
    images: Annotated[
        list[Path],
        typer.Argument(help="Images, folders of images, patterns.", show_default=False),
    ],
    runtime: Runtime = "onnx",
    top: Annotated[int, typer.Option(min=1, help="Classes to print.")] = 5,
    batch_size: BatchSize = 8,
    csv: Annotated[
        Path | None, typer.Option(help="Write a table as CSV; - is stdout.", show_default=False)
    ] = None,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help="Draw images and classes into a PNG file.", show_default=False),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Classify images with a converted folder, through any runtime.

    Example: regnet predict out/ cat.jpg photos/ --contact-sheet photos.png
    """
    from converters.folder.images import UnreadableImagesError, find_images
    from converters.jobs.predict import predict_each

    csv_takes_stdout = str(csv) == "-"
    if csv_takes_stdout and as_json:
        raise InputError("--csv - and --json both want stdout; give --csv a file.")
    output = Output(as_json, quiet)
    files = find_images(images)
    unreadable: list[str] = []
    predictions: list[Prediction] = []
    with output.progress("items") as progress:
        progress.step("predicting", len(files))
        for prediction in predict_each(folder, files, unreadable, runtime, top, batch_size):
            predictions.append(prediction)
            progress.advance(1)
    if csv is not None:
        write_text(csv, _as_csv(predictions))
    if contact_sheet is not None and predictions:
        _draw(predictions, contact_sheet, output)
    if predictions and not csv_takes_stdout:
        output.result(_table(predictions))
    output.record(
        {
            "predictions": [prediction.to_dict() for prediction in predictions],
            "unreadable": unreadable,
        }
    )
    if unreadable:
        raise UnreadableImagesError(*unreadable)


def _as_csv(predictions: Sequence[Prediction]) -> str:
    """One row for each class of each image, the best first."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for prediction in predictions:
        for rank, (label, score) in enumerate(prediction.classes, start=1):
            writer.writerow((_cell(str(prediction.image)), rank, _cell(label), f"{score:.6f}"))
    return text.getvalue()


def _cell(text: str) -> str:
    """Text that neither a terminal nor a spreadsheet obeys: files and labels can say anything.

    Control characters are escaped, and what a spreadsheet would compute gets an apostrophe, with
    which it shows text as it is (https://owasp.org/www-community/attacks/CSV_Injection).
    """
    shown = escaped(text)
    return f"'{shown}" if text.lstrip(" ").startswith(_FORMULAS) else shown


def _draw(predictions: Sequence[Prediction], target: Path, output: Output) -> None:
    from converters.jobs.contact_sheet import contact_sheet
    from converters.staging.staged import staged_file, storage_errors

    sheet, absent = contact_sheet(predictions)
    with storage_errors(target), staged_file(target) as staging:
        sheet.save(staging, format="PNG")
    if absent:
        output.note(
            f"No font on this machine has {first(absent)}, so {target} shows other characters; "
            "install one that has (Noto Sans, say) and run the command again."
        )


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table("image", "class", "probability", box=None, pad_edge=False)
    for prediction in predictions:
        name = escaped(prediction.image.name)
        for rank, (label, score) in enumerate(prediction.classes):
            table.add_row(Text("" if rank else name), Text(escaped(label)), f"{score:.4f}")
    return table
