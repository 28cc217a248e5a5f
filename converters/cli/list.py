"""`regnet list`: the published checkpoints that can be converted by name."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from converters.cli.console import Output
from converters.cli.options import From, Json, Quiet
from converters.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from converters.families.manifest import Published


def list_command(
    text: Annotated[str, typer.Argument(help="What the name contains.", show_default=False)] = "",
    *,
    framework: From = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """List the published checkpoints that can be converted by name.

    Example: regnet list 4.0GF
    """
    from converters.families.manifest import manifest

    output = Output(as_json, quiet)
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
    if as_json:
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
