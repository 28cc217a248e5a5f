"""The commands, and how they end; :mod:`converters.cli.main` is how they begin."""

from __future__ import annotations

import sys
import traceback
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand, TyperOption

from converters.cli import interrupts
from converters.cli.bench import bench_command
from converters.cli.compare import compare_command
from converters.cli.convert import convert_command
from converters.cli.evaluate import evaluate_command
from converters.cli.export import export_command
from converters.cli.inspect import inspect_command
from converters.cli.list import list_command
from converters.cli.options import UsageError
from converters.cli.predict import predict_command
from converters.cli.push import push_command
from converters.cli.sign import sign_command
from converters.cli.verify import verify_command
from converters.errors import (
    ConversionError,
    StorageError,
    __version__,
    in_words,
    is_short_of_memory,
    not_installed,
    printable,
    short_of_memory,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE_ERROR = 2
_INTERNAL_ERROR = 4

_COMMANDS: dict[str, Callable[..., None]] = {
    "convert": convert_command,
    "inspect": inspect_command,
    "list": list_command,
    "export": export_command,
    "verify": verify_command,
    "compare": compare_command,
    "predict": predict_command,
    "evaluate": evaluate_command,
    "bench": bench_command,
    "sign": sign_command,
    "push": push_command,
}
"""In the order in which ``--help`` lists them."""


_OLD_SPELLINGS = {
    "evaluate": {"classes": "labels"},
    "bench": {"batch": "batch-size"},
}
"""Of options, by command: what they were called before, and what they are called."""


class _Command(TyperCommand):
    """A command with ``--debug``, which :func:`run_app` heeds and no command has to know."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        debug = TyperOption(
            param_decls=["--debug"],
            is_flag=True,
            default=False,
            expose_value=False,
            help="Show tracebacks.",
        )
        settings["params"] = [*(settings.get("params") or ()), debug]
        super().__init__(*args, **settings)


def _settings(name: str) -> dict[str, Any]:
    """How a command is parsed: options by their old spellings as well, which no help shows."""
    old = _OLD_SPELLINGS.get(name)
    return {"token_normalize_func": lambda word: old.get(word, word)} if old else {}


app = typer.Typer(
    name="regnet",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _name, _command in _COMMANDS.items():
    app.command(_name, cls=_Command, context_settings=_settings(_name))(_command)


def _print_version(asked: bool) -> None:
    if asked:
        sys.stdout.write(f"regnet {__version__}\n")
        raise typer.Exit


@app.callback()
def _regnet(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """From any RegNet checkpoint to a proven, deployable folder."""


convert_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
"""The conversion alone, for the commands whose source is fixed."""
convert_app.command(cls=_Command)(convert_command)


def run_app(application: typer.Typer, name: str, arguments: list[str] | None = None) -> int:
    """Run a command, turn what it raises into one sentence, and return the exit status.

    Args:
        application: :data:`app` or :data:`convert_app`.
        name: What the user calls it.
        arguments: Its arguments; those of the process by default.
    """
    try:
        status: int = application(arguments, prog_name=name, standalone_mode=False) or 0
    except ConversionError as error:
        return _failed(str(error), error.exit_status)
    except UsageError as error:
        return _failed_usage(error, name)
    except SystemExit as end:  # how typer ends completion; or the reader of a pipe has gone
        return _INTERNAL_ERROR if end.code else 0
    except Exception as error:  # noqa: BLE001 -- an error of the system, or a bug
        return _failed_otherwise(error)
    if status == interrupts.STATUS:
        return _failed(interrupts.SENTENCE, interrupts.STATUS)
    return status


def _failed_otherwise(error: Exception) -> int:
    """End on what no sentence of its own was made of."""
    if interrupts.happened():  # libraries make errors of their own of it, while they are imported
        return _failed(interrupts.SENTENCE, interrupts.STATUS)
    if is_short_of_memory(error):
        return _failed(short_of_memory(), _INTERNAL_ERROR)
    if isinstance(error, OSError):
        return _failed(_in_words(error), StorageError.exit_status)
    if isinstance(error, ModuleNotFoundError) and error.name:
        package = error.name.partition(".")[0]
        if find_spec(package) is None:
            absent = not_installed(package, "this command needs it", package)
            return _failed(str(absent), absent.exit_status)
    # A bug, which must not look like a result.
    return _failed(
        f"Internal error: {type(error).__name__}: {error}; please report it with the output "
        "of the same command with --debug.",
        _INTERNAL_ERROR,
    )


def _in_words(error: OSError) -> str:
    """One sentence about a file that cannot be read or written."""
    what = "A file" if error.filename is None else printable(str(error.filename))
    return (
        f"{what} cannot be read or written ({in_words(error)}); mend that, and run the command "
        "again."
    )


def _failed_usage(error: Exception, name: str) -> int:
    """End on a command that was called in the wrong way."""
    if type(error).__name__ == "NoArgsIsHelpError":  # the help is printed already
        return _USAGE_ERROR
    message = error.format_message()  # type: ignore[attr-defined]
    context = error.ctx  # type: ignore[attr-defined]
    command = context.command_path if context else name
    return _failed(f"{message.removesuffix('.')}; see `{command} --help`.", _USAGE_ERROR)


def _failed(sentence: str, status: int) -> int:
    if "--debug" in sys.argv:
        traceback.print_exc()
    sys.stderr.write(f"{sentence}\n")
    return status
