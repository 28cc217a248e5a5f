"""What an ONNX file of any exporter holds, by its graph: operations and tensors in their places.

Ours are compared with what is written for the folder (`converters.parity.contents.onnx`). Of others
the graph is read as a source's is (`converters.families.graph_network`): if that succeeds, the file
computes the network that its tensors and the configuration found say, and nothing else. What
remains is to compare these two with the folder's.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from converters.checkpoint import open_checkpoint
from converters.errors import InputError
from converters.families.graph_ends import Ends, without_ends
from converters.families.graph_network import network_of
from converters.folder.interface import NETWORK
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.parity.contents.held import Contents, HeldTensor, mapped, part
from regnet.architecture import BASE_PREFIX, CLASSIFIER, KERNEL, Normalise, Softmax
from regnet.wider import WIDER_DEFAULTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from converters.checkpoint import Checkpoint, StoredTensor
    from converters.families.graph_network import GraphNetwork
    from converters.folder.folder import ConvertedFolder

_COMPARED = (
    "num_channels",
    "embedding_size",
    "hidden_sizes",
    "depths",
    "layer_type",
    "hidden_act",
    "downsample_in_first_stage",
    *WIDER_DEFAULTS,
)
"""What decides what a network computes, groups apart, which its kernels show."""


def read_graph(folder: ConvertedFolder, path: Path) -> Contents:
    """Prove the graph of a file, and say which tensors it holds under the reference's names.

    Raises:
        InputError: If the file cannot be read, or its graph is no RegNet; a node is named.
        UnsafeInputError: If its weights lie elsewhere.
        StorageError: If it cannot be read.
    """
    with open_checkpoint(path) as checkpoint:
        return contents_of_graph(folder, checkpoint)


def contents_of_graph(folder: ConvertedFolder, checkpoint: Checkpoint) -> Contents:
    """The same of a file that is open already; what it gives stays when that is closed.

    Raises:
        InputError: If there is no graph in it, or it is no RegNet; a node is named.
    """
    name = checkpoint.path.name
    if checkpoint.graph is None:
        raise InputError(f"{name} holds no graph.")
    graph, ends = checkpoint.graph, Ends()
    if folder.interface != NETWORK:
        graph, ends = without_ends(graph)
    network = network_of(graph, name)
    return Contents(
        tuple(_held(checkpoint, network, prefixed=folder.has_classifier)),
        faults=(*_end_faults(folder, ends), *_faults(folder, network)),
        graph_compared=True,
        folded_in="float32",
    )


def _end_faults(folder: ConvertedFolder, ends: Ends) -> Iterator[str]:
    """Where a graph normalises images, or ends, otherwise than its interface says."""
    first, *_, last = folder.architecture.operations
    due = (first.mean, first.std) if isinstance(first, Normalise) else ((), ())
    for what, wanted, found in zip(("mean", "std"), due, (ends.mean, ends.std), strict=True):
        if not np.array_equal(np.array(wanted, np.float32), np.array(found, np.float32)):
            words = [", ".join(f"{each:g}" for each in numbers) for numbers in (found, wanted)]
            yield f"its graph has the {what} {words[0] or 'of none'} where {words[1]} belongs"
    if ends.softmax != isinstance(last, Softmax):
        yield f"its graph gives {'probabilities' if ends.softmax else 'logits'}"


def _faults(folder: ConvertedFolder, network: GraphNetwork) -> Iterator[str]:
    """Where the network is another one than the folder's; widths show in shapes as well."""
    if network.has_classifier != folder.has_classifier:
        words = {True: "a classifier", False: "a trunk alone"}
        yield f"its graph is {words[network.has_classifier]}"
    for name in _COMPARED if network.differs_from(folder.config) else ():
        found, wanted = getattr(network.config, name), getattr(folder.config, name)
        if found != wanted:
            yield f"its graph has {name} {found} where the folder has {wanted}"


def _held(checkpoint: Checkpoint, network: GraphNetwork, *, prefixed: bool) -> Iterator[HeldTensor]:
    maps = cache(mapped)
    folded = {module + KERNEL: module + FOLDED_WEIGHT for module in network.folded}
    folded |= {bias: module + FOLDED_BIAS for module, bias in network.folded.items()}
    for name, tensor in network.tensors.items():
        short = folded.get(name, name)
        full = short if not prefixed or name.startswith(CLASSIFIER) else BASE_PREFIX + short
        if tensor.is_contiguous:
            data = _view(tensor, maps(tensor.storage.path))
        else:
            data = memoryview(checkpoint.array(tensor).tobytes())
        yield HeldTensor(full, tensor.dtype, tensor.shape, data)


def _view(tensor: StoredTensor, whole: memoryview) -> memoryview:
    start = tensor.storage.offset + tensor.storage_offset * tensor.itemsize
    return part(whole, start, tensor.nbytes)
