"""Where things lie that a user names: by their paths, a published checkpoint by its name too."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.progress import SILENT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.progress import Progress

Place = str | os.PathLike[str]
"""What a user gives for a path."""

Options = TypeVar("Options", bound=SourceOptions)


def paths(places: Place | Iterable[Place]) -> list[Path]:
    """One place or several, as paths."""
    return list(map(Path, [places] if isinstance(places, str | os.PathLike) else places))


def located(place: Place, options: Options, progress: Progress = SILENT) -> tuple[Path, Options]:
    """Where a checkpoint lies: a path as it is, a published one, by name, once it is fetched.

    Args:
        place: What the user gave.
        options: What the user decided.
        progress: Who wants to know how far fetching is.

    Returns:
        The file or folder, and the options with what the manifest knows of it.

    Raises:
        InputError: If there is only a similar name, or the name is of another framework.
        StorageError: If it cannot be fetched.
    """
    path = Path(place)
    if os.path.lexists(path):
        return path, options
    from converters.families.manifest import find, nearest

    published = find(str(path))
    if not published:
        if names := nearest(str(path)):
            raise InputError(
                f"{path}: there is no such file; check the path, or give the name of a published "
                f"checkpoint such as {' or '.join(names)} (see `regnet list`)."
            )
        return path, options
    if options.framework not in {None, published.framework}:
        raise InputError(
            f"{path} is a checkpoint of {published.framework}, not of {options.framework}; use "
            f"`convert-{published.framework}`."
        )
    os.environ.setdefault("HF_HUB_VERBOSITY", "error")  # its warnings are no results of ours
    os.environ.setdefault("HF_HUB_DISABLE_SYMLINKS_WARNING", "1")
    from converters.published.fetch import fetch

    fetched = fetch(published, progress)
    return fetched, replace(options, framework=published.framework, published=published)
