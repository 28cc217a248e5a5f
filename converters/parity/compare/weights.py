"""Comparing the weights of two sides, tensor by tensor, under the reference's names."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.errors import ConversionError, printable, said
from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.export import PRODUCER
from converters.parity.compare.foreign import ONNX
from converters.parity.compare.sides import ArtefactSide
from converters.parity.contents.elements import compare_bits
from converters.parity.contents.graph import read_graph
from converters.parity.contents.tensors import audited, certify, contents_of
from converters.parity.metrics import rms
from converters.parity.verdict import PROVEN
from regnet.architecture import BASE_PREFIX, COUNTER
from regnet.files.dtypes import DTYPES, cast, widened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from converters.parity.compare.sides import Side
    from converters.parity.contents.held import Contents
    from converters.parity.contents.tensors import TensorCertificate

    _Content = tuple[tuple[int, ...], bytes]

_STEM = "embedder.embedder.convolution.weight"


@dataclass(frozen=True, slots=True)
class Weights:
    """How the tensors of two sides compare.

    Attributes:
        identical: How many have the same bits.
        recomputed: How many are folds or casts, and what float64 gives.
        counters: How many counters of batches differ, which only training asks for.
        differences: One clause each, a name first.
        decides: Whether a difference means that the sides are not the same.
        note: Why they were not compared, or what is special about how.
    """

    identical: int = 0
    recomputed: int = 0
    counters: int = 0
    differences: tuple[str, ...] = ()
    decides: bool = True
    note: str | None = None


@dataclass(frozen=True)
class Tensors:
    """Tensors by name, read one at a time.

    Attributes:
        dtypes: Name to torch's name of the element type.
        array: Gives one, in its own shape and dtype; bfloat16 as its bits, in uint16.
    """

    dtypes: Mapping[str, str]
    array: Callable[[str], NDArray[Any]]


def compare_weights(a: Side, b: Side) -> Weights:
    """Compare what two sides hold.

    Two sides with weights are compared bit by bit. An artefact of this project is compared with
    weights as its certificate has it, folds recomputed; two artefacts, by the names they share.
    """
    if isinstance(a, ArtefactSide):
        if isinstance(b, ArtefactSide):
            return _two_artefacts(a, b)
        return _with_artefact(b.folder, a)
    if isinstance(b, ArtefactSide):
        return _with_artefact(a.folder, b)
    compared = _compared(_of_folder(a.folder), _of_folder(b.folder))
    proven = a.is_proven_graph or b.is_proven_graph
    return replace(compared, note=PROVEN if proven else None)


def _of_folder(folder: ConvertedFolder) -> Tensors:
    """A folder's tensors, without the prefix that a trunk has inside a classifier."""
    stored = {name.removeprefix(BASE_PREFIX): name for name in folder.tensors}
    dtypes = {short: folder.tensors[name].dtype for short, name in stored.items()}
    return Tensors(dtypes, lambda short: folder.array(stored[short]))


def _of_artefact(side: ArtefactSide) -> Tensors:
    arrays = side.runtime.tensors()
    return Tensors({name: array.dtype.name for name, array in arrays.items()}, arrays.__getitem__)


def _compared(a: Tensors, b: Tensors) -> Weights:
    """Compare two sets of tensors, which a clause calls A and B, by name."""
    identical = counters = 0
    differences = [f"{printable(name)} is in A alone" for name in a.dtypes if name not in b.dtypes]
    differences += [f"{printable(name)} is in B alone" for name in b.dtypes if name not in a.dtypes]
    shared = [name for name in a.dtypes if name in b.dtypes]

    @cache
    def by_content() -> dict[_Content, str]:
        kept = (name for name in shared if not name.endswith(COUNTER))
        return {_content(a.array(name)): name for name in kept}

    for name in shared:
        words = _difference(name, a, b, by_content)
        if words is None:
            identical += 1
        elif name.endswith(COUNTER):
            counters += 1
        else:
            differences.append(f"{printable(name)} {words}")
    return Weights(identical, 0, counters, tuple(differences))


def _difference(
    name: str, a: Tensors, b: Tensors, by_content: Callable[[], Mapping[_Content, str]]
) -> str | None:
    """How B's tensor differs from A's of the same name, if it does; it may be another of A's."""
    ours, theirs = a.array(name), b.array(name)
    if ours.shape != theirs.shape:
        return f"has shape {list(theirs.shape)} where A has {list(ours.shape)}"
    if a.dtypes[name] != b.dtypes[name]:
        return _in_another_type(ours, a.dtypes[name], theirs, b.dtypes[name])
    difference = compare_bits(memoryview(theirs.tobytes()), np.ascontiguousarray(ours))
    if not difference.count:
        return None
    if name == _STEM and np.array_equal(ours[:, ::-1], theirs):
        return "has its input channels reversed (BGR against RGB)"
    if theirs.size > 1 and not (theirs == theirs.flat[0]).all():  # else there are many such
        twin = by_content().get(_content(theirs), name)
        if twin != name:
            return f"holds what A calls {printable(twin)}"
    return f"differs {difference.describe(ours.shape)}{_size(ours, theirs, a.dtypes[name])}"


def _content(array: NDArray[Any]) -> _Content:
    return array.shape, hashlib.sha256(array.tobytes()).digest()


def _in_another_type(ours: NDArray[Any], dtype: str, theirs: NDArray[Any], other: str) -> str:
    """Whether the one rounds to the other."""
    words = f"is {other} where A has {dtype}"
    if dtype not in DTYPES or other not in DTYPES:
        return words
    down = np.array_equal(cast(ours, dtype, other), theirs)
    same = down or np.array_equal(cast(theirs, other, dtype), ours)
    return f"{words}, the same numbers rounded" if same else f"{words}, and other numbers"


def _size(ours: NDArray[Any], theirs: NDArray[Any], dtype: str) -> str:
    """How large a difference of floats is."""
    if dtype not in DTYPES:
        return ""
    exact = widened(ours, dtype).astype(np.float64)
    error = np.abs(widened(theirs, dtype).astype(np.float64) - exact)
    if not np.isfinite(error).all():
        return ", and not all are finite"
    scale = rms(exact)
    relative = f", {rms(error) / scale:.2g} relative RMS" if scale else ""
    return f", by at most {error.max():.3g}{relative}"


def _with_artefact(folder: ConvertedFolder, artefact: ArtefactSide) -> Weights:
    """Compare weights with an artefact that was, or was not, written by this project."""
    try:
        contents = contents_of(folder, artefact.kind, artefact.path)
    except Exception:  # noqa: BLE001 -- what another tool's file leads to has any class
        return Weights(decides=False, note="not compared: the artefact's tensors cannot be read")
    if not _is_ours(artefact, contents, folder):
        return _by_graph(folder, artefact)
    if contents.weights_sha256 is not None:
        return _sharing(folder, artefact, contents)
    proof = certify(folder, artefact.kind, artefact.path)
    return Weights(proof.identical, proof.recomputed, differences=_of_tensors(proof, contents))


def _by_graph(folder: ConvertedFolder, artefact: ArtefactSide) -> Weights:
    """Compare weights with another tool's artefact, by what its graph says they are for."""
    try:
        contents = read_graph(folder, artefact.path)
    except ConversionError as error:
        return Weights(
            decides=False, note=f"not compared, the graph is not proven: {said(error).rstrip('.')}"
        )
    if contents.faults:
        return Weights(differences=contents.faults, note="the graph is another network's")
    proof = audited(folder, contents)
    return Weights(proof.identical, proof.recomputed, differences=proof.wrong, note=PROVEN)


def _of_tensors(proof: TensorCertificate, contents: Contents) -> tuple[str, ...]:
    """What is wrong with tensors; the graph is judged by what it computes, and fields apart."""
    return tuple(clause for clause in proof.wrong if clause not in contents.faults)


def _sharing(folder: ConvertedFolder, artefact: ArtefactSide, contents: Contents) -> Weights:
    """Compare weights with those that an artefact points at."""
    home = ConvertedFolder(artefact.path.parent)
    proof = certify(home, artefact.kind, artefact.path)
    held = _compared(_of_folder(folder), _of_folder(home))
    differences = _of_tensors(proof, contents) + held.differences
    note = "the artefact shares the weights of its folder"
    return replace(held, differences=differences, note=note)


def _is_ours(side: ArtefactSide, contents: Contents, folder: ConvertedFolder) -> bool:
    """Whether an artefact holds tensors as this project writes them.

    An ONNX file says who wrote it, which matters: exporters fold batch norms and keep the names. A
    TorchScript module keeps both names and values, so most names decide.
    """
    if side.kind == ONNX:
        return side.runtime.producer == PRODUCER
    known = sum(held.name in folder.tensors for held in contents.tensors)
    return 2 * known > len(contents.tensors)


def _two_artefacts(a: ArtefactSide, b: ArtefactSide) -> Weights:
    ours, theirs = _of_artefact(a), _of_artefact(b)
    shared = ours.dtypes.keys() & theirs.dtypes.keys()
    if 2 * len(shared) < max(len(ours.dtypes), len(theirs.dtypes)) or not shared:
        return Weights(decides=False, note="not compared: the artefacts name their tensors apart")
    note = "by the names that the artefacts share; their outputs decide"
    return replace(_compared(ours, theirs), decides=False, note=note)
