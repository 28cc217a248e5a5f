"""The commands: ``regnet``, those whose source is fixed (``convert-pycls``), and how they end.

Exit status: 0 done and verified; 1 verification failed, nothing published; 2 bad input or usage;
3 refused as unsafe; 4 environment or I/O.
"""

from __future__ import annotations

import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from converters.checkpoint.values import printable
from converters.cli.arguments import UsageError
from converters.cli.converting import convert_command
from converters.cli.exporting import export_command
from converters.cli.inspecting import inspect_command, list_command
from converters.cli.proving import compare_command, verify_command
from converters.cli.publishing import push_command
from converters.cli.running import bench_command, evaluate_command, predict_command
from converters.cli.signing import sign_command
from converters.errors import ConversionError, StorageError

if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE_ERROR = 2
_INTERNAL_ERROR = 4
_INTERRUPTED = 130

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

app = typer.Typer(
    name="regnet",
    help="From any RegNet checkpoint to a proven, deployable folder.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for _name, _command in _COMMANDS.items():
    app.command(_name)(_command)

convert_app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
"""The conversion alone, for the commands whose source is fixed."""
convert_app.command()(convert_command)


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
    except UsageError as error:
        _fail_usage(error, name)
    except SystemExit:  # how typer ends when the reader of a pipe has gone: nobody is told
        sys.exit(_INTERNAL_ERROR)
    except OSError as error:  # that no sentence of its own was made of
        _fail(_in_words(error), StorageError.exit_status)
    except MemoryError:
        _fail("There is not enough memory; nothing was left behind.", _INTERNAL_ERROR)
    except Exception as error:  # noqa: BLE001 -- a bug, which must not look like a result
        _fail(
            f"Internal error: {type(error).__name__}: {error}; please report it with the output "
            "of the same command with --debug.",
            _INTERNAL_ERROR,
        )
    if status == _INTERRUPTED:
        _fail("Interrupted; the next run takes up whatever is left.", _INTERRUPTED)
    sys.exit(status)


def _in_words(error: OSError) -> str:
    """One sentence about a file that cannot be read or written."""
    what = "A file" if error.filename is None else printable(str(error.filename))
    reason = (error.strerror or str(error)).lower()
    return f"{what} cannot be read or written ({reason}); mend that, and run the command again."


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
