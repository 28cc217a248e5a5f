"""ONNX files of any exporter, as sources: read by the graph, whatever tensors are called.

A graph says what the network computes, and seldom how its images are made; what this project wrote
says that too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.errors import DISTRIBUTION, printable
from converters.families.exported import read_exported
from converters.families.family import Family
from converters.families.keymap import REFERENCE, Keymap
from converters.families.source import BILINEAR, EvalTransform, Preprocessing

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "onnx"


def _read(found: Found) -> Source:
    """Read an ONNX file."""
    graph = found.checkpoint.graph
    producer = graph.producer if graph is not None else ""
    how = f"read node by node; {printable(producer) or 'nothing that says its name'} wrote it"
    stated = found.checkpoint.metadata if producer.split(" ")[0] == DISTRIBUTION else {}
    return read_exported(found, "ONNX", "opset", how, stated)


FAMILY = Family(
    keymap=Keymap(NAME, REFERENCE.rows),
    title="an exporter of ONNX",
    package=NAME,
    read=_read,
    preprocessing=Preprocessing(
        EvalTransform(256, 224, BILINEAR),
        "the most usual; an ONNX file does not say how its images are made",
        order_reason="the most usual; --channel-order says otherwise",
    ),
    states_evaluation=False,
)
