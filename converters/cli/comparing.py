"""What `regnet compare` does once its options are parsed."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from converters.cli.published import located
from converters.cli.tables_compare import comparison_tables

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from converters.cli.console import Output
    from converters.families.options import SourceOptions
    from converters.parity.compare.sides import Side


def compare(
    first: Path, second: Path, images: Sequence[Path], options: SourceOptions, output: Output
) -> None:
    """Compare two networks; print what differs; raise if they are not the same.

    Args:
        first: A: a folder, an artefact, a checkpoint, or the name of a published one.
        second: B.
        images: Photographs to run as well.
        options: What the user decided about checkpoints.
        output: Where it is printed.

    Raises:
        DifferentError: If they are not the same network.
    """
    from converters.parity.compare.comparison import compare as compare_sides
    from converters.parity.compare.sides import opened

    places = [located(path, options, output) for path in (first, second)]
    with ExitStack() as stack, output.progress() as progress:

        def side(path: Path, decided: SourceOptions) -> Side:
            progress.step(f"opening {path.name}")
            return stack.enter_context(opened(path, decided))

        a, b = (side(*place) for place in places)
        comparison = compare_sides(a, b, images, progress.step)
        output.result(*comparison_tables(comparison))
        output.record(comparison.to_dict())
        comparison.require_same()
