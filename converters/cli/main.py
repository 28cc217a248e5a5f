"""The commands: `regnet convert|inspect|list|export|verify|compare`, and `convert-pycls`.

`regnet export` is in `converters.cli.exporting`, `regnet push` in `converters.cli.publishing`, and
those that run a folder, `regnet predict|evaluate|bench`, in `converters.cli.running`.

Exit status: 0 done and verified; 1 verification failed, nothing published; 2 bad input or usage;
3 refused as unsafe; 4 environment or I/O.
"""

from __future__ import annotations

import sys
import traceback
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from converters.cli.arguments import (  # noqa: TC001 -- typer reads them
    CalibrationImages,
    Debug,
    Folder,
    Formats,
    Json,
    Quiet,
    Share,
)
from converters.cli.exporting import export_command
from converters.cli.publishing import push_command
from converters.cli.running import bench_command, evaluate_command, predict_command
from converters.dtypes import DType
from converters.errors import ConversionError, InputError
from converters.reports.baseline import FACTOR

_USAGE_ERROR = 2
_INTERNAL_ERROR = 4
_INTERRUPTED = 130

_UsageError: type[Exception] = typer.BadParameter.__mro__[1]
"""Click's; typer neither exports it nor says from which of two packages it comes."""


class FrameworkName(StrEnum):
    """What ``--from`` takes; the keys of `converters.sources.registry.FRAMEWORKS`."""

    PYCLS = "pycls"
    TIMM = "timm"
    TORCHVISION = "torchvision"
    TRANSFORMERS = "transformers"
    MMPRETRAIN = "mmpretrain"
    CLASSY_VISION = "classy-vision"
    VISSL = "vissl"


Source = Annotated[
    Path,
    typer.Argument(
        help="The checkpoint: a file, a folder, or a name from `regnet list`.", show_default=False
    ),
]
Out = Annotated[
    Path,
    typer.Argument(help="The folder (with --to perhaps file) to be made.", show_default=False),
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
    FrameworkName | None,
    typer.Option("--from", help="Who saved the checkpoint.", show_default="recognised"),
]
To = Annotated[
    Literal["timm", "torchvision", "pycls", "classy-vision", "mmpretrain"] | None,
    typer.Option(
        "--to",
        help="Write this framework's own file (timm: folder) instead of the converted folder.",
        show_default=False,
    ),
]
Head = Annotated[
    str | None, typer.Option(help="Which head, where the file has several.", show_default=False)
]
Dtype = Annotated[
    DType | None,
    typer.Option(
        help="What to store the weights in; artefacts compute in float32 whatever it is.",
        show_default="float32; with --to, a converted folder's own",
    ),
]
Labels = Annotated[
    Path | None, typer.Option(help="Class names: a JSON list, or one per line.", show_default=False)
]
ShardSize = Annotated[
    str | None, typer.Option(help="Split the weights, for example 5GB.", show_default=False)
]
Force = Annotated[bool, typer.Option("--force", help="Replace an existing output.")]
AllowNonfinite = Annotated[
    bool,
    typer.Option(
        "--allow-nonfinite",
        help="Convert weights with NaN, infinity or negative variances; no verdict passes them.",
    ),
]
NoVerify = Annotated[
    bool, typer.Option("--no-verify", help="Publish without running the network; needs no torch.")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the plan and write nothing.")]
Images = Annotated[
    list[Path] | None,
    typer.Option("--image", help="A photograph to run as well; repeatable.", show_default=False),
]

app = typer.Typer(
    name="regnet",
    help="From any RegNet checkpoint to a proven, deployable folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
convert_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
"""The conversion alone, for the commands whose source is fixed."""


@app.command("convert")
@convert_app.command()
def convert_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
    source: Source,
    out: Out,
    framework: From = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    to: To = None,
    dtype: Dtype = None,
    labels: Labels = None,
    formats: Formats = None,
    share_weights: Share = False,
    calibration_images: CalibrationImages = None,
    max_shard_size: ShardSize = None,
    force: Force = False,
    allow_nonfinite: AllowNonfinite = False,
    no_verify: NoVerify = False,
    dry_run: DryRun = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001 -- read by _fail
) -> None:
    """Convert a checkpoint into a folder that every runtime can use, and prove it.

    The folder appears only when every artefact has passed against the float64 oracle.

    Example: regnet convert RegNetY-4.0GF.pyth out/
    """
    from converters.artefacts import named_formats
    from converters.cli import commands
    from converters.cli.console import Output
    from converters.convert import ConvertOptions
    from converters.sources.options import SourceOptions

    source_options = SourceOptions(framework, channel_order, weights, head)
    output = Output(as_json, quiet)
    if dry_run:
        commands.inspect(source, source_options, output, with_plan=True, dtype=dtype)
        return
    options = ConvertOptions(
        source=source_options,
        dtype=dtype,
        labels=None if labels is None else commands.read_labels(labels),
        formats=named_formats(formats or ()),
        share_weights=share_weights,
        calibration_images=calibration_images or (),
        max_shard_size=commands.shard_size(max_shard_size),
        force=force,
        allow_nonfinite=allow_nonfinite,
        verify=not no_verify,
    )
    if to is None:
        commands.convert(source, out, options, output)
        return
    if formats or share_weights or max_shard_size:
        raise InputError(
            "--to writes files of another framework; leave out --format, --share-weights and "
            "--max-shard-size."
        )
    commands.write_back(source, out, to, options, output)


@app.command("inspect")
def inspect_command(
    source: Source,
    *,
    plan: Annotated[bool, typer.Option("--plan", help="List every tensor.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Say what a checkpoint is: framework, architecture, what is in it. No weights are read.

    Example: regnet inspect RegNetY-4.0GF.pyth
    """
    from converters.cli import commands
    from converters.cli.console import Output
    from converters.sources.options import SourceOptions

    commands.inspect(source, SourceOptions(), Output(as_json, quiet), with_plan=plan)


@app.command("list")
def list_command(
    text: Annotated[str, typer.Argument(help="What the name contains.", show_default=False)] = "",
    *,
    framework: From = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """List the published checkpoints that can be converted by name.

    Example: regnet list 4.0GF
    """
    from converters.cli.console import Output
    from converters.cli.published import list_published

    list_published(text, framework, Output(as_json, quiet))


app.command("export")(export_command)


@app.command("verify")
def verify_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
    folder: Folder,
    images: Images = None,
    against: Annotated[
        Path | None,
        typer.Option(
            help="The checkpoint it was made from: run it in its own framework as well.",
            show_default=False,
        ),
    ] = None,
    locate: Annotated[
        bool, typer.Option("--locate", help="Name the first module that goes wrong.")
    ] = False,
    baseline: Annotated[
        Path | None,
        typer.Option(help="Fail on what is worse than in this --json.", show_default=False),
    ] = None,
    regression_factor: Annotated[
        float, typer.Option(min=1, help="How many times the baseline's a ratio may be.")
    ] = FACTOR,
    junit: Annotated[
        Path | None, typer.Option(help="Write JUnit XML; - is stdout.", show_default=False)
    ] = None,
    markdown: Annotated[
        Path | None, typer.Option(help="Write GitHub-flavoured Markdown.", show_default=False)
    ] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write a self-contained page.", show_default=False)
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Give the verdict again, from nothing but the folder; exit status 1 if it is fail.

    Example: regnet verify out/ --locate --html report.html
    """
    from converters.cli.console import Output
    from converters.cli.verifying import VerifyOptions, verify

    options = VerifyOptions(
        images=images or (),
        against=against,
        locate=locate,
        baseline=baseline,
        regression_factor=regression_factor,
        junit=junit,
        markdown=markdown,
        html=html,
    )
    verify(folder, options, Output(as_json, quiet))


@app.command("compare")
def compare_command(  # noqa: PLR0913, PLR0917 -- one parameter per option
    first: Annotated[
        Path,
        typer.Argument(
            metavar="A", help="A checkpoint, a converted folder or an artefact.", show_default=False
        ),
    ],
    second: Annotated[Path, typer.Argument(metavar="B", help="Likewise.", show_default=False)],
    images: Images = None,
    channel_order: Order = None,
    weights: Weights = "best",
    head: Head = None,
    as_json: Json = False,
    quiet: Quiet = False,
    debug: Debug = False,  # noqa: ARG001
) -> None:
    """Say whether two networks are the same, whatever each is; exit status 1 if they are not.

    Example: regnet compare RegNetY-4.0GF.pyth model.onnx
    """
    from converters.cli.comparing import compare
    from converters.cli.console import Output
    from converters.sources.options import SourceOptions

    options = SourceOptions(None, channel_order, weights, head)
    compare(first, second, images or (), options, Output(as_json, quiet))


app.command("predict")(predict_command)
app.command("evaluate")(evaluate_command)
app.command("bench")(bench_command)
app.command("push")(push_command)


def run() -> NoReturn:
    """Entry point of ``regnet``."""
    _run(app, "regnet")


def run_convert() -> NoReturn:
    """Entry point of ``convert-pycls``, ``convert-timm`` and so on: the name fixes the source."""
    name = Path(sys.argv[0]).stem
    framework = name.removeprefix("convert-")
    _run(convert_app, name, ["--from", framework, *sys.argv[1:]])


def _run(application: typer.Typer, name: str, arguments: list[str] | None = None) -> NoReturn:
    """Run a command and turn what it raises into one sentence and an exit status."""
    try:
        status = application(arguments, prog_name=name, standalone_mode=False)
    except ConversionError as error:
        _fail(str(error), error.exit_status)
    except _UsageError as error:
        _fail_usage(error, name)
    except SystemExit:  # how typer ends when the reader of a pipe has gone: nobody is told
        sys.exit(_INTERNAL_ERROR)
    except MemoryError:
        _fail("There is not enough memory; nothing was left behind.", _INTERNAL_ERROR)
    except Exception as error:  # noqa: BLE001 -- a bug, which must not look like a result
        _fail(
            f"Internal error: {type(error).__name__}: {error}; please report it with the output "
            "of the same command with --debug.",
            _INTERNAL_ERROR,
        )
    if status == _INTERRUPTED:
        _fail("Interrupted; nothing was left behind.", _INTERRUPTED)
    sys.exit(status)


def _fail_usage(error: Exception, name: str) -> NoReturn:
    """End on a command that was called in the wrong way."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
        sys.exit(_USAGE_ERROR)
    message = error.format_message()  # type: ignore[attr-defined]
    context = error.ctx  # type: ignore[attr-defined]
    command = context.command_path if context else name
    _fail(f"{message.removesuffix('.')}; see `{command} --help`.", _USAGE_ERROR)


def _fail(sentence: str, status: int) -> NoReturn:
    if "--debug" in sys.argv:
        traceback.print_exc()
    sys.stderr.write(f"{sentence}\n")
    sys.exit(status)
