"""Exported files of any kind as sources: read by the graph, whatever tensors are called.

A graph says what the network computes, and seldom how its images are made: that is in the files of
transformers or timm that exporters such as optimum leave beside it, or in texts inside of it, where
this project wrote it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from converters.checkpoint import StoredTensor
from converters.checkpoint.graph import BLOCKS, INTERFACE, LABELS, PREPROCESSING
from converters.errors import InputError, first, printable
from converters.families.graph_ends import Ends, without_ends
from converters.families.graph_network import network_of
from converters.families.reading import choose_state, source_of
from converters.families.source import Decision, EvalTransform, StateDict
from converters.families.timm import with_folder as in_timm
from converters.families.timm_config import TimmConfig
from converters.families.transformers import with_folder as in_transformers
from converters.families.words import not_understood
from regnet.architecture import COUNTER
from regnet.files.reading import parse_json
from regnet.wider import WIDER_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from converters.checkpoint import Checkpoint
    from converters.checkpoint.graph import Graph
    from converters.families.family import Found
    from converters.families.graph_network import GraphNetwork
    from converters.families.source import Source

_SHOWN = 2
_MEAN = "running_mean"


def graph_state(checkpoint: Checkpoint) -> StateDict:
    """The state dict that the tensors of a graph are, under the reference's names.

    Its framework is the kind of the file.

    Raises:
        InputError: If the graph is no RegNet, or one whose channels lie among zeros.
    """
    graph, _ = _network_alone(checkpoint)
    if BLOCKS in checkpoint.metadata:
        raise InputError(
            f"{checkpoint.path.name} has its channels among zeros, as `regnet tune` lays them; "
            "convert the weights that it was made of, or their model.onnx."
        )
    network = network_of(graph, checkpoint.path.name)
    tensors = _with_counters(checkpoint, network)
    return StateDict(checkpoint.container, (), "", tensors, order=tuple(tensors))


def read_exported(
    found: Found, kind: str, version: str, how: str, stated: Mapping[str, str]
) -> Source:
    """Read an exported file.

    Args:
        found: The file.
        kind: What files of its kind are called.
        version: What its operators have a version of: ``opset`` in ONNX.
        how: In which manner it is read.
        stated: Texts by key, such as this project writes of labels and images; what lies beside the
            file goes before.

    Raises:
        InputError: If it is none of the kind that is asked for, its graph is no RegNet, or is
            another than what lies beside it says.
    """
    if found.checkpoint.graph is None:
        raise InputError(f"{found.where} is no {kind} file; convert it with `regnet convert`.")
    graph, ends = _network_alone(found.checkpoint)
    network = network_of(graph, found.where)
    timm = TimmConfig.of(found.checkpoint) if _is_timms(found.checkpoint.beside.config) else None
    if timm:
        found = found.by(preprocessing=timm.preprocessing)
    state, weights, skipped = choose_state(found)
    state = replace(state, tensors=_with_counters(found.checkpoint, network))
    found = found.by(wider=frozenset({"groups_width", *WIDER_DEFAULTS}))
    source = source_of(found, state, weights, skipped)
    computed = {name: getattr(network.config, name) for name in ("hidden_act", *WIDER_DEFAULTS)}
    source = source.configured(**computed).strided(
        "as the graph computes", downsamples=network.config.downsample_in_first_stage
    )
    source = replace(source, filled=network.filled)
    source = in_timm(source, timm.folder) if timm else _in_transformers(source, found, network)
    if not found.checkpoint.beside.config:
        source = _as_stated(source, stated, f"the {kind} file's own metadata")
    interface = _object(found.checkpoint.metadata.get(INTERFACE, ""))
    source = _with_ends(source, ends, _pixels(interface))
    value = f"proven, {len(graph.nodes)} nodes of {version} {graph.opset} are the network's"
    return source.decided(Decision("graph", f"{value} operations", how), *_folds(network))


def _is_timms(config: Mapping[str, Any]) -> bool:
    """Whether it is a configuration of timm, as itself or as transformers wraps it."""
    return "architecture" in config and config.get("model_type") in {None, "timm_wrapper"}


def _in_transformers(source: Source, found: Found, network: GraphNetwork) -> Source:
    """The source with what files of transformers say, which must be of what the graph computes.

    Where all batch norms are in convolutions, an epsilon that they state is in there as well.
    """
    told = in_transformers(source, found)
    if not network.differs_from(told.config):
        return told if network.shows_eps else told.configured(norm_eps=network.config.norm_eps)
    for name in ("hidden_act", "downsample_in_first_stage", *WIDER_DEFAULTS):  # no shapes show them
        stated, computed = getattr(told.config, name), getattr(network.config, name)
        if stated != computed:
            raise InputError(
                f"{found.where}: its config.json says {name} {stated} where the graph computes "
                f"with {computed}; the folder mixes two models."
            )
    return told


def _as_stated(source: Source, stated: Mapping[str, str], where: str) -> Source:
    """The source with what ``where`` states, as this project does, of labels and images."""
    from regnet.image_processor import RegNetImageProcessor

    labels, settings = (_object(stated.get(key, "")) for key in (LABELS, PREPROCESSING))
    names = [labels.get(str(index)) for index in range(len(labels))]
    if names and None not in names and names != [f"LABEL_{index}" for index in range(len(names))]:
        source = source.labelled(names, where)
    if not settings:
        return source
    try:
        processor = RegNetImageProcessor.from_dict(settings)
    except (TypeError, ValueError):
        return source.decided(*not_understood([PREPROCESSING], where))
    transform = EvalTransform.of(processor)
    kept = processor.to_dict()
    del kept["image_processor_type"]
    decision = Decision("evaluation transform", transform.in_words, where)
    others = [d for d in source.decisions if d.topic != decision.topic]
    return replace(source, transform=transform, processor=kept, decisions=(*others, decision))


def _object(text: str) -> dict[str, Any]:
    """A JSON object; empty if it is none."""
    try:
        found = parse_json(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _pixels(stated: Mapping[str, Any]) -> int:
    """What white is in the pixels that a file states to normalise; 0 if it does not."""
    pixels = stated.get("normalize")
    return pixels if type(pixels) is int and pixels in {1, 255} else 0


def _network_alone(checkpoint: Checkpoint) -> tuple[Graph, Ends]:
    """The graph of a file, without what it states to do before and behind its network.

    Raises:
        InputError: If its graph does something else than it states.
    """
    graph = checkpoint.graph
    if graph is None:
        raise AssertionError(checkpoint.path)
    if INTERFACE not in checkpoint.metadata:
        return graph, Ends()
    graph, ends = without_ends(graph)
    stated = _object(checkpoint.metadata[INTERFACE])
    if (bool(ends.mean), ends.softmax) != (_pixels(stated) > 0, stated.get("softmax") is True):
        raise InputError(
            f"{checkpoint.path.name} states {printable(checkpoint.metadata[INTERFACE])}, which its "
            "graph does not compute; convert the file that `regnet export` wrote."
        )
    return graph, ends


def _with_ends(source: Source, ends: Ends, pixels: int) -> Source:
    """The source whose image processor normalises as the graph did, and that gives logits."""
    if ends.mean:
        mean, std = (_of_unit(numbers, pixels) for numbers in (ends.mean, ends.std))
        if source.flips_stem:  # the numbers are in the order of the channels that the stem had
            mean, std = mean[::-1], std[::-1]
        settings = {
            "do_rescale": True,
            "rescale_factor": 1 / 255,
            "do_normalize": True,
            "image_mean": list(mean),
            "image_std": list(std),
        }
        source = replace(
            source,
            transform=replace(source.transform, mean=mean, std=std),
            processor={**source.processor, **settings} if source.processor else {},
        )
        numbers = " and ".join(
            ", ".join(f"{each:.4g}" for each in values) for values in (mean, std)
        )
        reason = f"the graph's own, for pixels of 0 to {pixels}; now the image processor's"
        source = source.decided(Decision("mean and deviation", numbers, reason))
    if ends.softmax:
        value = "left out, so that the network gives logits"
        source = source.decided(Decision("softmax", value, "--softmax adds it to what is exported"))
    return source


def _of_unit(numbers: tuple[float, ...], pixels: int) -> tuple[float, ...]:
    """Numbers of pixels of 0 to 1 as somebody wrote them down: 0.485, of which 123.675 was made."""
    import numpy as np

    def shortest(number: float) -> float:
        for digits in range(1, 17):
            unit = float(f"{number / pixels:.{digits}g}")
            if np.float32(unit * pixels) == np.float32(number):
                return unit
        return number / pixels

    return tuple(map(shortest, numbers))


def _with_counters(checkpoint: Checkpoint, network: GraphNetwork) -> dict[str, StoredTensor]:
    """The tensors of a network, and the counters that the file has beside its running means.

    Nothing is computed with a counter, so the graph does not read them.
    """
    tree = checkpoint.tree if isinstance(checkpoint.tree, dict) else {}
    stems = {
        tensor: str(name).removesuffix(_MEAN)
        for name, tensor in tree.items()
        if str(name).endswith(_MEAN)
    }
    tensors = dict(network.tensors)
    for name, tensor in network.tensors.items():
        counter = tree.get(f"{stems[tensor]}{COUNTER}") if tensor in stems else None
        if name.endswith(_MEAN) and isinstance(counter, StoredTensor):
            tensors[f"{name.removesuffix(_MEAN)}{COUNTER}"] = counter
    return tensors


def _folds(network: GraphNetwork) -> tuple[Decision, ...]:
    """That some batch norms are gone."""
    if not network.folded:
        return ()
    names = first(tuple(network.folded), _SHOWN)
    value = f"{len(network.folded)} are in their convolutions ({names})"
    reason = (
        "the exporter folded them, which cannot be undone; in their place stand batch norms that "
        "only add a bias"
    )
    return (Decision("batch norms", value, reason),)
