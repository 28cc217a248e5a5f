"""ONNX files of any exporter, as sources: read by the graph, whatever tensors are called.

A graph says what the network computes, and seldom how its images are made; what this project wrote
says that too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import DISTRIBUTION, printable
from converters.families.exported import read_exported
from converters.families.family import Family
from converters.families.keymap import REFERENCE, Keymap
from converters.families.source import BILINEAR, Decision, EvalTransform, Preprocessing
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "onnx"


def _read(found: Found) -> Source:
    """Read an ONNX file."""
    graph = found.checkpoint.graph
    producer = graph.producer if graph is not None else ""
    how = f"read node by node; {printable(producer) or 'nothing that says its name'} wrote it"
    source = read_exported(found, "ONNX", "opset", how)
    if producer.split(" ")[0] == DISTRIBUTION and not found.checkpoint.beside.config:
        return _with_own_words(source, found)
    return source


def _with_own_words(source: Source, found: Found) -> Source:
    """The source with what this project writes into an ONNX file of labels and images."""
    stated = found.checkpoint.metadata
    labels: Any = _json(stated.get("id2label", ""))
    reason = "the ONNX file's own metadata"
    if isinstance(labels, dict):
        names = [labels.get(str(index)) for index in range(len(labels))]
        if None not in names and names != [f"LABEL_{index}" for index in range(len(names))]:
            source = source.labelled(names, reason)
    settings: Any = _json(stated.get("preprocessing", ""))
    if not isinstance(settings, dict) or not settings:
        return source
    from regnet.image_processor import RegNetImageProcessor

    processor = RegNetImageProcessor.from_dict(settings)
    transform = EvalTransform.of(processor)
    decision = Decision("evaluation transform", transform.in_words, reason)
    kept = processor.to_dict()
    del kept["image_processor_type"]
    others = [d for d in source.decisions if d.topic != decision.topic]
    return replace(source, transform=transform, processor=kept, decisions=(*others, decision))


def _json(text: str) -> object:
    return parse_json(text) if text else None


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
