"""A tensor in pieces: FSDP cuts parameters into as many as there were processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from converters.checkpoint.values import StoredTensor, contiguous_stride

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class JoinedTensor(StoredTensor):
    """A tensor whose elements, in row-major order, lie in several places one after another.

    To planning it is a :class:`StoredTensor` like any other; ``storage`` is its first piece's.

    Attributes:
        pieces: One-dimensional tensors of the same dtype, together as many elements as ``shape``.
    """

    pieces: tuple[StoredTensor, ...] = ()

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The pieces."""
        return self.pieces


def join(pieces: Sequence[StoredTensor], shape: tuple[int, ...]) -> StoredTensor:
    """Make one tensor of pieces, without reading any.

    Args:
        pieces: One-dimensional and contiguous, of one dtype, in order, at least one.
        shape: With as many elements as the pieces have together.
    """
    first = pieces[0]
    stride = contiguous_stride(shape)
    if len(pieces) == 1:
        return StoredTensor(first.dtype, shape, stride, first.storage, first.storage_offset)
    return JoinedTensor(first.dtype, shape, stride, first.storage, 0, tuple(pieces))


def cut(pieces: Sequence[StoredTensor], start: int, length: int) -> list[StoredTensor]:
    """Take a run of elements out of the sequence that pieces make.

    Args:
        pieces: One-dimensional and contiguous.
        start: Index of the first element of the run in the whole sequence.
        length: How many; must lie inside.

    Returns:
        Views of the pieces that hold the run; never none, even if it is empty.
    """
    taken: list[StoredTensor] = []
    for piece in pieces:
        skip = min(start, piece.numel)
        size = min(length, piece.numel - skip)
        if size > 0 or (length == 0 and not taken):
            offset = piece.storage_offset + skip
            taken.append(StoredTensor(piece.dtype, (size,), (1,), piece.storage, offset))
        start -= skip
        length -= size
    return taken
