"""Programs of torch.export (`.pt2`) of any exporter, as sources: read by the graph.

Such files do not say how images are made or classes are called, unless whoever saved them did, as
this project does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import printable
from converters.families.exported import read_exported
from converters.families.family import Family
from converters.families.keymap import REFERENCE, Keymap
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "pt2"


def _read(found: Found) -> Source:
    """Read a file of torch.export."""
    graph = found.checkpoint.graph
    producer = printable(graph.producer) if graph is not None else ""
    how = f"read node by node; {producer} wrote it"
    return read_exported(found, ".pt2", "opset", how, found.checkpoint.metadata)


FAMILY = Family(
    keymap=Keymap(NAME, REFERENCE.rows),
    title="torch.export",
    package="torch",
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR),
        "the most usual; a .pt2 file does not say how its images are made",
        order_reason="the most usual; --channel-order says otherwise",
    ),
    states_evaluation=False,
)
