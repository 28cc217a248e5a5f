"""The errors a user can meet, each with the exit status of the command that ends on it.

Every message is one sentence: what is wrong, where, and what to do.
"""

from __future__ import annotations


class ConversionError(Exception):
    """Base of all errors that end a command with one sentence instead of a traceback."""

    exit_status = 2


class InputError(ConversionError):
    """The input or the way the command was called cannot be used."""

    exit_status = 2


class UnsafeInputError(ConversionError):
    """The input would run code, or is built to be read differently by different readers."""

    exit_status = 3


class StorageError(ConversionError):
    """The environment failed: disk full, permission denied, a file that changed while read."""

    exit_status = 4
