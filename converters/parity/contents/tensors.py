"""Tensor certificates: proof that an artefact holds the weights of its folder, tensor by tensor.

A verdict judges the numbers that come out, and must leave room for rounding. A certificate looks at
what is inside, and needs no room: a tensor has the very bytes of the weights, or is what the values
recomputed in float64 round to (see :mod:`converters.parity.contents.recomputed`). One flipped bit
among millions of weights is lost in the output; here it has a name.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.checkpoint.digests import sha256_of
from converters.errors import in_words, printable
from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from converters.formats.registry import FORMATS
from converters.parity.contents.elements import compare_bits, compare_steps, compare_values
from converters.parity.contents.recomputed import Cast, FoldedBias, FoldedKernel
from regnet.architecture import COUNTER, KERNEL
from regnet.files.dtypes import COMPUTED, DTYPES, item_size
from regnet.files.late import imported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.parity.contents.held import Contents, HeldTensor, ReadContents
    from converters.parity.contents.recomputed import Recomputed

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

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self) | {"wrong": list(self.wrong)}


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
    audit = _Audit(folder)
    try:
        contents = contents_of(folder, kind, path)
    except Exception as error:  # noqa: BLE001 -- what a damaged file leads to has any class
        return TensorCertificate(0, 0, 0, (f"its tensors cannot be read ({in_words(error)})",))
    audit.tensors(contents)
    if contents.weights_sha256 is not None:
        audit.digests(contents.weights_sha256, weights_sha256 or {})
    wrong = (*audit.wrong, *contents.faults)
    return TensorCertificate(
        audit.identical, audit.recomputed, audit.ulps, wrong, contents.graph_compared
    )


def contents_of(folder: ConvertedFolder, kind: str, path: Path) -> Contents:
    """Take an artefact apart.

    Raises:
        Exception: Of any class, if it cannot be read.
        ValueError: If no tensors can be read of its kind.
    """
    place = FORMATS[kind].certificate
    if place is None:
        raise ValueError("they are compiled in")
    read: ReadContents = imported(place)
    return read(folder, path)


@dataclass(frozen=True, slots=True)
class _Expected:
    """What an artefact should hold under one name.

    Attributes:
        shape: Its sizes.
        fold: Its values, unless they are a tensor of the weights.
    """

    shape: tuple[int, ...]
    fold: Recomputed | None = None


class _Audit:
    """Goes through what an artefact holds and keeps count.

    Raises:
        InputError: If the folder is incomplete.
    """

    def __init__(self, folder: ConvertedFolder) -> None:
        self.identical = self.recomputed = self.ulps = 0
        self.wrong: list[str] = []
        self._folder = folder
        self._stored = folder.tensors

    def tensors(self, contents: Contents) -> None:
        """Compare all tensors, and find those that are missing."""
        by_name: dict[str, list[HeldTensor]] = {}
        for tensor in contents.tensors:
            by_name.setdefault(tensor.name, []).append(tensor)
        expected = dict(self._expected(by_name.keys(), counters=contents.counters))
        for name, tensors in by_name.items():
            fault = _fault(tensors, expected.get(name)) or self._compare(
                tensors[0], expected[name], contents.precision
            )
            if fault:
                self.wrong.append(f"{printable(name)} {fault}")
        missing = (name for name in expected if name not in by_name)
        self.wrong.extend(f"{name} is missing" for name in missing)

    def digests(self, stated: Mapping[str, str], known: Mapping[str, str]) -> None:
        """Compare the digests that an artefact states with those of the weights files."""
        for file in self._folder.weight_files:
            if stated.get(file.name) != (known.get(file.name) or sha256_of(file)):
                self.wrong.append(f"the sha256 that it states of {file.name} is not the file's")

    def _expected(self, held: Iterable[str], *, counters: bool) -> Iterator[tuple[str, _Expected]]:
        """The state dict, in which folded tensors stand for those of a convolution and its norm."""
        folder = self._folder
        owners = {name.rpartition(".")[0] for name in held if name.endswith(_FOLDED)}
        for name, shape in folder.architecture.shapes.items():
            owner = ".".join(name.split(".")[:-2])  # of convolution.weight, normalization.bias
            if owner in owners and name.endswith(KERNEL):
                kernel, bias = FoldedKernel(folder, owner), FoldedBias(folder, owner)
                yield owner + FOLDED_WEIGHT, _Expected(shape, kernel)
                yield owner + FOLDED_BIAS, _Expected(shape[:1], bias)
            elif owner not in owners and (counters or not name.endswith(COUNTER)):
                yield name, _Expected(shape)

    def _compare_integers(
        self, tensor: HeldTensor, steps: NDArray[np.float32], expected: _Expected
    ) -> str | None:
        truth = expected.fold or Cast(self._folder, tensor.name)
        integers = np.frombuffer(tensor.data, tensor.dtype).reshape(tensor.shape)
        difference = compare_steps(integers, steps, truth)
        if difference.count:
            return f"is not the nearest to {truth.what} {difference.describe(tensor.shape)}"
        self.recomputed += 1
        return None

    def _compare(self, tensor: HeldTensor, expected: _Expected, precision: str) -> str | None:
        """Count a tensor in, or say what is wrong with its elements."""
        if tensor.steps is not None:
            return self._compare_integers(tensor, tensor.steps, expected)
        dtype = precision if expected.fold else self._stored[tensor.name].dtype
        truth = expected.fold
        if tensor.dtype != dtype:
            if tensor.dtype != precision or dtype not in DTYPES:
                return f"is {printable(tensor.dtype)} where {dtype} belongs"
            truth = Cast(self._folder, tensor.name)
        elif dtype in DTYPES and precision not in {dtype, COMPUTED}:
            return f"is {dtype} where {precision} belongs"
        if len(tensor.data) != math.prod(tensor.shape) * item_size(tensor.dtype):
            return f"has {len(tensor.data)} bytes, not those of its shape {list(tensor.shape)}"
        if truth is None:
            what = "the weights"
            difference = compare_bits(tensor.data, self._folder.array(tensor.name))
        else:
            what = truth.what
            difference = compare_values(tensor.data, tensor.shape, truth, precision)
        if difference.count:
            return f"differs from {what} {difference.describe(tensor.shape)}"
        self.identical += truth is None
        self.recomputed += truth is not None
        self.ulps = max(self.ulps, difference.ulps)
        return None


def _fault(tensors: Sequence[HeldTensor], expected: _Expected | None) -> str | None:
    """What is wrong with tensors of one name, whatever their elements are."""
    if expected is None:
        return "is no tensor that belongs there"
    if len(tensors) > 1:
        return f"is held {len(tensors)} times"
    (tensor,) = tensors
    if tensor.fault is None and tensor.shape != expected.shape:
        return f"has shape {list(tensor.shape)} where {list(expected.shape)} belongs"
    return tensor.fault
