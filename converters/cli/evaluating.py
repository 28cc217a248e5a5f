"""What `regnet evaluate` does once its options are parsed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from converters.folder.images import UnreadableImagesError
from converters.jobs.evaluate_folder import evaluate_folder

if TYPE_CHECKING:
    from pathlib import Path

    from converters.cli.console import Output
    from converters.jobs.evaluate import Agreement, Evaluation
    from converters.jobs.evaluate_folder import EvaluateOptions


def evaluate(path: Path, images: Path, options: EvaluateOptions, output: Output) -> None:
    """Evaluate a folder on labelled images; print accuracies and agreement.

    Raises:
        InputError: If something cannot be used.
        UnreadableImagesError: At the end, if an image could not be read.
    """
    with output.progress("items") as progress:
        result = evaluate_folder(
            path,
            images,
            options,
            lambda count: progress.step("evaluating", count),
            progress.advance,
        )
    evaluation = result.evaluation
    output.result(f"Class folders matched by {result.matched_by}.", accuracy_table(evaluation))
    if evaluation.agreements:
        output.result(agreement_table(evaluation))
    output.record(result.to_dict())
    if result.unreadable:
        raise UnreadableImagesError(*result.unreadable)


def accuracy_table(evaluation: Evaluation) -> Table:
    """One row for each runtime."""
    table = Table(title=f"Accuracy on {evaluation.images:,} images", title_justify="left")
    table.add_column("runtime")
    for column in ("top-1", "top-5"):
        table.add_column(column, justify="right")
    for name, score in evaluation.scores.items():
        top5 = "-" if score.top5 is None else f"{score.top5 / score.images:.2%}"
        table.add_row(name, f"{score.top1 / score.images:.2%}", top5)
    return table


def agreement_table(evaluation: Evaluation) -> Table:
    """A matrix of runtimes, below its diagonal."""
    names = list(evaluation.scores)
    title = "Agreement: same best class, mean and largest difference of logits"
    table = Table("", title=title, title_justify="left", show_lines=True)
    for name in names[:-1]:
        table.add_column(name, justify="right")
    for row, name in enumerate(names[1:], start=1):
        table.add_row(name, *(_cell(evaluation.between(other, name)) for other in names[:row]))
    return table


def _cell(agreement: Agreement) -> str:
    share = agreement.same / agreement.images
    return f"{share:.2%}\n{agreement.mean:.1e}\n{agreement.largest:.1e}"
