"""Published checkpoints on the command line: `regnet list`, and a name in place of a path."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from rich.table import Table

from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from converters.cli.console import Output
    from converters.families.options import SourceOptions
    from converters.published.manifest import Published


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
    if os.path.lexists(path):
        return path, options
    from converters.published.manifest import find, nearest

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

    with output.progress() as progress:
        fetched = fetch(published, progress)
    return fetched, replace(options, framework=published.framework, published=published)


def list_published(text: str, framework: str | None, output: Output) -> None:
    """Print the published checkpoints of a framework whose full name contains a text.

    Raises:
        InputError: If there is none.
    """
    from converters.published.manifest import manifest

    chosen = [
        published
        for published in manifest()
        if text.casefold() in published.full_name.casefold()
        and framework in {None, published.framework}
    ]
    if not chosen:
        of = f" of {framework}" if framework else ""
        raise InputError(
            f"No published checkpoint{of} has {text!r} in its name; see `regnet list`."
        )
    output.result(_table(chosen))
    output.record({"checkpoints": [_record(published) for published in chosen]})


def _table(chosen: Iterable[Published]) -> Table:
    table = Table("name", "network", box=None, pad_edge=False)
    for column in ("parameters", "classes", "top-1"):
        table.add_column(column, justify="right")
    table.add_column("measured at")
    table.add_column("licence")
    for published in chosen:
        size = published.measured_at or published.transform.crop
        table.add_row(
            published.full_name,
            published.architecture or "-",
            f"{published.parameters / 1e6:.1f} M" if published.parameters else "-",
            _or_dash(published.classes),
            f"{published.top1:.2f} %" if published.top1 else "-",
            f"{size} pixels" if published.top1 else "-",
            _or_dash(published.licence),
        )
    return table


def _or_dash(value: object) -> str:
    return "-" if value is None else str(value)


def _record(published: Published) -> dict[str, Any]:
    transform = published.transform
    return asdict(published) | {
        "name": published.full_name,
        "transform": {
            "resize": transform.resize,
            "crop": transform.crop,
            "interpolation": transform.filter_name,
        },
    }
