"""A published checkpoint's name in place of a path, in every command that takes a checkpoint."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from converters.cli.console import Output
    from converters.families.options import SourceOptions


def located(path: Path, options: SourceOptions, output: Output) -> tuple[Path, SourceOptions]:
    """Where a checkpoint lies: a path as it is, a published one, by name, once it is fetched.

    Args:
        path: What the user gave.
        options: What the user decided.
        output: Where the progress of fetching is shown.

    Returns:
        The file or folder, and the options with what the manifest knows of it.

    Raises:
        InputError: If there is only a similar name, or the name is of another framework.
        StorageError: If it cannot be fetched.
    """
    from converters.published.located import located as found

    with output.progress() as progress:
        return found(path, options, progress)
