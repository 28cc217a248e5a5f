"""Tensor certificates: proof that an artefact holds the weights of its folder, tensor by tensor.

A verdict judges the numbers that come out, and must leave room for rounding. A certificate looks at
what is inside, and needs no room: a tensor has the very bytes of the weights, or is what the values
recomputed in float64 round to (see :mod:`converters.parity.contents.recomputed`). One flipped bit
among millions of weights is lost in the output; here it has a name.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from converters.checkpoint.digests import sha256_of
from converters.errors import in_words, printable
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.formats.registry import FORMATS
from converters.parity.contents.elements import compare_bits, compare_steps, compare_values
from converters.parity.contents.recomputed import Cast, FoldedBias, FoldedKernel, Given, NormScale
from regnet.architecture import COUNTER, KERNEL, Conv, Norm, Normalise, folded
from regnet.files.dtypes import COMPUTED, DTYPES, item_size
from regnet.files.late import imported

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.held import Contents, HeldTensor
    from converters.parity.contents.recomputed import Recomputed

    Expected = tuple[tuple[int, ...], Recomputed | None]  # a shape, and values but for the weights'

_FOLDED = (FOLDED_WEIGHT, FOLDED_BIAS)


@dataclass(frozen=True, slots=True)
class TensorCertificate:
    """How the tensors of an artefact compare with the weights of its folder.

    Attributes:
        identical: How many have the bytes of the weights.
        recomputed: How many are folded, cast or quantised and equal what float64 gives. There,
            zeros of either sign are equal, for they compute the same, and NaN is wrong.
        ulps: The largest distance of a recomputed one from what float64 rounds to, in units in the
            last place of the artefact's precision.
        wrong: One clause each: a name and what is wrong.
        graph_compared: Whether graph or code was compared with what is written for the folder;
            where it was not, its tensors may be used for anything.
    """

    identical: int
    recomputed: int
    ulps: int
    wrong: tuple[str, ...] = ()
    graph_compared: bool = False

    @property
    def failure(self) -> str | None:
        """The first thing that is wrong, and how many more there are; None if nothing is."""
        if not self.wrong:
            return None
        more = len(self.wrong) - 1
        return f"{self.wrong[0]} (and {more} more)" if more else self.wrong[0]


def certify(
    folder: ConvertedFolder,
    kind: str,
    path: Path,
    *,
    weights_sha256: Mapping[str, str] | None = None,
) -> TensorCertificate:
    """Compare every tensor of an artefact with the weights of its folder.

    Every tensor of the state dict must be held once, as it is or in a fold, and nothing else.
    Files are mapped and compared block by block.

    Args:
        folder: Whose artefact it is.
        kind: Key of :data:`converters.formats.registry.FORMATS`.
        path: The artefact. If it cannot be read, that is the one thing wrong.
        weights_sha256: Digests of the weights files by name, where they are known; what an artefact
            states of the others is compared with a digest computed here.

    Raises:
        InputError: If the folder itself cannot be used.
    """
    return read_and_certified(folder, kind, path, weights_sha256)[0]


def read_and_certified(
    folder: ConvertedFolder,
    kind: str,
    path: Path,
    weights_sha256: Mapping[str, str] | None = None,
) -> tuple[TensorCertificate, Contents | None]:
    """The same as :func:`certify`, and what was read; None if it could not be."""
    audit = _Audit(folder)
    try:
        contents = contents_of(folder, kind, path)
    except Exception as error:  # noqa: BLE001 -- what a damaged file leads to has any class
        wrong = f"its tensors cannot be read ({in_words(error)})"
        return TensorCertificate(0, 0, 0, (wrong,)), None
    return _certified(audit, folder, contents, weights_sha256 or {}), contents


def audited(folder: ConvertedFolder, contents: Contents) -> TensorCertificate:
    """The same as :func:`certify`, of an artefact that is taken apart already."""
    return _certified(_Audit(folder), folder, contents, {})


def _certified(
    audit: _Audit,
    folder: ConvertedFolder,
    contents: Contents,
    weights_sha256: Mapping[str, str],
) -> TensorCertificate:
    wrong = (
        *audit.faults(contents),
        *_digest_faults(folder, contents.weights_sha256, weights_sha256),
        *contents.faults,
        *_grid_faults(folder, contents.grids),
    )
    return TensorCertificate(
        audit.identical, audit.recomputed, audit.ulps, wrong, contents.graph_compared
    )


def _grid_faults(
    folder: ConvertedFolder, grids: Mapping[str, tuple[float, float]]
) -> Iterator[str]:
    """Activations in integers that clip what they should hold."""
    if grids:
        from converters.parity.contents.grids import clipping

        yield from clipping(folder, grids)


def contents_of(folder: ConvertedFolder, kind: str, path: Path) -> Contents:
    """Take an artefact apart.

    Raises:
        Exception: Of any class, if it cannot be read.
        ValueError: If no tensors can be read of its kind.
    """
    place = FORMATS[kind].certificate
    if place is None:
        raise ValueError("they are compiled in")
    contents: Contents = imported(place)(folder, path)
    return contents


def is_ours(folder: ConvertedFolder, kind: str, path: Path) -> bool:
    """Whether an artefact's graph or code is exactly what is written for its folder.

    Then it does what the configuration says and ends when that is done, whatever its tensors hold.
    Compiled programs, and those whose graph cannot be written again, are never known to be. What is
    not may be anybody's program, and is opened in a process of its own
    (:mod:`converters.formats.confined`).
    """
    try:
        contents = contents_of(folder, kind, path)
    except Exception:  # noqa: BLE001 -- what a damaged file leads to has any class
        return False
    return contents.graph_compared and not contents.faults


class _Audit:
    """Goes through what an artefact holds and keeps count.

    Raises:
        InputError: If the folder is incomplete.
    """

    def __init__(self, folder: ConvertedFolder) -> None:
        self.identical = self.recomputed = self.ulps = 0
        self._folder = folder
        self._stored = folder.tensors

    def faults(self, contents: Contents) -> Iterator[str]:
        """Compare all tensors: a clause for each that is wrong or missing."""
        held: dict[str, list[HeldTensor]] = {}
        for tensor in contents.tensors:
            held.setdefault(tensor.name, []).append(tensor)
        expected = dict(_expected(self._folder, held.keys(), contents))
        for name, tensors in held.items():
            if fault := self._fault(tensors, expected.get(name), contents.precision):
                yield f"{printable(name)} {fault}"
        yield from (f"{name} is missing" for name in expected if name not in held)

    def _fault(
        self, tensors: Sequence[HeldTensor], expected: Expected | None, precision: str
    ) -> str | None:
        """What is wrong with the tensors of one name; where nothing is, it is counted in."""
        if expected is None:
            return "is no tensor that belongs there"
        if len(tensors) > 1:
            return f"is held {len(tensors)} times"
        (tensor,), (shape, fold) = tensors, expected
        if tensor.fault is None and tensor.shape != shape:
            return f"has shape {list(tensor.shape)} where {list(shape)} belongs"
        return tensor.fault or self._compare(tensor, fold, precision)

    def _compare(self, tensor: HeldTensor, fold: Recomputed | None, precision: str) -> str | None:
        dtype = precision if fold else self._stored[tensor.name].dtype
        copied = fold is None and tensor.steps is None and tensor.dtype == dtype
        truth = None if copied else fold or Cast(self._folder, tensor.name)
        how = "differs from"
        if truth and tensor.steps is not None:
            how = "is not the nearest to"
            integers = np.frombuffer(tensor.row_major, tensor.dtype).reshape(tensor.shape)
            difference = compare_steps(integers, tensor.steps, truth, tensor.least_steps)
        elif fault := _misfit(tensor, dtype, precision):
            return fault
        elif truth:
            difference = compare_values(tensor.row_major, tensor.shape, truth, precision)
        else:
            difference = compare_bits(tensor.row_major, self._folder.array(tensor.name))
        if difference.count:
            what = truth.what if truth else "the weights"
            return f"{how} {what} {difference.describe(tensor.shape)}"
        self.identical += truth is None
        self.recomputed += truth is not None
        self.ulps = max(self.ulps, difference.ulps)
        return None


def _misfit(tensor: HeldTensor, dtype: str, precision: str) -> str | None:
    """Why the elements of a tensor of floats or counters cannot be what they should.

    Args:
        tensor: Of a name and shape that belong there.
        dtype: That of the weights; of a fold, the precision.
        precision: What weights may have been cast to.
    """
    if tensor.dtype != dtype and (tensor.dtype != precision or dtype not in DTYPES):
        return f"is {printable(tensor.dtype)} where {dtype} belongs"
    if tensor.dtype == dtype and dtype in DTYPES and precision not in {dtype, COMPUTED}:
        return f"is {dtype} where {precision} belongs"
    if len(tensor.data) != math.prod(tensor.shape) * item_size(tensor.dtype):
        return f"has {len(tensor.data)} bytes, not those of its shape {list(tensor.shape)}"
    return None


def _expected(
    folder: ConvertedFolder, held: Collection[str], contents: Contents
) -> Iterator[tuple[str, Expected]]:
    """The state dict, in which folded tensors stand for those of a convolution and its norm."""
    owners = {name.rpartition(".")[0] for name in held if name.endswith(_FOLDED)}
    norms = {
        operation.around: operation.norm
        for operation in folded(folder.architecture.operations)
        if isinstance(operation, Conv) and operation.norm and operation.around in owners
    }
    alone = {
        operation.name: operation
        for operation in folded(folder.architecture.operations)
        if isinstance(operation, Norm) and operation.name in owners
    }
    gone = {slot.name for norm in (*norms.values(), *alone.values()) for slot in norm.slots}
    for name, shape in folder.architecture.shapes.items():
        owner = name.removesuffix(KERNEL)
        if owner != name and owner in norms:
            fold = folder, owner, norms[owner], contents.folded_in
            yield owner + FOLDED_WEIGHT, (shape, FoldedKernel(*fold))
            yield owner + FOLDED_BIAS, (shape[:1], FoldedBias(*fold))
        elif name not in gone and (contents.counters or not name.endswith(COUNTER)):
            yield name, (shape, None)
    if isinstance(first := folder.architecture.operations[0], Normalise):
        for leaf in ("mean", "std"):
            if (name := f"{first.name}.{leaf}") in held:
                numbers = getattr(first, leaf)
                yield name, ((len(numbers),), Given(folder, name, numbers))
    for owner, norm in alone.items():
        fold, shape = (folder, owner, norm, contents.folded_in), norm.slots[0].shape
        yield owner + FOLDED_WEIGHT, (shape, NormScale(*fold))
        yield owner + FOLDED_BIAS, (shape, FoldedBias(*fold))


def _digest_faults(
    folder: ConvertedFolder, stated: Mapping[str, str] | None, known: Mapping[str, str]
) -> Iterator[str]:
    """Compare the digests that an artefact states, if any, with those of the weights files."""
    if stated is None:
        return
    for file in folder.weight_files:
        if stated.get(file.name) != (known.get(file.name) or sha256_of(file)):
            yield f"the sha256 that it states of {file.name} is not the file's"
