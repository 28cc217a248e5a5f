"""What an artefact that may be anybody's holds: what is not written as ours is read by its graph.

What this project writes today is held to what is written today
(:mod:`converters.parity.contents.tensors`). Of any other artefact the graph is read as that of a
source is (:mod:`converters.parity.contents.graph`), which proves what is computed and which tensor
stands where, whatever it is called. What bears our mark or our names is held to them as well. Where
a graph cannot be read, numbers are left, and a clause says why.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from converters.checkpoint import open_checkpoint
from converters.checkpoint.onnx_places import parsed
from converters.errors import ConversionError, UnsafeInputError, said
from converters.families.graph_values import OtherNodeError
from converters.formats.onnx.export import PRODUCER
from converters.formats.registry import FORMATS
from converters.parity.contents.graph import contents_of_graph
from converters.parity.contents.tensors import TensorCertificate, audited, read_and_certified
from converters.parity.contents.written import metadata_faults
from converters.parity.verdict import PROVEN

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.held import Contents

_ONNX = "onnx"

_READ = {_ONNX, "torchscript", "pt2"}
"""Tags of formats whose graphs may be read."""


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of an artefact without running it.

    Attributes:
        tensors: Its certificate; None where nothing says which tensor is which.
        graph: :data:`converters.parity.verdict.PROVEN`, or why it is not, as a clause; None where
            it was not read, since it is what is written today, or wrong, or of a kind that is not
            read.
        is_ours: Whether it bears this project's mark or names.
    """

    tensors: TensorCertificate | None
    graph: str | None = None
    is_ours: bool = True


def prove(
    folder: ConvertedFolder,
    kind: str,
    path: Path,
    weights_sha256: Mapping[str, str] | None = None,
) -> Proof:
    """Prove as much as can be of an artefact.

    Args:
        folder: Whose artefact it is said to be.
        kind: Key of :data:`converters.formats.registry.FORMATS`, of one with a certificate.
        path: The artefact.
        weights_sha256: As :func:`converters.parity.contents.tensors.certify` takes them.

    Raises:
        InputError: If the folder itself cannot be used.
    """
    named, contents = read_and_certified(folder, kind, path, weights_sha256)
    shares = _shares_others(folder, path, contents)
    if FORMATS[kind].tag not in _READ or (named.graph_compared and not shares):
        return Proof(named)
    is_onnx = FORMATS[kind].tag == _ONNX
    is_ours = not shares and _is_ours(folder, is_onnx, path, contents)
    try:
        by_graph, is_its_network = _by_graph(folder, path)
    except OtherNodeError as error:
        wrong = (*(named.wrong if is_ours else ()), _clause(error, path))
        return Proof(TensorCertificate(0, 0, 0, wrong, graph_compared=True), None, is_ours)
    except UnsafeInputError:
        return Proof(named, None, is_ours)  # whatever runs it says why it does not
    except ConversionError as error:
        graph = f"graph not proven: {_clause(error, path)}"
        is_damaged = contents is None and not is_onnx
        return Proof(named if is_ours or is_damaged else None, graph, is_ours)
    if is_ours:
        wrong = tuple(dict.fromkeys((*named.wrong, *by_graph.wrong)))
        by_graph = replace(named, wrong=wrong, graph_compared=True)
    return Proof(by_graph, PROVEN if is_its_network else None, is_ours)


def _by_graph(folder: ConvertedFolder, path: Path) -> tuple[TensorCertificate, bool]:
    """The certificate of a file by its graph, and whether that is the folder's network.

    What the file states of classes and images is compared as well.
    """
    with open_checkpoint(path) as checkpoint:
        contents = contents_of_graph(folder, checkpoint)
        stated = metadata_faults(folder, checkpoint.metadata)
        whole = replace(contents, faults=(*contents.faults, *stated))
        return audited(folder, whole), not contents.faults


def _shares_others(folder: ConvertedFolder, path: Path, contents: Contents | None) -> bool:
    """Whether a file points into weights, and those of another folder: then no name counts."""
    if contents is None or contents.weights_sha256 is None:
        return False
    return not path.resolve().is_relative_to(folder.path.resolve())


def _is_ours(folder: ConvertedFolder, is_onnx: bool, path: Path, contents: Contents | None) -> bool:
    """Whether tensors are to be held to the names that this project gives them.

    ONNX files say who wrote them, which matters: exporters fold batch norms and keep the names.
    Modules of torch keep both names and values, so there most names decide.
    """
    if is_onnx and contents is None:
        model = parsed(path)
        return model is None or model.producer_name == PRODUCER
    if is_onnx or contents is None:
        return contents is not None and contents.marked
    known = sum(held.name in folder.tensors for held in contents.tensors)
    return 2 * known > len(contents.tensors)


def _clause(error: ConversionError, path: Path) -> str:
    """What was found, without the file's name and what to do about it."""
    words = said(error).removeprefix(f"{path.name}: ").rstrip(".")
    return words.rpartition("; ")[0] or words
