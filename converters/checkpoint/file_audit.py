"""Every pickle in a file, wherever it is: what other programs would run of it.

Loaders open more than they seem to: an archive in an archive, a compressed file, an array of
objects. So they are looked for in all of these, within bounds, and whatever the file claims to be.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import zlib
from collections import Counter
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from converters.checkpoint.pickle_audit import Judgement, PickleAudit, audit_pickle
from converters.checkpoint.pickle_machine import ADVICE, MAX_OPCODES
from converters.checkpoint.pickle_reader import MAX_PICKLE, PickleSource
from converters.checkpoint.sniff import (
    HDF5_START,
    HEAD_SIZE,
    describe_wrong_file,
    is_tar,
    looks_like_keras,
    looks_like_mindspore,
    looks_like_msgpack,
    looks_like_safetensors,
)
from converters.checkpoint.source_file import Found, stream_of
from converters.checkpoint.zip_directory import ENCRYPTED, STORED, ZIP_START, ZipDirectory
from converters.errors import InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from converters.checkpoint.pickle_audit import Named
    from converters.checkpoint.source_file import ReadableAt
    from converters.checkpoint.zip_directory import Entry

    Running = tuple[PickleAudit, Named]

_MOST = 5
"""Pickles in a file that are followed: a legacy checkpoint begins with so many, an archive has one.

Each can keep a reader busy for some seconds, and entries of an archive can share their bytes.
"""

_DEEPEST = 3
"""Files in files that are looked into."""

_MAX_UNPACKED = 1 << 26
"""Bytes of a compressed file, or of an entry that is not named as a pickle, that are looked at."""

_MAX_LOOKED_AT = 1 << 28
"""Bytes of all such entries of an archive together."""

_BEGINNING = 1 << 16
"""Bytes of such an entry that tell whether to look at all of it."""

_MAX_INSTRUCTIONS = 2 * MAX_OPCODES
"""Of what is not named as a pickle, all together."""

_PICKLE_NAMES = (".pkl", ".pickle")
SCRIPT = ("constants.pkl", "code/")
"""How the names of entries begin that are in a TorchScript archive only."""

_NUMPY, _NUMPY_HEAD = b"\x93NUMPY", 12
_LEGACY = b"l\xfc\x9cF\xf9 j\xa8P\x19."  # how the first pickle of torch.save before 1.6 ends


@dataclass(frozen=True, slots=True)
class FileAudit:
    """What is in a file.

    Attributes:
        kind: What it is: ``zip``, ``torchscript``, ``pickle``, ``safetensors``, ``keras``,
            ``hdf5``, ``msgpack``, ``mindspore``, ``onnx`` or ``numpy``, which archives of arrays
            are too.
        pickles: What each pickle in it would do.
        notes: What else is to be known, a clause each.
        of_torch: Whether it is laid out as torch's files are; such hold objects of trainers' own
            classes, and TorchScript of its own.
    """

    kind: str
    pickles: tuple[PickleAudit, ...]
    notes: tuple[str, ...] = ()
    of_torch: bool = False

    @property
    def running(self) -> list[Running]:
        """What would run code, and the pickle it is in."""
        return [(pickle, named) for pickle in self.pickles for named in pickle.running]

    def require_no_code(self, *, foreign: bool) -> None:
        """Refuse what would run code in programs that open the file; the worst of it is named.

        Args:
            foreign: Whether unknown packages count, and not only what is there to run code.

        Raises:
            UnsafeInputError: It would.
        """
        unsafe = Judgement.UNSAFE
        running = [one for one in self.running if foreign or one[1].judgement is unsafe]
        if not running:
            return
        pickle, worst = min(
            running, key=lambda one: (one[1].judgement is not unsafe, not one[1].spelled)
        )
        more = f" and {len(running) - 1} more" if len(running) > 1 else ""
        raise UnsafeInputError(
            f"{pickle.place}: would run code in programs that unpickle it: {worst.name} at "
            f"byte {worst.position}{more}; nothing was run, {ADVICE}."
        )


def audit_file(file: ReadableAt) -> FileAudit:
    """Follow every pickle in a file, whatever it seems to be.

    Raises:
        StorageError: It cannot be read.
    """
    head = file.read(0, min(HEAD_SIZE, file.size))
    looker = _Looker()
    if head.startswith(ZIP_START):
        entries, found = looker.in_zip(file, 0)
        of_torch = "data.pkl" in {entry.inside for entry in entries}
        notes = tuple(_zip_notes(entries))
        return FileAudit(_kind_of_zip(entries, head), tuple(found), notes, of_torch)
    kind = "pickle"
    if looks_like_safetensors(head):
        kind = "safetensors"
    elif head.startswith(_NUMPY):
        kind = "numpy"
    elif head.startswith(HDF5_START):
        kind = "hdf5"
    elif looks_like_msgpack(head):
        kind = "msgpack"
    elif (describe_wrong_file(head) or "").startswith("is a protobuf file"):
        kind = "onnx"
    elif looks_like_mindspore(head):
        kind = "mindspore"
    pickles = tuple(looker.in_stream(file, 0))
    return FileAudit(kind, pickles, of_torch=_LEGACY in head[:32])


def _kind_of_zip(entries: Sequence[Entry], head: bytes) -> str:
    """What an archive is, as :class:`FileAudit` has it."""
    if any(entry.inside.startswith(SCRIPT) for entry in entries):
        return "torchscript"
    if looks_like_keras(head):
        return "keras"
    is_numpy = entries and all(entry.name.endswith(".npy") for entry in entries)
    return "numpy" if is_numpy else "zip"


def require_no_code_beside(file: ReadableAt, directory: ZipDirectory, known: Sequence[str]) -> None:
    """Refuse an archive with a pickle that is there to run code, beside what a checkpoint has.

    Args:
        file: The archive.
        directory: Its entries.
        known: The names of those that are read or are no pickles, below the folder of the archive,
            and of folders of such, which end with a slash.

    Raises:
        UnsafeInputError: It has one.
    """
    folders = tuple(name for name in known if name.endswith("/"))
    others = [
        entry
        for entry in directory.entries
        if entry.inside not in known and not entry.inside.startswith(folders)
    ]
    pickles = tuple(_Looker().in_entries(file, directory, others, 0))
    FileAudit("zip", pickles).require_no_code(foreign=False)


class _Looker:
    """Goes through a file and all that is in it."""

    def __init__(self) -> None:
        self._bytes = _MAX_LOOKED_AT
        self._instructions = _MAX_INSTRUCTIONS

    def in_zip(self, file: ReadableAt, depth: int) -> tuple[Sequence[Entry], list[PickleAudit]]:
        """The entries of an archive, and the pickles in them."""
        try:
            directory = ZipDirectory(file)
        except (InputError, UnsafeInputError):
            return (), []  # the reader says more
        entries = directory.entries
        beside = "data.pkl" in {entry.inside for entry in entries}
        # Beside data.pkl are the bytes of tensors.
        looked_at = [e for e in entries if not (beside and e.inside.startswith("data/"))]
        return entries, list(self.in_entries(file, directory, looked_at, depth))

    def in_entries(
        self, file: ReadableAt, directory: ZipDirectory, entries: Sequence[Entry], depth: int
    ) -> Iterator[PickleAudit]:
        """The pickles in entries; those that are named so count even if they cannot be followed."""

        def found_in(entry: Entry, most: int) -> Found:
            return Found(f"{file.name}, {printable(entry.name)}", directory.content(entry, most))

        named = [entry for entry in entries if entry.name.lower().endswith(_PICKLE_NAMES)]
        for entry in named[:_MOST]:
            yield audit_pickle(PickleSource(found_in(entry, MAX_PICKLE)))
        if len(named) > _MOST:
            yield PickleAudit(file.name, (), f"its first {_MOST} pickles of {len(named)}")
        for entry in entries:
            if entry.name.lower().endswith(_PICKLE_NAMES):
                continue
            found = found_in(entry, _BEGINNING)
            self._bytes -= found.size
            if found.size == _BEGINNING and self._goes_on(found):
                found = found_in(entry, max(_BEGINNING, min(self._bytes, _MAX_UNPACKED)))
                self._bytes -= found.size
            yield from self._in_found(found, depth + 1)
            if tired := self._tired(file):
                yield tired
                return

    def _tired(self, file: ReadableAt) -> PickleAudit | None:
        """What is said where no more is looked at."""
        if min(self._bytes, self._instructions) > 0:
            return None
        return PickleAudit(file.name, (), f"the first {_MAX_LOOKED_AT} bytes in it")

    def _audit(self, source: PickleSource) -> PickleAudit:
        audit = audit_pickle(source, max(self._instructions, 1))
        self._instructions -= audit.instructions
        return audit

    def _goes_on(self, found: Found) -> bool:
        """Whether something that may hold a pickle is not at its end where its beginning is."""
        if found.data.startswith(_HOLDING) or is_tar(found.data):
            return True
        source = PickleSource(found, _array_header(found))
        self._audit(source)
        return source.exhausted

    def in_stream(self, file: ReadableAt, depth: int) -> Iterator[PickleAudit]:
        """The pickles in what is no zip archive."""
        head = file.read(0, min(HEAD_SIZE, file.size))
        yield from self._stacked(file)
        if is_tar(head):
            yield from self._in_tar(file, depth)
        if head.startswith(_COMPRESSED):
            yield from self._in_found(Found(file.name, _unpacked(file, head)), depth + 1)

    def _in_found(self, found: Found, depth: int) -> Iterator[PickleAudit]:
        if depth > _DEEPEST:
            return
        if found.data.startswith(ZIP_START):
            yield from self.in_zip(found, depth)[1]
        else:
            yield from self.in_stream(found, depth)

    def _stacked(self, file: ReadableAt) -> Iterator[PickleAudit]:
        """The pickles one after another in a file; what seems to be none is left out."""
        source = PickleSource(file, _array_header(file))
        for _ in range(_MOST):
            audit = self._audit(source)
            if audit.lost is None or _is_pickle(audit):
                yield audit
            if audit.lost is not None or source.tell() == file.size:
                return

    def _in_tar(self, file: ReadableAt, depth: int) -> Iterator[PickleAudit]:
        """The pickles in a tar archive, as torch before 0.2 wrote."""
        try:
            with tarfile.open(fileobj=stream_of(file), mode="r:") as archive:
                for member in archive:
                    content = archive.extractfile(member) if member.isreg() else None
                    data = content.read(min(self._bytes, _MAX_UNPACKED)) if content else b""
                    self._bytes -= len(data) + tarfile.BLOCKSIZE
                    label = f"{file.name}, {printable(member.name)}"
                    yield from self._in_found(Found(label, data), depth + 1)
                    if tired := self._tired(file):
                        yield tired
                        return
        except (tarfile.TarError, OSError, ValueError):
            return


def _array_header(file: ReadableAt) -> int:
    """Where the elements of an array of NumPy begin, a pickle if they are objects; else 0.

    Source: numpy/lib/format.py.
    """
    head = file.read(0, min(_NUMPY_HEAD, file.size))
    if not head.startswith(_NUMPY):
        return 0
    start = 10 if head[6:7] == b"\x01" else _NUMPY_HEAD
    return min(start + int.from_bytes(head[8:start], "little"), file.size)


def _is_pickle(audit: PickleAudit) -> bool:
    """Whether what could not be followed to its end is a pickle, and not a text or mere numbers.

    ``c`` at the beginning of a line of text is the instruction to import what two lines name, and
    one number in a hundred begins as some instruction.
    """
    if audit.marked:
        return bool(audit.names)
    return any(
        named.spelled and (named.used or named.judgement is Judgement.UNSAFE)
        for named in audit.names
    )


def _inflated(stream: IO[bytes]) -> io.BytesIO:
    packed = stream.read(_MAX_UNPACKED)
    return io.BytesIO(zlib.decompressobj().decompress(packed, _MAX_UNPACKED))


_UNPACKERS: dict[bytes, Callable[[IO[bytes]], io.BufferedIOBase]] = {
    b"\x1f\x8b": lambda stream: gzip.GzipFile(fileobj=stream),
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
    b"]\x00\x00": lzma.LZMAFile,
    **{b"x" + level: _inflated for level in (b"\x01", b"\x5e", b"\x9c", b"\xda")},
}
"""By how the file begins: what joblib and pandas unpack by themselves."""

_COMPRESSED = tuple(_UNPACKERS)
_HOLDING = (ZIP_START, *_COMPRESSED)


def _unpacked(file: ReadableAt, head: bytes) -> bytes:
    """What a compressed file holds, as far as it can be unpacked."""
    unpacker = next(unpack for start, unpack in _UNPACKERS.items() if head.startswith(start))
    pieces = []
    left = _MAX_UNPACKED
    try:
        with unpacker(stream_of(file)) as unpacked:
            while left > 0 and (piece := unpacked.read1(min(left, _BEGINNING))):
                pieces.append(piece)
                left -= len(piece)
    except (EOFError, OSError, ValueError, lzma.LZMAError, zlib.error):
        pass  # what came before counts
    return b"".join(pieces)


def _zip_notes(entries: Sequence[Entry]) -> Iterator[str]:
    for name, times in Counter(entry.name for entry in entries).items():
        if times > 1:
            yield f"{times} entries are called {printable(name)}; programs take one or the other"
    for entry in entries:
        name = printable(entry.name)
        if entry.flags & ENCRYPTED:
            yield f"{name} is marked as encrypted, at which scanners stop and torch does not"
        if entry.method != STORED:
            yield f"{name} is compressed, {entry.stored} bytes to {entry.size}"
