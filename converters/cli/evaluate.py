"""`regnet evaluate`: accuracies of a folder's artefacts, and how far they agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from converters.cli.console import Output
from converters.cli.options import BatchSize, Folder, Json, Quiet, Runtimes, read_labels

if TYPE_CHECKING:
    from converters.jobs.evaluate import Agreement, Evaluation


def evaluate_command(
    folder: Folder,
    images: Annotated[
        Path, typer.Argument(help="One folder of images for each class.", show_default=False)
    ],
    runtimes: Runtimes = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            help="Names of the class folders: JSON of any usual form, or one per line.",
            show_default="by synset, label, number or order",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images, spread evenly.", show_default="all"),
    ] = None,
    batch_size: BatchSize = 8,
    threads: Annotated[int, typer.Option(min=1, help="How many threads compute.")] = 1,
    card: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Enter the accuracies into the model card, under this name of the data set.",
            show_default=False,
        ),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Measure top-1 and top-5 accuracy of artefacts on labelled images, and how far they agree.

    Example: regnet evaluate out/ imagenet/val --runtime onnx --runtime torch
    """
    from converters.folder.images import UnreadableImagesError
    from converters.jobs.evaluate import evaluate

    output = Output(as_json, quiet)
    with output.progress("items") as progress:
        result = evaluate(
            folder,
            images,
            runtimes=runtimes or (),
            labels=None if labels is None else read_labels(labels, of_folders=True),
            limit=limit,
            batch_size=batch_size,
            threads=threads,
            card=card,
            progress=progress,
        )
    evaluation = result.evaluation
    output.result(f"Class folders matched by {result.matched_by}.", accuracy_table(evaluation))
    if evaluation.agreements:
        output.result(agreement_table(evaluation))
    output.result(*(Text(f"{name}: {reason}", "yellow") for name, reason in result.absent.items()))
    output.record(result.to_dict())
    if result.unreadable:
        raise UnreadableImagesError(*result.unreadable)


def accuracy_table(evaluation: Evaluation) -> Table:
    """One row for each runtime."""
    title = f"Accuracy on {evaluation.images:,} images"
    table = Table("runtime", title=title, title_justify="left")
    for column in ("top-1", "top-5"):
        table.add_column(column, justify="right")
    for name, score in evaluation.scores.items():
        top5 = "-" if score.top5 is None else f"{score.top5 / score.images:.2%}"
        table.add_row(name, f"{score.top1 / score.images:.2%}", top5)
    return table


def agreement_table(evaluation: Evaluation) -> Table:
    """A matrix of runtimes, below its diagonal."""
    names = list(evaluation.scores)
    title = f"Agreement: same best class, mean and largest difference of {evaluation.compared}"
    table = Table("", title=title, title_justify="left", show_lines=True)
    for name in names[:-1]:
        table.add_column(name, justify="right")
    for row, name in enumerate(names[1:], start=1):
        table.add_row(name, *(_cell(evaluation.between(other, name)) for other in names[:row]))
    return table


def _cell(agreement: Agreement) -> str:
    share = agreement.same / agreement.images
    return f"{share:.2%}\n{agreement.mean:.1e}\n{agreement.largest:.1e}"
