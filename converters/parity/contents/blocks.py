"""Tensors of a file whose groups of channels lie in blocks, taken out of the zeros around them.

A file states for each stage how many channels each group of the network takes there (its own, then
zeros), and how many groups are one of the file's. Where each weight is follows from that and from
what its layer is for; it is written here anew, not with the exporter's code. What lies at no place
of a weight must be zero: of either sign, for both compute the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from converters.formats.onnx.form import FOLDED_BIAS, FOLDED_WEIGHT
from regnet.architecture import Conv, Norm, folded
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder
    from converters.formats.blocks import Stages
    from converters.parity.contents.held import HeldTensor
    from regnet.architecture import Operation

_MAKES = ("reduce", "grouped", "excite")
_READS = ("grouped", "squeeze", "expand")
"""Layers of a block that make, or read, values of the channels inside of it."""


@dataclass(frozen=True, slots=True)
class _Lying:
    """How the channels inside of a block lie.

    Attributes:
        own: In a group of the network.
        groups: Of the network.
        pitch: Channels that each takes.
        merged: How many are one group of the file.
    """

    own: int
    groups: int
    pitch: int
    merged: int

    @property
    def width(self) -> int:
        """Of a group of the file."""
        return self.pitch * self.merged

    @property
    def channels(self) -> int:
        """In the file."""
        return math.ceil(self.groups / self.merged) * self.width

    @property
    def stretches(self) -> Iterator[tuple[slice, slice]]:
        """For each group its channels in the network and in the file."""
        for group in range(self.groups):
            first, there = group * self.own, group * self.pitch
            yield slice(first, first + self.own), slice(there, there + self.own)


def out_of_blocks(
    folder: ConvertedFolder, stages: Stages, tensors: Sequence[HeldTensor]
) -> tuple[HeldTensor, ...]:
    """Give every tensor the shape and the elements that it has in the network.

    One that has another shape than the file's statement gives, or other numbers where zeros belong,
    gets that as its fault.

    Args:
        folder: Whose artefact it is.
        stages: What the file states.
        tensors: As the file holds them, row-major.
    """
    if not any(stages):
        return tuple(tensors)
    sparse = _sparse(folder, stages)
    return tuple(
        _taken_out(each, sparse[each.name]) if each.name in sparse and not each.fault else each
        for each in tensors
    )


@dataclass(frozen=True, slots=True)
class _Sparse:
    """A tensor of the network among zeros.

    Attributes:
        shape: In the network.
        lying: How the channels inside of its block lie.
        makes: Whether its first axis is these channels.
        reads: Whether its second axis is; of a grouped convolution, those of one group.
    """

    shape: tuple[int, ...]
    lying: _Lying
    makes: bool
    reads: bool

    @property
    def shape_there(self) -> tuple[int, ...]:
        """In the file."""
        rows, *others = self.shape
        if self.makes:
            rows = self.lying.channels
        if others and self.reads:
            others[0] = self.lying.width if self.makes else self.lying.channels
        return (rows, *others)

    def taken(self, array: NDArray[Any]) -> NDArray[Any]:
        """The network's own elements."""
        own = np.empty(self.shape, array.dtype)
        grouped = self.makes and self.reads and len(self.shape) > 1
        for group, (channels, there) in enumerate(self.lying.stretches):
            if grouped:
                first = group % self.lying.merged * self.lying.pitch
                own[channels] = array[there, first : first + self.lying.own]
            elif self.makes:
                own[channels] = array[there]
            else:
                own[:, channels] = array[:, there]
        return own

    def steps(self, steps: NDArray[Any] | None) -> NDArray[Any] | None:
        """What integers are worth, for each of the network's own along the first axis."""
        if steps is None or not self.makes:
            return steps
        return np.concatenate([steps[there] for _, there in self.lying.stretches])


def _sparse(folder: ConvertedFolder, stages: Stages) -> dict[str, _Sparse]:
    """The initialisers that lie among zeros, by name."""
    operations = folded(folder.architecture.operations)
    lying = dict(_lying(operations, stages))
    found = {}
    for operation in operations:
        part, place = _place(operation)
        if place not in lying:
            continue
        makes, reads = part in _MAKES, part in _READS
        if isinstance(operation, Norm):  # its layer's activations come before it, or it is folded
            makes, reads = part in _READS, False
        for name, shape in _held(operation):
            if makes or (reads and len(shape) > 1):
                found[name] = _Sparse(shape, lying[place], makes, reads)
    return found


def _lying(
    operations: Sequence[Operation], stages: Stages
) -> Iterator[tuple[tuple[object, object], _Lying]]:
    """How channels lie inside of each block whose stage says so."""
    for operation in operations:
        part, place = _place(operation)
        if isinstance(operation, Conv) and part == "grouped" and operation.groups > 1:
            stated = stages[int(operation.slots[0].fields["stage"])]
            if stated:
                own = operation.slots[0].shape[1]
                yield place, _Lying(own, operation.groups, stated.pitch, stated.merged)


def _place(operation: Operation) -> tuple[str, tuple[object, object]]:
    """What the layer of an operation is for, and its stage and block."""
    if not operation.slots:
        return "", (None, None)
    slot = operation.slots[0]
    return slot.role.partition(".")[0], (slot.fields.get("stage"), slot.fields.get("block"))


def _held(operation: Operation) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of what a file with folded batch norms holds for an operation."""
    if isinstance(operation, Conv) and operation.norm:
        shape = operation.slots[0].shape
        yield operation.around + FOLDED_WEIGHT, shape
        yield operation.around + FOLDED_BIAS, shape[:1]
    else:
        yield from ((slot.name, slot.shape) for slot in operation.slots if not slot.is_counter)


def _taken_out(tensor: HeldTensor, sparse: _Sparse) -> HeldTensor:
    there = sparse.shape_there
    if tensor.shape != there:
        wrong = f"has shape {list(tensor.shape)} where its blocks have {list(there)}"
        return replace(tensor, shape=sparse.shape, fault=wrong)
    if len(tensor.data) != math.prod(there) * item_size(tensor.dtype):
        return replace(tensor, fault=f"has {len(tensor.data)} bytes, not those of {list(there)}")
    if tensor.steps is not None and not np.isfinite(tensor.steps).all():  # times 0 would be none
        return replace(tensor, fault="has steps that are no numbers")
    array = np.frombuffer(tensor.data, tensor.dtype).reshape(there)
    own = sparse.taken(array)
    strangers = int(np.count_nonzero(array)) - int(np.count_nonzero(own))
    return replace(
        tensor,
        shape=sparse.shape,
        data=memoryview(own.tobytes()),
        steps=sparse.steps(tensor.steps),
        least_steps=sparse.steps(tensor.least_steps),
        fault=f"has {strangers} numbers where zeros belong" if strangers else None,
    )
