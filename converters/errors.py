"""The errors a user can meet, each with the exit status of the command that ends on it.

Every message is one sentence: what is wrong, where, and what to do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from converters.parity.verify import Report


class ConversionError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_status = 2


class VerificationError(ConversionError):
    """The conversion finished but its verdict is fail; nothing was published.

    Args:
        message: The sentence.
        report: The verdicts.
    """

    exit_status = 1

    def __init__(self, message: str, report: Report) -> None:
        super().__init__(message)
        self.report = report


class InputError(ConversionError):
    """The input or the way the command was called cannot be used."""

    exit_status = 2


class UnsafeInputError(ConversionError):
    """The input would run code, or is built to be read differently by different readers."""

    exit_status = 3


class StorageError(ConversionError):
    """The environment failed: disk full, permission denied, a file that changed while read."""

    exit_status = 4
