"""What a checkpoint is made of once it is open: plain Python values, tensors, opaque notes.

Nothing here holds weights. A :class:`StoredTensor` only says where in the file its bytes lie.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

from regnet.files.dtypes import item_size
from regnet.files.json_file import PREPROCESSOR_NAME

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping, Sequence
    from pathlib import Path

MAX_AXES = 64
"""torch's and NumPy's own limit."""

MAX_SIZE = (1 << 63) - 1
"""Of an axis, a stride or an offset: what fits into their 64 bits."""


def contiguous_stride(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the row-major strides, in elements, of a tensor of ``shape``."""
    return tuple(prod(shape[axis + 1 :]) for axis in range(len(shape)))


@dataclass(frozen=True, slots=True)
class Run:
    """Bytes that lie one behind another in a file.

    Attributes:
        path: The file.
        offset: Where they begin, in bytes.
        length: How many they are.
    """

    path: Path
    offset: int
    length: int

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + self.length

    def pieces(self, size: int) -> Iterator[Run]:
        """Cut the run into pieces of ``size`` bytes; the last may be shorter."""
        for start in range(self.offset, self.end, size):
            yield Run(self.path, start, min(size, self.end - start))


@dataclass(frozen=True, slots=True)
class Storage(Run):
    """A run of raw little-endian bytes that tensors are views of.

    Attributes:
        crc32: The checksum the file states for the run; ``None`` where the format has none.
        label: What messages call it: ``"archive/data/17"``, ``"storage 94023"``, ``"tensor 'a'"``.
        is_text: Whether what lies in the file is a text in UTF-8, each of whose characters stands
            for the byte of its number, as pickles before protocol 3 write bytes. The run is that
            of the text, which may be twice as long.
    """

    crc32: int | None
    label: str
    is_text: bool = False


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A strided view of a :class:`Storage`, as torch defines it; or pieces of several, joined.

    FSDP cuts parameters into as many pieces as there were processes, others cut along any axis.

    Attributes:
        dtype: torch's name of the element type, without the ``torch.``.
        shape: The sizes.
        stride: For each axis, the step in elements.
        storage: The bytes.
        storage_offset: Index of the first element in the storage, in elements.
        pieces: Where its elements lie in several places one after another, as if those were one
            storage: one-dimensional tensors of the same dtype, with as many elements as it has
            together. The storage is then that of the first.
        corners: Where its pieces are blocks of it instead, with as many axes: the index of the
            first element of each. The stride is then that of the whole in memory.
    """

    dtype: str
    shape: tuple[int, ...]
    stride: tuple[int, ...]
    storage: Storage
    storage_offset: int
    pieces: tuple[StoredTensor, ...] = ()
    corners: tuple[tuple[int, ...], ...] = ()

    @property
    def numel(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def itemsize(self) -> int:
        """The size of an element, in bytes."""
        return item_size(self.dtype)

    @property
    def nbytes(self) -> int:
        """The bytes the tensor has when written without gaps."""
        return self.numel * self.itemsize

    @property
    def span(self) -> int:
        """How many elements of the storage lie between its first and its last one, inclusive."""
        if self.numel == 0:
            return 0
        steps = zip(self.shape, self.stride, strict=True)
        return 1 + sum((size - 1) * step for size, step in steps)

    @property
    def is_contiguous(self) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        expected = zip(self.shape, self.stride, contiguous_stride(self.shape), strict=True)
        return self.numel == 0 or all(size == 1 or step == row for size, step, row in expected)

    def permuted(self, axes: Sequence[int]) -> StoredTensor:
        """The same elements under axes of another order; nothing is moved.

        Args:
            axes: For each axis of the result, which of this tensor's it is.
        """
        if self.corners:
            corners = [tuple(corner[axis] for axis in axes) for corner in self.corners]
            pieces = [piece.permuted(axes) for piece in self.pieces]
            blocks = dict(zip(corners, pieces, strict=True))
            return join_blocks(blocks, tuple(self.shape[axis] for axis in axes))
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in axes),
            stride=tuple(self.stride[axis] for axis in axes),
        )

    @property
    def parts(self) -> tuple[StoredTensor, ...]:
        """The tensors of a single storage that it is made of."""
        return self.pieces or (self,)

    @property
    def runs(self) -> tuple[Run, ...] | None:
        """Where its bytes lie, in row-major order; None if they lie otherwise, or are a text."""
        parts = (self, *self.parts)
        if self.corners or not all(p.is_contiguous and not p.storage.is_text for p in parts):
            return None
        return tuple(
            Run(
                part.storage.path,
                part.storage.offset + part.storage_offset * part.itemsize,
                part.nbytes,
            )
            for part in self.parts
        )


def join(pieces: Sequence[StoredTensor], shape: tuple[int, ...]) -> StoredTensor:
    """Make one tensor of pieces, without reading any.

    Args:
        pieces: One-dimensional and contiguous, of one dtype, in order, at least one.
        shape: With as many elements as the pieces have together.
    """
    dtype, storage, offset = pieces[0].dtype, pieces[0].storage, pieces[0].storage_offset
    several = tuple(pieces) if len(pieces) > 1 else ()
    return StoredTensor(dtype, shape, contiguous_stride(shape), storage, offset, several)


def join_blocks(
    blocks: Mapping[tuple[int, ...], StoredTensor], shape: tuple[int, ...]
) -> StoredTensor:
    """Make one tensor of blocks, without reading any.

    Args:
        blocks: By the index of their first element in the whole: tensors of one dtype that fill
            ``shape`` without overlaps; at least one.
        shape: Of the whole.
    """
    corners = sorted(blocks)
    pieces = [blocks[corner] for corner in corners]
    if len(pieces) == 1:
        return pieces[0]
    across = any(any(corner[1:]) for corner in corners)
    if not across and all(piece.is_contiguous for piece in pieces):
        return join([_flat(piece) for piece in pieces], shape)
    first = pieces[0]
    return StoredTensor(
        first.dtype,
        shape,
        contiguous_stride(shape),
        first.storage,
        first.storage_offset,
        tuple(pieces),
        tuple(corners),
    )


def _flat(tensor: StoredTensor) -> StoredTensor:
    """A contiguous tensor as one of a single axis."""
    return StoredTensor(tensor.dtype, (tensor.numel,), (1,), tensor.storage, tensor.storage_offset)


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


@dataclass(slots=True, eq=False, repr=False)
class Opaque:
    """A note about an object that was not built, because building it would run foreign code.

    It is filled in while the pickle is read, hence not frozen, and equal to nothing but itself.
    In a message it is its name: what it holds may hold itself, or double with every level.

    Attributes:
        qualified_name: Module and name, such as ``"yacs.config.CfgNode"``.
        args: What it would have been called with; ``None`` for the class or function itself.
        kwargs: The same by name; almost always empty.
        items: What a subclass of dict contains.
        elements: What a subclass of list or set contains.
        state: What the object would have been given to restore itself; usually its ``__dict__``.
    """

    qualified_name: str
    args: tuple[Tree, ...] | None = None
    kwargs: dict[Hashable, Tree] = field(default_factory=dict)
    items: dict[Hashable, Tree] = field(default_factory=dict)
    elements: list[Tree] = field(default_factory=list)
    state: Tree = None

    def __repr__(self) -> str:
        return f"<{self.qualified_name}>"

    @property
    def fields(self) -> dict[Hashable, Tree]:
        """Attributes and items together: what an ``argparse.Namespace`` or ``CfgNode`` says."""
        attributes = self.state if isinstance(self.state, dict) else {}
        return {**attributes, **self.items}


@dataclass(frozen=True)
class Beside:
    """What a folder says of its weights.

    Attributes:
        config: The content of ``config.json``; empty if there is none.
        preprocessor: The settings of its image processor; empty if it has none.
        preprocessor_file: The name of the file that has them.
        ignored: What was not read: name to reason.
    """

    config: Mapping[str, Any] = field(default_factory=dict)
    preprocessor: Mapping[str, Any] = field(default_factory=dict)
    preprocessor_file: str = PREPROCESSOR_NAME
    ignored: Mapping[str, str] = field(default_factory=dict)


Tree: TypeAlias = (
    "dict[Hashable, Tree] | list[Tree] | tuple[Tree, ...] | set[Hashable] | frozenset[Hashable]"
    " | str | bytes | int | float | complex | bool | Storage | StoredTensor | Opaque | None"
)
