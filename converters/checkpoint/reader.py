"""Opens a checkpoint of any container, and hands out its tensors one at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal
from zlib import crc32

from converters.checkpoint.beside import Beside
from converters.checkpoint.file_audit import audit_file, require_no_code
from converters.checkpoint.legacy_container import MAGIC_NUMBER, read_legacy
from converters.checkpoint.pickle_reader import SkimmedPickle, read_pickle
from converters.checkpoint.safetensors_container import read_safetensors
from converters.checkpoint.sniff import (
    HEAD_SIZE,
    describe_wrong_file,
    is_tar,
    looks_like_safetensors,
)
from converters.checkpoint.source_file import Closing, SourceFile
from converters.checkpoint.values import Run, Storage, StoredTensor, Tree
from converters.checkpoint.zip_container import checksum_error, read_zip
from converters.checkpoint.zip_directory import ZIP_START
from converters.errors import InputError, StorageError, UnsafeInputError
from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

CHUNK_SIZE = 1 << 20
"""In bytes: large enough for the disk, small enough for the processor's cache."""

MAX_EXPANSION = 1 << 28
"""Bytes a tensor may take that repeats elements, as an expanded one does, beyond its storage."""

_PICKLE_START = b"\x80"  # of protocol 2 and later, which is what torch writes

Container = Literal["zip", "legacy", "safetensors"]


class Checkpoint(Closing):
    """An open checkpoint; a context manager that closes the file.

    Attributes:
        path: The file.
        container: How it is laid out.
        size: In bytes.
        tree: What it holds, keys as saved and in their order; of safetensors, tensors by name.
        metadata: The text a safetensors header carries beside its tensors; else empty.
        beside: What else lies beside it and says what it is.
        stamps: Of the files that hold the weights, which is this one; see :class:`SourceFile`.
    """

    def __init__(
        self, file: SourceFile, container: Container, tree: Tree, metadata: dict[str, str]
    ) -> None:
        self.path = file.path
        self.container: Container = container
        self.size = file.size
        self.tree = tree
        self.metadata = metadata
        self.beside = Beside()
        self.stamps = {file.path: file.stamp}
        self._file = file
        self._verified: set[int] = set()  # the offsets of storages whose checksum was right

    def chunks(self, tensor: StoredTensor, chunk_size: int = CHUNK_SIZE) -> Iterator[bytes]:
        """Yield the elements in row-major order, little-endian, without gaps.

        One chunk at a time is in memory, unless the tensor is a view that is not contiguous, of
        which all is. The first time a storage is met, its checksum is compared, where it has one;
        in most cases on the way, so the error may come behind the last chunk.

        Args:
            tensor: One of this checkpoint's.
            chunk_size: Bytes in each chunk but the last.

        Raises:
            InputError: The checksum is wrong.
            StorageError: The file cannot be read or has changed.
        """
        runs = tensor.runs
        if runs is None:
            data = self.array(tensor).reshape(-1).view("|u1")
            for start in range(0, data.size, chunk_size):
                yield data[start : start + chunk_size].tobytes()
        elif tensor.nbytes == tensor.storage.length:
            yield from self._verified_chunks(tensor.storage, chunk_size)
        else:
            self.verify(tensor)
            yield from self._read(runs[0], chunk_size)

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor as an array of its shape with memory of its own, in C order.

        The dtype is NumPy's equal of the tensor's; bfloat16 and the eight-bit floats, which NumPy
        lacks, come as unsigned integers of the same bits.

        Raises:
            InputError: The checksum is wrong, or the tensor repeats few elements without measure.
            StorageError: The file cannot be read or has changed.
        """
        import numpy as np

        dtype = np.dtype(ELEMENT_TYPES[tensor.dtype].numpy)
        if tensor.is_contiguous:
            return np.frombuffer(self._bytes(tensor), dtype).reshape(tensor.shape)
        if tensor.nbytes > max(tensor.storage.length, MAX_EXPANSION):
            raise InputError(
                f"{self._file.name}, {tensor.storage.label}: expands to {tensor.nbytes} bytes from "
                f"{tensor.storage.length}; save the tensor with .contiguous()."
            )
        covered = StoredTensor(
            tensor.dtype, (tensor.span,), (1,), tensor.storage, tensor.storage_offset
        )
        flat = np.frombuffer(self._bytes(covered), dtype)
        steps = [step * tensor.itemsize for step in tensor.stride]
        view = np.lib.stride_tricks.as_strided(flat, tensor.shape, steps)
        return np.array(view, order="C")

    def verify(self, tensor: StoredTensor) -> None:
        """Compare the checksum of a tensor's storage, if it has one and was not compared yet.

        Raises:
            InputError: The checksum is wrong.
            StorageError: The file cannot be read or has changed.
        """
        if tensor.storage.crc32 is not None and tensor.storage.offset not in self._verified:
            for _ in self._verified_chunks(tensor.storage, CHUNK_SIZE):
                pass

    def source_file(self, _: Path) -> SourceFile:
        """Return the open file, for who reads :attr:`StoredTensor.runs` without checksums."""
        return self._file

    def close(self) -> None:
        """Close the file; tensors can no longer be read."""
        self._file.close()

    def _bytes(self, tensor: StoredTensor) -> bytearray:
        """Return the bytes of a contiguous tensor; a bytearray, so that the array is writable."""
        data = bytearray(tensor.nbytes)
        position = 0
        for chunk in self.chunks(tensor):
            data[position : position + len(chunk)] = chunk
            position += len(chunk)
        return data

    def _verified_chunks(self, storage: Storage, chunk_size: int) -> Iterator[bytes]:
        checksum = 0
        pending = storage.crc32 is not None and storage.offset not in self._verified
        for chunk in self._read(storage, chunk_size):
            if pending:
                checksum = crc32(chunk, checksum)
            yield chunk
        if pending:
            if checksum != storage.crc32:
                raise checksum_error(storage)
            self._verified.add(storage.offset)

    def _read(self, run: Run, chunk_size: int) -> Iterator[bytes]:
        for piece in run.pieces(chunk_size):
            yield self._file.read(piece.offset, piece.length)
        self._file.require_unchanged()


def open_checkpoint(path: Path, *, audited: bool = False) -> Checkpoint:
    """Open a file that holds weights: torch's zip or legacy container, or safetensors.

    Only what describes the tensors is read, and nothing the file names is imported or called.

    Args:
        path: The file; its name and ending do not matter.
        audited: Whether the caller has followed the pickles in it already. Otherwise it is done for
            what is no checkpoint, since that may be an attack on other programs.

    Returns:
        The checkpoint; use it with ``with``, or close it.

    Raises:
        InputError: It is missing, damaged, or something else than a checkpoint.
        UnsafeInputError: It would run code in other programs, or they would disagree on it.
        StorageError: It may not be read, reading fails, or it changes meanwhile.
    """
    file = SourceFile(path)
    with file.closed_on_error():
        try:
            try:
                return _open(file)
            except InputError:
                if not audited:
                    require_no_code(audit_file(file))
                raise
        except OSError as error:
            raise StorageError(f"{file.name}: cannot be read ({error.strerror}).") from error


def _require_nothing_else(file: SourceFile, head: bytes) -> None:
    """Check that a safetensors file is no legacy or tar archive besides, which torch would load.

    Its first eight bytes may be the beginning of a text for a pickle, and its header that text.
    Many are a pickle by chance, of nothing in particular; torch goes on where the first pickle in a
    file is its magic number.

    Raises:
        UnsafeInputError: It is.
    """
    also = "a tar archive"
    if not is_tar(head):
        also = "a pickle"
        pickle = SkimmedPickle(file.stream, 0, file.size, file.name)
        try:
            found = read_pickle(pickle)
        except InputError:
            return
        if found != MAGIC_NUMBER:
            return
    raise UnsafeInputError(
        f"{file.name}: is a safetensors file and {also} in one, so that programs may disagree on "
        "its content; get the checkpoint from a source you trust."
    )


def _open(file: SourceFile) -> Checkpoint:
    head = file.read(0, min(HEAD_SIZE, file.size))
    if head.startswith(ZIP_START):
        return Checkpoint(file, "zip", read_zip(file), {})
    if looks_like_safetensors(head):
        _require_nothing_else(file, head)
        tensors, metadata = read_safetensors(file)
        return Checkpoint(file, "safetensors", tensors, metadata)
    what = describe_wrong_file(head)
    if what is not None:
        raise InputError(f"{file.name}: {what}.")
    try:
        return Checkpoint(file, "legacy", read_legacy(file), {})
    except InputError as error:
        if head.startswith(_PICKLE_START):
            raise
        # Pickles of protocol 0 begin with any letter, so whatever is unknown was tried as one: an
        # attack in that form has ended as unsafe by now, and the rest is no pickle at all.
        raise InputError(
            f"{file.name}: is no checkpoint of a known kind; name a file that torch.save or "
            "safetensors wrote."
        ) from error
