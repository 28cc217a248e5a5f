"""The errors a user can meet, each with the exit status of the command that ends on it.

Every message is one sentence: what is wrong, where, and what to do.
"""

from __future__ import annotations

import shlex
from importlib.util import find_spec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

DISTRIBUTION = "regnet-converters"
"""What this project is called where it is installed from, and in what it writes."""

MAX_MESSAGE = 2000
"""Characters; a message may quote what a file says, which may be of any length."""

MAX_SHOWN = 160
"""Characters of a file's own text that a message shows."""

MAX_WORDS = 300
"""Characters of what a library says that a message shows."""


def escaped(text: str) -> str:
    """Return a text with escapes for what would break the line or move the cursor."""
    if text.isprintable():
        return text
    escape = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return "".join(escape)


def printable(text: str) -> str:
    """Return a file's own text for use in a message: one line, without control characters."""
    shown = escaped(text[: MAX_SHOWN + 1])
    return shown if len(shown) <= MAX_SHOWN else f"{shown[:MAX_SHOWN]}..."


def for_shell(path: Path) -> str:
    """A path as a shell takes it, for a command that a message tells."""
    return shlex.quote(str(path))


def first(names: Sequence[str], most: int = 5) -> str:
    """Return the first few of a file's own names for use in a message, and how many follow."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(map(printable, names[:most])) + more


def said(error: BaseException | str) -> str:
    """What an error says, on one line: of TorchScript's the last, which follows a traceback."""
    lines = str(error).strip().splitlines()
    return " ".join(lines[-1:] if lines and lines[-1].startswith("RuntimeError") else lines)


def in_words(error: BaseException | str, path: Path | None = None) -> str:
    """What the system or a library says of its failure, on one line, for use in parentheses.

    Args:
        error: It, or its words, of any length. Of the system's the reason alone counts, without
            the file.
        path: A file that the words may name, to be called by its name alone.
    """
    if isinstance(error, OSError) and error.strerror:
        return escaped(error.strerror.lower())
    words = said(error) if path is None else said(error).replace(str(path), path.name)
    return escaped(" ".join(words.split())[:MAX_WORDS]).rstrip(".") or type(error).__name__


def reason_of(error: OSError | ValueError) -> str:
    """Why a file could not be read, as a clause for parentheses.

    Args:
        error: From the system, or from :mod:`regnet.files.reading`, whose errors are clauses
            without a subject.
    """
    return in_words(error) if isinstance(error, OSError) else f"it {error}"


_SHORT = (
    *("failed to map segment", "cannot allocate memory", "can't allocate memory"),
    *("can't start new thread", "bad_alloc", "not enough memory"),
)
"""How libraries say that there is no memory, in small letters; the first is the linker's."""

_LOST = ("without exception set", "without setting an exception")
"""What CPython says of a call that failed for no reason given, as where a frame found no memory."""


def is_short_of_memory(error: BaseException) -> bool:
    """Whether an error, or one that it came of, says that memory ran out or was limited."""
    cause: BaseException | None = error
    while cause is not None:
        said = str(cause).lower()
        if isinstance(cause, MemoryError) or any(words in said for words in _SHORT):
            return True
        if isinstance(cause, SystemError) and said.endswith(_LOST) and _is_limited():
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _is_limited() -> bool:
    from regnet.files.system import is_limited  # whose modules the page of commands does without

    return is_limited()


def short_of_memory() -> str:
    """The sentence for it."""
    return (
        "There is not enough memory; nothing was left behind, so run the command again on a "
        "machine with more, or with a higher limit (ulimit -v)."
    )


def _shown(message: str) -> str:
    shown = escaped(message)
    if len(shown) <= MAX_MESSAGE:
        return shown
    half = MAX_MESSAGE // 2
    return f"{shown[:half]} [...] {shown[-half:]}"


class ConversionError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback.

    Args:
        messages: The sentence, or one for each of several things, which become a line each. They
            are escaped, and of too long a one the middle is left out.
    """

    exit_status = 2

    def __init__(self, *messages: str) -> None:
        super().__init__("\n".join(map(_shown, messages)))


class InputError(ConversionError):
    """The input or the way the command was called cannot be used."""


class UnsafeInputError(ConversionError):
    """The input would run code, or is built to be read differently by different readers."""

    exit_status = 3


class StorageError(ConversionError):
    """The environment failed: disk full, permission denied, a file that changed while read."""

    exit_status = 4


def require_extra(
    package: str, extra: str, need: str = "this format is written and run with it"
) -> str:
    """Make sure of a package before it is imported.

    Args:
        package: What is imported.
        extra: The extra of this project that brings it.
        need: What for, as a clause.

    Returns:
        Its version, without the build.

    Raises:
        StorageError: If it is not installed.
    """
    if not is_installed(package):
        raise not_installed(package, need, f'"{DISTRIBUTION}[{extra}]"')
    from importlib.metadata import version  # takes as long to import as Python to start

    return release(version(package))


def is_installed(package: str) -> bool:
    """Whether a package can be imported, which it is not."""
    try:
        return find_spec(package) is not None
    except ValueError:  # somebody put it among the modules without a word of where it is from
        return True


def require_torch() -> None:
    """Make sure of what artefacts are verified with, before the first is written.

    Raises:
        StorageError: If it is not installed.
    """
    if not is_installed("torch"):
        need = "artefacts are verified with it"
        raise not_installed("torch", need, "torch", ", or leave that out with --no-verify")


def not_installed(package: str, need: str, source: str, instead: str = "") -> StorageError:
    """The error of a package that is missing.

    Args:
        package: What is imported.
        need: What for, as a clause.
        source: What pip installs it from.
        instead: What else can be done, as a clause.
    """
    return StorageError(
        f"{package} is not installed, and {need}; install it with `pip install {source}`{instead}."
    )


def release(full: str) -> str:
    """A version without what follows a plus or minus sign, which names the build: 2.13.0+cpu."""
    return full.partition("+")[0].partition("-")[0]
