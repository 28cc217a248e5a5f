"""Opens a checkpoint of any container, and hands out its tensors one at a time.

Each container is imported when a file of its kind is read.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.pickle_reader import PickleSource, SkimmedPickle, read_pickle
from converters.checkpoint.pickled_modules import state_dicts_of
from converters.checkpoint.safetensors_container import read_safetensors
from converters.checkpoint.sniff import (
    HDF5_START,
    HEAD_SIZE,
    describe_wrong_file,
    is_protobuf,
    is_tar,
    looks_like_keras,
    looks_like_mindspore,
    looks_like_msgpack,
    looks_like_npz,
    looks_like_safetensors,
)
from converters.checkpoint.source_file import Closing, SourceFile, damaged
from converters.checkpoint.values import Beside, Run, Storage, StoredTensor, Tree
from converters.checkpoint.zip_directory import ZIP_START
from converters.errors import InputError, UnsafeInputError, printable
from regnet.files.dtypes import ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy as np

    from converters.checkpoint.graph import Graph
    from converters.checkpoint.source_file import Stamp

CHUNK_SIZE = 1 << 20
"""In bytes: large enough for the disk, small enough for the processor's cache."""

MAX_EXPANSION = 1 << 28
"""Bytes a tensor may take that repeats elements, as an expanded one does, beyond its storage."""

_PICKLE_START = b"\x80"  # of protocol 2 and later, which is what torch writes

_MAX_OPEN = 128
"""Files held open at once; a system may allow no more than 256."""


class Checkpoint(Closing):
    """An open checkpoint, of one file or of several; a context manager that closes them.

    Attributes:
        path: What was named: the file, the folder of several, or one of these.
        container: How it is laid out: ``zip``, ``legacy``, ``pickle`` (one of NumPy's arrays),
            ``npz``, ``safetensors``, ``keras``, ``hdf5``, ``msgpack``, ``mindspore``, ``onnx`` or
            ``pt2`` or ``torchscript``; several files as ``folder``, ``shard_list``, ``slice_list``
            or ``distributed``.
        tree: What it holds, keys as saved and in their order; of safetensors, tensors by name, and
            of a module that was pickled whole its state dict.
        modules: The classes of such modules, by the keys that lead to each.
        metadata: The text that a safetensors header or an exported file carries beside its tensors,
            and of a ``.keras`` archive its description; else empty.
        graph: The network of an exported file, which says what its tensors are for; else None.
        beside: What else lies beside it and says what it is.
        stamps: Of its files, in the order in which they were opened; see :class:`SourceFile`.

    Raises:
        InputError: From what reads a tensor: its checksum is wrong.
        StorageError: From any method, the file cannot be read or has changed.
    """

    def __init__(
        self,
        path: Path,
        container: str,
        tree: Tree = None,
        file: SourceFile | None = None,
        metadata: dict[str, str] | None = None,
    ) -> None:
        self.path = path
        self.container = container
        self.tree, self.modules = state_dicts_of(tree, printable(path.name))
        self.metadata = metadata or {}
        self.graph: Graph | None = None
        self.beside = Beside()
        self.stamps: dict[Path, Stamp] = {}
        self._open: OrderedDict[Path, SourceFile] = OrderedDict()
        self._verified: set[Storage] = set()
        if file is not None:
            self.hold(file)

    @property
    def size(self) -> int:
        """Of all its files, in bytes."""
        return sum(size for size, _ in self.stamps.values())

    def add(self, path: Path) -> Checkpoint:
        """Open one file more, which is closed with the others, and return what it holds.

        Raises:
            ConversionError: See :func:`open_checkpoint`.
        """
        added = open_checkpoint(path)
        self.hold(added.source_file(path))
        return added

    def open_more(self, path: Path) -> SourceFile:
        """Open one file more, to be read by whoever knows what is in it.

        Raises:
            InputError: There is no such file, or it is none.
        """
        file = SourceFile(path)
        self.hold(file)
        return file

    def chunks(self, tensor: StoredTensor) -> Iterator[bytes]:
        """Yield the elements in row-major order, little-endian, without gaps.

        :data:`CHUNK_SIZE` bytes at a time are in memory, unless the tensor is a view that is not
        contiguous, or joined of blocks, of which all is. The first time a storage is met, its
        checksum is compared, where it has one; in most cases on the way, so the error may come
        behind the last chunk.

        Args:
            tensor: One of this checkpoint's.
        """
        runs = tensor.runs
        if runs is None:
            flat, step = self._view(tensor).flat, max(1, CHUNK_SIZE // tensor.itemsize)
            for start in range(0, tensor.numel, step):
                yield flat[start : start + step].tobytes()
            return
        for part, run in zip(tensor.parts, runs, strict=True):
            if part.nbytes == part.storage.length:
                yield from self._verified_chunks(part.storage)
            else:
                self.verify(part)
                yield from self._read(run)

    def array(self, tensor: StoredTensor) -> np.ndarray:
        """Return a tensor as an array of its shape with memory of its own, in C order.

        The dtype is NumPy's equal of the tensor's; bfloat16 and the eight-bit floats, which NumPy
        lacks, come as unsigned integers of the same bits.

        Raises:
            InputError: Also where the tensor repeats few elements without measure.
        """
        import numpy as np

        return np.array(self._view(tensor), order="C", copy=not tensor.is_contiguous)

    def verify(self, tensor: StoredTensor) -> None:
        """Compare the checksums of a tensor's storages, where they have some not compared yet."""
        for part in tensor.parts:
            if self._is_pending(part.storage):
                for _ in self._verified_chunks(part.storage):
                    pass

    def source_file(self, path: Path) -> SourceFile:
        """Return one of the files, for who reads :attr:`StoredTensor.runs` without checksums.

        It is open until others were asked for; of too many, the one unused for longest is closed.
        """
        if path not in self._open:
            file = SourceFile(path)
            with file.closed_on_error():
                file.require_stamp(self.stamps[path])
            self.hold(file)
        self._open.move_to_end(path)
        return self._open[path]

    def close(self) -> None:
        """Close every file; tensors can no longer be read."""
        while self._open:
            self._open.popitem()[1].close()

    def hold(self, file: SourceFile) -> None:
        """Take over an open file, which is closed with the others."""
        self.stamps[file.path] = file.stamp
        self._open[file.path] = file
        if len(self._open) > _MAX_OPEN:
            self._open.popitem(last=False)[1].close()

    def _view(self, tensor: StoredTensor) -> np.ndarray:
        """A tensor as a view of its bytes as they lie."""
        import numpy as np

        dtype = np.dtype(ELEMENT_TYPES[tensor.dtype].numpy)
        if tensor.corners:
            whole = np.empty(tensor.shape, dtype)
            for corner, piece in zip(tensor.corners, tensor.pieces, strict=True):
                ends = map(int.__add__, corner, piece.shape)
                whole[tuple(map(slice, corner, ends))] = self._view(piece)
            return whole
        if tensor.is_contiguous:
            return np.frombuffer(self._bytes(tensor), dtype).reshape(tensor.shape)
        held = sum(part.storage.length for part in tensor.parts)
        if tensor.nbytes > max(held, MAX_EXPANSION):
            storage = tensor.storage
            raise InputError(
                f"{printable(storage.path.name)}, {storage.label}: expands to {tensor.nbytes} "
                f"bytes from {held}; save the tensor with .contiguous()."
            )
        covered = replace(tensor, shape=(tensor.span,), stride=(1,))
        flat = np.frombuffer(self._bytes(covered), dtype)
        steps = [step * tensor.itemsize for step in tensor.stride]
        return np.lib.stride_tricks.as_strided(flat, tensor.shape, steps)

    def _bytes(self, tensor: StoredTensor) -> bytearray:
        """Return the bytes of a contiguous tensor; a bytearray, so that the array is writable."""
        if any(part.storage.is_text for part in tensor.parts):
            return bytearray().join(
                self._encoded(part) if part.storage.is_text else self._bytes(part)
                for part in tensor.parts
            )
        data = bytearray(tensor.nbytes)
        position = 0
        for chunk in self.chunks(tensor):
            data[position : position + len(chunk)] = chunk
            position += len(chunk)
        return data

    def _encoded(self, tensor: StoredTensor) -> bytearray:
        """Return the bytes of a contiguous tensor that the file has as text."""
        storage, where = tensor.storage, printable(tensor.storage.path.name)
        text = b"".join(self._read(storage))
        try:
            data = text.decode().encode("latin-1")
        except UnicodeError as error:
            what = f"is damaged, {storage.label} is no text that stands for bytes"
            raise damaged(where, what) from error
        start = tensor.storage_offset * tensor.itemsize
        if len(data) < start + tensor.nbytes:
            what = f"is damaged, {storage.label} has {len(data)} bytes, fewer than its shape needs"
            raise damaged(where, what)
        return bytearray(memoryview(data)[start : start + tensor.nbytes])

    def _is_pending(self, storage: Storage) -> bool:
        return storage.crc32 is not None and storage not in self._verified

    def _verified_chunks(self, storage: Storage) -> Iterator[bytes]:
        checksum = 0
        pending = self._is_pending(storage)
        for chunk in self._read(storage):
            if pending:
                checksum = crc32(chunk, checksum)
            yield chunk
        if pending:
            if checksum != storage.crc32:
                from converters.checkpoint.zip_container import checksum_error

                raise checksum_error(storage)
            self._verified.add(storage)

    def _read(self, run: Run) -> Iterator[bytes]:
        for piece in run.pieces(CHUNK_SIZE):
            yield self.source_file(run.path).read(piece.offset, piece.length)
        self.source_file(run.path).require_unchanged()


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a file of weights: of torch, NumPy, safetensors, Keras, HDF5, msgpack or MindSpore.

    Only what describes the tensors is read, and nothing the file names is imported or called.

    Args:
        path: The file; its name and ending do not matter. Where it is no checkpoint, the pickles in
            it are followed, since it may be an attack on other programs.

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
            return read_checkpoint(file)
        except InputError:
            from converters.checkpoint.file_audit import audit_file

            audit = audit_file(file)
            # Of a damaged checkpoint only what is there to run code counts: honest ones have the
            # classes of a trainer too.
            audit.require_no_code(foreign=not audit.of_torch)
            raise


def _require_nothing_else(file: SourceFile, head: bytes, kind: str) -> None:
    """Check that a file is no legacy or tar archive besides, which torch would load.

    A safetensors' first eight bytes may be the beginning of a text for a pickle, and its header
    that text, and likewise a msgpack's first and the key behind it.
    Many are a pickle by chance, of nothing in particular; torch goes on where the first pickle in a
    file is its magic number.

    Raises:
        UnsafeInputError: It is.
    """
    also = "a tar archive"
    if not is_tar(head):
        also = "a pickle"
        pickle = SkimmedPickle(file)
        try:
            found = read_pickle(pickle)
        except InputError:
            return
        except UnsafeInputError:
            if _calls_nothing(file):
                return
            raise
        from converters.checkpoint.legacy_container import MAGIC_NUMBER

        if found != MAGIC_NUMBER:
            return
    raise UnsafeInputError(
        f"{file.name}: is {kind} file and {also} in one, so that programs may disagree on "
        "its content; get the checkpoint from a source you trust."
    )


def _calls_nothing(file: SourceFile) -> bool:
    """Whether what a file begins with, as a pickle, breaks off before anything is named or called.

    A length or a map may begin with the opcode of an extension, which looks up what the program
    that loads it has registered, and no more: most of Flax's files do, and some of MLX's.
    """
    from converters.checkpoint.pickle_audit import audit_pickle

    audit = audit_pickle(PickleSource(file))
    return audit.lost is not None and not any(named.spelled or named.used for named in audit.names)


def _read_arrays(file: SourceFile) -> Tree | None:
    """What a pickle holds that torch did not write, if NumPy's arrays are in it.

    Raises:
        InputError: It is damaged, or goes on behind its end.
        UnsafeInputError: It would run code in other programs.
    """
    source = PickleSource(file)
    tree = read_pickle(source)
    file.require_unchanged()
    if not _has_tensor(tree):
        return None
    from converters.checkpoint.pickle_arrays import without_names

    without_names(tree)
    if source.tell() != file.size:
        what = f"goes on behind its end, it has {file.size} bytes and should have {source.tell()}"
        raise damaged(file.name, what)
    return tree


def _has_tensor(tree: Tree) -> bool:
    """Whether there is one in containers, which do not nest without end."""
    pending = [tree]
    while pending:
        value = pending.pop()
        if isinstance(value, StoredTensor):
            return True
        if isinstance(value, dict | list | tuple):
            pending.extend(value.values() if isinstance(value, dict) else value)
    return False


def read_checkpoint(file: SourceFile) -> Checkpoint:
    """Read what describes the tensors in an open file; errors are those of `open_checkpoint`."""
    head = file.read(0, min(HEAD_SIZE, file.size))
    if looks_like_npz(head):
        from converters.checkpoint.numpy_container import read_npz

        arrays = read_npz(file)
        if arrays is not None:
            return Checkpoint(file.path, "npz", arrays, file)
    if looks_like_keras(head):
        from converters.checkpoint.keras_archive import read_keras

        tree, metadata = read_keras(file)
        return Checkpoint(file.path, "keras", tree, file, metadata)
    if head.startswith(ZIP_START):
        return _zip_checkpoint(file)
    plain = _without_pickles(file, head)
    if plain is not None:
        return plain
    what = describe_wrong_file(head)
    if what is not None:
        raise InputError(f"{file.name}: {what}.")
    if looks_like_mindspore(head):
        from converters.checkpoint.mindspore_container import read_mindspore

        return Checkpoint(file.path, "mindspore", read_mindspore(file), file)
    return _read_pickles(file, head)


def _read_pickles(file: SourceFile, head: bytes) -> Checkpoint:
    """Read a file that begins with a pickle, if it is anything."""
    try:
        arrays = _read_arrays(file)
        if arrays is not None:
            return Checkpoint(file.path, "pickle", arrays, file)
        from converters.checkpoint.legacy_container import read_legacy

        return Checkpoint(file.path, "legacy", read_legacy(file), file)
    except InputError as error:
        if head.startswith(_PICKLE_START):
            raise
        # Pickles of protocol 0 begin with any letter, so whatever is unknown was tried as one: an
        # attack in that form has ended as unsafe by now, and the rest is no pickle at all.
        raise InputError(
            f"{file.name}: is no checkpoint of a known kind; name a file that torch.save or "
            "safetensors wrote."
        ) from error


def _without_pickles(file: SourceFile, head: bytes) -> Checkpoint | None:
    """Read a file of a container that has no pickle in it; None if it is of none."""
    if head.startswith(HDF5_START):
        from converters.checkpoint.hdf5_container import read_hdf5

        _require_nothing_else(file, head, "an HDF5")
        return Checkpoint(file.path, "hdf5", read_hdf5(file), file)
    if looks_like_msgpack(head):
        from converters.checkpoint.msgpack_container import read_msgpack

        _require_nothing_else(file, head, "a msgpack")
        return Checkpoint(file.path, "msgpack", read_msgpack(file), file)
    if looks_like_safetensors(head):
        _require_nothing_else(file, head, "a safetensors")
        tensors, metadata = read_safetensors(file)
        return Checkpoint(file.path, "safetensors", tensors, file, metadata)
    if is_protobuf(head):
        _require_nothing_else(file, head, "an ONNX")
        return _onnx_checkpoint(file)
    return None


def _zip_checkpoint(file: SourceFile) -> Checkpoint:
    from converters.checkpoint.pt2_container import is_pt2, read_pt2
    from converters.checkpoint.zip_container import ZipArchive, read_archive

    archive = ZipArchive(file)
    if is_pt2(archive.directory):
        contents = read_pt2(file, archive.directory)
        checkpoint = Checkpoint(file.path, "pt2", contents.tree, file, archive.stated())
        checkpoint.graph = contents.graph
        return checkpoint
    if not archive.is_script:
        return Checkpoint(file.path, "zip", read_archive(archive), file)
    from converters.checkpoint.script_container import read_script

    graph, tensors = read_script(archive)
    checkpoint = Checkpoint(file.path, "torchscript", tensors, file, archive.stated())
    checkpoint.graph = graph
    return checkpoint


def _onnx_checkpoint(file: SourceFile) -> Checkpoint:
    from converters.checkpoint.onnx_container import read_onnx

    contents = read_onnx(file)
    checkpoint = Checkpoint(file.path, "onnx", contents.tree, file, contents.metadata)
    checkpoint.graph = contents.graph
    for beside in contents.beside:
        checkpoint.hold(beside)
    return checkpoint
