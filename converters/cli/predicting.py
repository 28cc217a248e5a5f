"""What `regnet predict` does once its options are parsed."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table
from rich.text import Text

from converters.cli.reports import write_text
from converters.errors import InputError, escaped
from converters.folder.images import UnreadableImagesError, find_images
from converters.jobs.predict import predict_each
from converters.reports.findings import one_line
from converters.staging import staged_file, storage_errors

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.cli.console import Output
    from converters.jobs.predict import Prediction, PredictOptions

_FORMULAS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What begins a formula: the signs, their full-width twins, and what is skipped before them."""

_COLUMNS = ("image", "rank", "label", "probability")


@dataclass(frozen=True, slots=True)
class Forms:
    """What is written beside the table.

    Attributes:
        csv: Where CSV goes, ``-`` for stdout; None for nowhere.
        contact_sheet: Where the picture goes.
    """

    csv: Path | None = None
    contact_sheet: Path | None = None


def predict(
    path: Path, places: Sequence[Path], options: PredictOptions, forms: Forms, output: Output
) -> None:
    """Classify images; print the best classes.

    Args:
        path: A converted folder.
        places: Images, folders of images, patterns.
        options: How.
        forms: What is written beside the table.
        output: Where it is printed.

    Raises:
        InputError: If the folder or a place cannot be used.
        UnreadableImagesError: At the end, if an image could not be read.
    """
    csv_takes_stdout = str(forms.csv) == "-"
    if csv_takes_stdout and output.as_json:
        raise InputError("--csv - and --json both want stdout; give --csv a file.")
    images = find_images(places)
    unreadable: list[str] = []
    predictions: list[Prediction] = []
    with output.progress("items") as progress:
        progress.step("predicting", len(images))
        for prediction in predict_each(path, images, options, unreadable):
            predictions.append(prediction)
            progress.advance(1)
    if forms.csv is not None:
        write_text(forms.csv, _as_csv(predictions))
    if forms.contact_sheet is not None and predictions:
        _draw(predictions, forms.contact_sheet)
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


def _draw(predictions: Sequence[Prediction], target: Path) -> None:
    from converters.jobs.contact_sheet import contact_sheet

    sheet = contact_sheet(predictions)
    with storage_errors(target), staged_file(target) as staging:
        sheet.save(staging, format="PNG")


def _table(predictions: Sequence[Prediction]) -> Table:
    table = Table("image", "class", "probability", box=None, pad_edge=False)
    for prediction in predictions:
        name = one_line(prediction.image.name)
        for rank, (label, score) in enumerate(prediction.classes):
            table.add_row(Text("" if rank else name), Text(one_line(label)), f"{score:.4f}")
    return table
