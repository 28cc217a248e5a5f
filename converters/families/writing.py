"""The bytes of a file as ``torch.save`` writes it, and of a tensor in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from converters.checkpoint.torch_archive import TorchArchive
from converters.checkpoint.torch_pickle import opcodes, program

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path
    from typing import BinaryIO

    from converters.checkpoint import AnyCheckpoint, StoredTensor
    from converters.checkpoint.torch_pickle import Value

_ARCHIVE_ROOT = "archive"
_ARCHIVE_VERSION = b"3\n"
"""Of torch's zip container, since torch 1.6; see its ``caffe2/serialize/versions.h``."""


def save_archive(
    place: Path | BinaryIO,
    tree: dict[str, Value],
    elements: Iterable[tuple[int, Iterable[bytes]]],
) -> None:
    """Write a zip as ``torch.save`` does, front to back.

    Args:
        place: A path, created or replaced; or a file open for writing, which is closed in the end.
        tree: What ``torch.load`` is to give; its tensors are called "0", "1" and so on.
        elements: Of the tensors in that order: how many bytes, and the bytes. Each is asked for
            when the file stands where the bytes belong.

    Raises:
        InputError: If a tensor is of a dtype that no RegNet computes in.
        OSError: If the file cannot be written.
    """
    content = program(opcodes(tree))
    with TorchArchive(place, _ARCHIVE_ROOT) as archive:
        archive.add("data.pkl", len(content), [content])
        archive.add("byteorder", len(b"little"), [b"little"])
        for key, (size, chunks) in enumerate(elements):
            archive.add(f"data/{key}", size, chunks)
        archive.add("version", len(_ARCHIVE_VERSION), [_ARCHIVE_VERSION])


def tensor_chunks(
    checkpoint: AnyCheckpoint, tensor: StoredTensor, *, flip: bool
) -> Iterable[bytes]:
    """The bytes of a tensor, its second axis reversed if ``flip``."""
    if not flip:
        return checkpoint.chunks(tensor)
    return [checkpoint.array(tensor)[:, ::-1].tobytes()]
