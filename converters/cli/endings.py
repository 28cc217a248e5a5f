"""How commands end: what they raise becomes one sentence and an exit status."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any

from converters.cli import interrupts
from converters.errors import (
    ConversionError,
    StorageError,
    in_words,
    is_installed,
    is_short_of_memory,
    not_installed,
    printable,
    short_of_memory,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_USAGE_ERROR = 2
_INTERNAL_ERROR = 4


def run_app(application: Callable[..., Any], name: str, arguments: list[str] | None = None) -> int:
    """Run a command, turn what it raises into one sentence, and return the exit status.

    Args:
        application: Of :mod:`converters.cli.app`.
        name: What the user calls it.
        arguments: Its arguments; those of the process by default.
    """
    try:
        status: int = application(arguments, prog_name=name, standalone_mode=False) or 0
    except ConversionError as error:
        return _failed(str(error), error.exit_status)
    except SystemExit as end:  # how typer ends completion, and rich without a reader of its pipe
        return (
            _INTERNAL_ERROR if end.code and not isinstance(end.__context__, BrokenPipeError) else 0
        )
    except Exception as error:  # noqa: BLE001 -- of usage, of the system, or a bug
        if any(kind.__name__ == "UsageError" for kind in type(error).__mro__):  # click's
            return _failed_usage(error, name)
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
        if not is_installed(package):
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
    if too_much := re.match(r"Got unexpected extra argument\S* \((.+)\)", message):
        from converters.cli.options import require_commas

        try:
            require_commas(too_much[1].split())
        except Exception as other:  # noqa: BLE001 -- click's, whose sentence says more
            message = str(other)
    context = error.ctx  # type: ignore[attr-defined]
    command = context.command_path if context else name
    return _failed(f"{message.removesuffix('.')}; see `{command} --help`.", _USAGE_ERROR)


def _failed(sentence: str, status: int) -> int:
    if "--debug" in sys.argv:
        import traceback

        traceback.print_exc()
    sys.stderr.write(f"{sentence}\n")
    return status
