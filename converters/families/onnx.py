"""ONNX files of any exporter, as sources: read by the graph, whatever tensors are called.

A graph says what the network computes, and seldom how its images are made; what this project wrote
says that too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.errors import DISTRIBUTION, InputError, first, printable
from converters.families.family import Family
from converters.families.graph_network import GraphNetwork, network_of
from converters.families.keymap import REFERENCE, Keymap
from converters.families.reading import choose_state, source_of
from converters.families.source import BILINEAR, Decision, EvalTransform, Preprocessing, StateDict
from regnet.files.reading import parse_json

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint
    from converters.families.family import Found
    from converters.families.source import Source

NAME = "onnx"

_SHOWN = 2


def graph_state(checkpoint: Checkpoint) -> StateDict:
    """The state dict that the tensors of a graph are, under the reference's names.

    Raises:
        InputError: If the graph is no RegNet.
    """
    if checkpoint.graph is None:
        raise AssertionError(checkpoint.path)
    network = network_of(checkpoint.graph, checkpoint.path.name)
    return StateDict(NAME, (), "", dict(network.tensors), order=tuple(network.tensors))


def _read(found: Found) -> Source:
    """Read an ONNX file."""
    graph = found.checkpoint.graph
    if graph is None:
        raise InputError(f"{found.where} is no ONNX file; convert it with `regnet convert`.")
    network = network_of(graph, found.where)
    state, weights, skipped = choose_state(found)
    state = replace(state, tensors=network.tensors)
    source = source_of(found, state, weights, skipped)
    source = source.configured(hidden_act=network.config.hidden_act).strided(
        "as the graph computes", downsamples=network.config.downsample_in_first_stage
    )
    source = replace(source, filled=network.filled)
    producer = printable(graph.producer) or "nothing that says its name"
    source = source.decided(
        Decision(
            "graph",
            f"proven, {len(graph.nodes)} nodes of opset {graph.opset} are the network's operations",
            f"read node by node; {producer} wrote it",
        ),
        *_folds(network),
    )
    if graph.producer.split(" ")[0] == DISTRIBUTION:
        return _with_own_words(source, found)
    return source


def _folds(network: GraphNetwork) -> tuple[Decision, ...]:
    """That some batch norms are gone."""
    if not network.folded:
        return ()
    value = f"{len(network.folded)} are in their convolutions ({first(network.folded, _SHOWN)})"
    reason = (
        "the exporter folded them, which cannot be undone; in their place stand batch norms that "
        "only add a bias"
    )
    return (Decision("batch norms", value, reason),)


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
