"""The commands that run a converted folder: `regnet predict|evaluate|bench`."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 -- typer reads it
from typing import Annotated

import typer

from converters.cli.arguments import Debug, Folder, Json, Quiet  # noqa: TC001 -- typer reads them

_RUNTIMES = "a format of `regnet export`, or torch for eager PyTorch"


def _known(runtimes: str | list[str] | None) -> str | list[str] | None:
    from converters.jobs.predict import require_known

    for name in [runtimes] if isinstance(runtimes, str) else runtimes or ():
        require_known(name)
    return runtimes


Runtime = Annotated[str, typer.Option(callback=_known, help=f"What runs the network: {_RUNTIMES}.")]
Runtimes = Annotated[
    list[str] | None,
    typer.Option(
        "--runtime",
        callback=_known,
        help=f"What runs the network: {_RUNTIMES}; repeatable.",
        show_default="all that the folder has",
    ),
]
BatchSize = Annotated[int, typer.Option(min=1, help="Images that go through the network at once.")]


def predict_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
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
    debug: Debug = False,  # noqa: ARG001 -- read by main
) -> None:
    """Classify images with a converted folder, through any runtime.

    Example: regnet predict out/ cat.jpg photos/ --contact-sheet photos.png
    """
    from converters.cli.console import Output
    from converters.cli.predicting import Forms, predict
    from converters.jobs.predict import PredictOptions

    options = PredictOptions(runtime, top, batch_size)
    predict(folder, images, options, Forms(csv, contact_sheet), Output(as_json, quiet))


def evaluate_command(  # noqa: PLR0913, PLR0917
    folder: Folder,
    images: Annotated[
        Path, typer.Argument(help="One folder of images for each class.", show_default=False)
    ],
    runtimes: Runtimes = None,
    classes: Annotated[
        Path | None,
        typer.Option(
            help="Names of the class folders in class order: a JSON list, or one per line.",
            show_default="by synset, label, number or order",
        ),
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option(min=1, help="At most so many images, spread evenly.", show_default="all"),
    ] = None,
    batch_size: BatchSize = 8,
    threads: Annotated[int, typer.Option(min=1, help="How many threads compute.")] = 1,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Measure top-1 and top-5 accuracy of artefacts on labelled images, and how far they agree.

    Example: regnet evaluate out/ imagenet/val --runtime onnx --runtime torch
    """
    from converters.cli import commands
    from converters.cli.console import Output
    from converters.cli.evaluating import evaluate
    from converters.jobs.evaluate_folder import EvaluateOptions

    options = EvaluateOptions(
        runtimes=runtimes or (),
        classes=None if classes is None else commands.read_labels(classes),
        limit=limit,
        batch_size=batch_size,
        threads=threads,
    )
    evaluate(folder, images, options, Output(as_json, quiet))


def bench_command(  # noqa: PLR0913, PLR0917
    folder: Folder,
    runtimes: Runtimes = None,
    batches: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="Images at once; repeatable.", show_default="1 and 8"),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            min=1, help="Threads that compute; repeatable.", show_default="1 and all cores"
        ),
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Turns of each contender.")] = 10,
    image_size: Annotated[
        int | None,
        typer.Option(min=32, help="Side of the images in pixels.", show_default="the network's"),
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Time every artefact and eager PyTorch in turn, and say which to deploy on this machine.

    Example: regnet bench out/ --batch 1 --batch 32 --threads 4
    """
    from converters.cli.benching import bench
    from converters.cli.console import Output
    from converters.jobs.bench_folder import BenchOptions, usable_cores

    options = BenchOptions(
        runtimes=runtimes or (),
        batches=tuple(dict.fromkeys(batches or (1, 8))),
        threads=tuple(dict.fromkeys(threads or (1, usable_cores()))),
        rounds=rounds,
        image_size=image_size,
    )
    bench(folder, options, Output(as_json, quiet))
