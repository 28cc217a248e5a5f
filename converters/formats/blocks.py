"""A pass over the network: groups of channels laid out for the blocks that a runtime computes in.

Runtimes that are fast on a CPU keep channels in blocks: ONNX Runtime in blocks of 16 where the
processor has AVX-512, of 8 where it has AVX2. A grouped convolution whose groups are no whole
blocks falls off that path. So each group gets zero channels behind its own, or neighbouring groups
become one with zeros between them, until a group is whole blocks. Nothing but rounding changes: a
zero channel has zeros for kernel and bias, stays zero in activations and behind gates, and what
reads it has zeros there.

Only values inside of blocks get more channels, from the first convolution of a block to its last:
neither shortcuts nor the head see them.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from converters.errors import InputError
from regnet.architecture import Act, Conv, EvoNorm, GroupNorm, Norm, Pool, Scale

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray

    from regnet.architecture import Operation, Operations

_KEEPS_CHANNELS = (Act, Norm, Scale, Pool)
"""What computes each channel alone."""

_ZERO_AT_ZERO = frozenset({"relu", "gelu", "gelu_new", "selu", "silu"})
"""Activations that keep zeros; what a gate is there does not matter."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """How the groups of a stage's grouped convolutions lie in a file.

    Attributes:
        pitch: How many channels each group of the network takes: its own, then zeros.
        merged: How many neighbouring groups of the network are one of the file's.
    """

    pitch: int
    merged: int = 1

    @property
    def width(self) -> int:
        """Channels in a group of the file."""
        return self.pitch * self.merged


Stages = tuple[Blocks | None, ...]
"""For each stage how its groups lie; None where they are the network's. Empty: all are."""


def fitting(own: int, block: int) -> tuple[Blocks, ...]:
    """The ways in which groups become whole blocks, merging fewer first.

    Args:
        own: Channels in a group of the network.
        block: Channels that the runtime computes together, a power of two.

    Returns:
        None where they are whole blocks already, or where each channel is a group of its own, which
        runtimes have a path for.
    """
    found: list[Blocks] = []
    merged = 1
    while own > 1 and own % block and not (found and found[-1].pitch == own):
        width = -(-own * merged // block) * block
        if width % merged == 0:
            found.append(Blocks(width // merged, merged))
        merged *= 2
    return tuple(found)


def group_widths(operations: Sequence[Operation], stages: int) -> list[int]:
    """For each stage the channels in a group of its grouped convolutions; 1 where it has none."""
    widths = [1] * stages
    for operation in operations:
        if isinstance(operation, Conv) and operation.groups > 1:
            stage = int(operation.slots[0].fields["stage"])
            widths[stage] = max(widths[stage], operation.slots[0].shape[1])
    return widths


def rigid_stages(operations: Sequence[Operation]) -> set[int | None]:
    """The stages where zero channels would change a norm, since it sees several at once."""
    return {stage_of(op) for op in operations if isinstance(op, GroupNorm | EvoNorm)}


def stage_of(operation: Operation) -> int | None:
    """Which stage an operation is in; None before and behind them."""
    _, found, place = operation.name.partition("encoder.stages.")
    return int(place.partition(".")[0]) if found else None


@dataclass(frozen=True, slots=True)
class Spread:
    """Where the channels of a value lie among zeros.

    Attributes:
        own: Channels in a group of the network.
        groups: Of the network.
        blocks: How they lie.
    """

    own: int
    groups: int
    blocks: Blocks

    @property
    def merged_groups(self) -> int:
        """Groups in the file; the last may have zeros for groups that the network lacks."""
        return -(-self.groups // self.blocks.merged)

    @property
    def channels(self) -> int:
        """Of the value, with the zeros."""
        return self.merged_groups * self.blocks.width

    @property
    def positions(self) -> NDArray[np.intp]:
        """Where each channel of the network is."""
        group, channel = np.divmod(np.arange(self.own * self.groups), self.own)
        return group * self.blocks.pitch + channel


def spreads(operations: Sequence[Operation], stages: Stages) -> dict[str, Spread]:
    """Find the values that get zero channels, and where.

    Args:
        operations: Of a network, batch norms folded or not.
        stages: How the groups lie.

    Raises:
        InputError: If something there sees channels together, as a norm of groups does, or if a
            group is wider than what it should fit into.
    """
    found: dict[str, Spread] = {}
    for operation in operations:
        if isinstance(operation, Conv) and operation.groups > 1:
            slot = operation.slots[0]
            blocks = stages[int(slot.fields["stage"])] if stages else None
            if blocks:
                spread = Spread(slot.shape[1], operation.groups, blocks)
                _require_room(operation.name, spread)
                found |= dict.fromkeys((*operation.inputs, operation.output), spread)
    through = [(*op.inputs, op.output) for op in operations if isinstance(op, _KEEPS_CHANNELS)]
    before = 0
    while before < len(found):
        before = len(found)
        for values in through:
            for value in set(values) & found.keys():
                found |= dict.fromkeys(values, found[value])
    gates = {value for op in operations if isinstance(op, Scale) for value in op.inputs[1:]}
    for operation in operations:
        touched = any(value in found for value in (*operation.inputs, operation.output))
        if touched and operation.output not in gates and not _keeps_zeros(operation):
            raise InputError(
                f"{operation.name} would not keep zero channels zero, or sees several channels at "
                "once; leave the groups of its stage as they are."
            )
    return found


def _keeps_zeros(operation: Operation) -> bool:
    """Whether zero channels stay zero, or are not seen where they should be."""
    if isinstance(operation, Act):
        return operation.function in _ZERO_AT_ZERO
    return isinstance(operation, Conv | Norm | Scale | Pool)


def _require_room(name: str, spread: Spread) -> None:
    if spread.blocks.pitch < spread.own or spread.blocks.merged < 1:
        raise InputError(
            f"{name} has groups of {spread.own} channels, which do not fit into "
            f"{spread.blocks.pitch}; choose another --block."
        )


def reblocked(operations: Sequence[Operation], stages: Stages) -> Operations:
    """Let groups lie in blocks: convolutions and norms get the shapes that this needs.

    Order, names and values stay.

    Raises:
        InputError: As :func:`spreads`.
    """
    found = spreads(operations, stages)
    return (
        tuple(_wider(operation, found) for operation in operations) if found else tuple(operations)
    )


def _wider(operation: Operation, found: Mapping[str, Spread]) -> Operation:
    read, made = found.get(operation.inputs[0]), found.get(operation.output)
    if isinstance(operation, Norm) and made:
        return _wider_norm(operation, made)
    if not isinstance(operation, Conv) or not (read or made):
        return operation
    kernel, *biases = operation.slots
    groups = made.merged_groups if made and operation.groups > 1 else operation.groups
    rows = made.channels if made else kernel.shape[0]
    columns = read.channels if read else kernel.shape[1] * operation.groups
    shape = (rows, columns // groups, *kernel.shape[2:])
    slots = (replace(kernel, shape=shape), *(replace(bias, shape=shape[:1]) for bias in biases))
    norm = _wider_norm(operation.norm, made) if operation.norm and made else operation.norm
    return replace(operation, slots=slots, groups=groups, norm=norm)


def _wider_norm(norm: Norm, made: Spread) -> Norm:
    slots = (
        slot if slot.is_counter else replace(slot, shape=(made.channels,)) for slot in norm.slots
    )
    return replace(norm, slots=tuple(slots))


def placed_shape(
    shape: tuple[int, ...], operation: Operation, found: Mapping[str, Spread]
) -> tuple[int, ...]:
    """The shape of a tensor of an operation where it lies among zeros."""
    wider = _wider(operation, found).slots[0].shape
    return wider[:1] if len(shape) == 1 else wider


def placed(
    array: NDArray[np.floating], operation: Operation, found: Mapping[str, Spread]
) -> NDArray[np.floating]:
    """Put a tensor of an operation where it lies among zeros.

    Args:
        array: A kernel (out, in / groups, height, width), or a vector (out,).
        operation: The network's that holds it.
        found: What :func:`spreads` has found.
    """
    read, made = found.get(operation.inputs[0]), found.get(operation.output)
    if not (read or made):
        return array
    among = np.zeros(placed_shape(array.shape, operation, found), array.dtype)
    rows = made.positions if made else np.arange(len(array))
    if not isinstance(operation, Conv) or array.ndim == 1:
        among[rows] = array
        return among
    columns = read.positions if read else np.arange(array.shape[1] * operation.groups)
    groups = made.merged_groups if made and operation.groups > 1 else operation.groups
    parts = (np.split(each, operation.groups) for each in (rows, columns, array))
    for own_rows, own_columns, own in zip(*parts, strict=True):
        group = own_rows[0] // (len(among) // groups)
        among[np.ix_(own_rows, own_columns - group * among.shape[1])] = own
    return among
