"""The zip archive that torch.save writes since 1.6: one pickle, and one entry for each storage.

Those of torch.jit.save are of the same layout, with code besides.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.file_audit import SCRIPT, require_no_code_beside
from converters.checkpoint.graph import INTERFACE, LABELS, PREPROCESSING
from converters.checkpoint.pickle_reader import MAX_PICKLE, PickleSource, read_pickle
from converters.checkpoint.source_file import Found, damaged
from converters.checkpoint.values import Storage, Tree
from converters.checkpoint.zip_directory import (
    ENCRYPTED,
    SIZES_FOLLOW,
    STORED,
    UTF8_NAME,
    Entry,
    ZipDirectory,
)
from converters.errors import ConversionError, InputError, UnsafeInputError, printable
from regnet.files.dtypes import item_size

if TYPE_CHECKING:
    from converters.checkpoint.source_file import FilePart, SourceFile

_PACKAGE = (".data/extern_modules",)
_PT2 = ("archive_format", "serialized_exported_program", "models/")

# (what an entry's name, without the archive's own folder, begins with; what the archive then is;
# the error: TorchScript runs in an interpreter of its own, the others could do anything)
_OTHER_ARCHIVES: tuple[tuple[tuple[str, ...], str, type[ConversionError]], ...] = (
    (SCRIPT, "a TorchScript archive, which is a program", InputError),
    (_PT2, "an exported program (.pt2), whose loader unpickles what it holds", UnsafeInputError),
    (_PACKAGE, "a torch.package archive, whose loader runs the code in it", UnsafeInputError),
)

_VERSION = ".data/version"

_OTHER_VERSION = "which is no version of the layout that is read; save the file again with torch"
_OTHER_ORDER = (
    "of which only 'little' is read; load the file with torch and save it again on another computer"
)
_LAYOUT: dict[str, tuple[bytes, str]] = {
    _VERSION: (rb"([1-9]|10)\n?", _OTHER_VERSION),
    "version": (rb"([1-9]|10)\n?", _OTHER_VERSION),
    ".storage_alignment": (rb"[1-9][0-9]{0,8}", "which is no number of bytes; download it again"),
    "byteorder": (rb"little", _OTHER_ORDER),
    ".data/serialization_id": (
        rb"[ -~]{0,64}",
        "which is no text that torch takes; download it again",
    ),
}
"""Entries that torch reads before all others (``load`` and ``_load`` in torch/serialization.py, and
caffe2/serialize/versions.h): what they may say, and what to say where they say something else."""

_MAX_LAYOUT = 64
"""In bytes, of what such an entry says."""

EXTRA = "extra/"
"""The folder of texts that torch.jit.save and torch.export.save keep for whoever saves."""

_MAX_STATED = 5_000_000
"""In bytes; the names of 21,000 classes take one million."""

OF_CHECKPOINTS = ("data.pkl", "data/", *_LAYOUT, ".format_version")
"""The entries that torch.save writes: one pickle, the bytes of tensors, short texts."""


def read_zip(file: SourceFile | FilePart) -> Tree:
    """Read what a zip checkpoint holds, without its storages.

    Args:
        file: The archive, or the part of a file that is one.

    Raises:
        InputError: It is truncated, damaged, or another kind of zip archive.
        UnsafeInputError: It names code to run, or different programs would read it differently.
    """
    return read_archive(ZipArchive(file))


def read_archive(archive: ZipArchive) -> Tree:
    """The same of an archive that is open."""
    archive.require_kind(script=False)
    tree = archive.unpickled("data")  # first, since it may be an attack
    archive.require_known_layout()
    require_no_code_beside(archive.file, archive.directory, OF_CHECKPOINTS)
    return tree


def checksum_error(storage: Storage) -> InputError:
    """Return the error for bytes that do not have the checksum the archive states for them."""
    what = "is damaged, its bytes do not have the checksum the file states"
    return damaged(f"{printable(storage.path.name)}, {storage.label}", what)


class ZipArchive:
    """An archive that torch.save or torch.jit.save wrote.

    Attributes:
        file: Where it is read from.
        directory: Its entries.
        is_script: Whether it is of torch.jit.save.

    Raises:
        InputError: It is truncated or damaged.
        UnsafeInputError: Different programs would find other entries in it.
    """

    def __init__(self, file: SourceFile | FilePart) -> None:
        self.file = file
        self._storages: dict[str, Storage] = {}
        self.directory = ZipDirectory(file)
        self.directory.require_one_reading()
        self._entries = {entry.name: entry for entry in self.directory.entries}
        # With `torch.serialization.set_crc32_options(False)` torch writes zeros for all of them.
        self._has_checksums = any(entry.crc32 for entry in self.directory.entries)
        inside = [entry.inside for entry in self.directory.entries]
        self.is_script = any(name.startswith(SCRIPT) for name in inside)
        self._folder = ""

    def require_kind(self, *, script: bool) -> None:
        """Check that it is of a kind, before anything in it is read.

        Raises:
            InputError: It is of another.
            UnsafeInputError: It is of one whose loader runs what is in it, or has several folders.
        """
        inside = [entry.inside for entry in self.directory.entries]
        for starts, what, error in _OTHER_ARCHIVES:
            if script and starts == SCRIPT:
                continue
            if any(name.startswith(starts) for name in inside):
                raise error(
                    f"{self.file.name}: is {what}; name a checkpoint with a state dict instead."
                )
        if "data.pkl" not in inside:
            raise InputError(
                f"{self.file.name}: is a zip archive but no checkpoint, for it has no data.pkl; "
                "if the checkpoint is inside, unpack it."
            )
        self._folder = self.directory.require_one_folder()

    def unpickled(self, name: str) -> Tree:
        """What ``NAME.pkl`` says; its tensors lie in the folder ``NAME``.

        Raises:
            InputError: It is missing, damaged, or too large.
            UnsafeInputError: It names code to run.
        """
        place = self.locate(f"{name}.pkl")
        label = f"{self.file.name}, {place.label}"
        if place.length > MAX_PICKLE:
            raise InputError(
                f"{label}: has {place.length} bytes, too many for a checkpoint; save the state "
                "dict alone."
            )
        pickle = self.file.read(place.offset - self.file.origin[1], place.length)
        self.file.require_unchanged()
        if place.crc32 is not None and crc32(pickle) != place.crc32:
            raise checksum_error(place)
        source = PickleSource(Found(label, pickle, (place.path, place.offset)))

        def find(key: str, dtype: str, numel: int) -> Storage:
            return self._find_storage(name, key, dtype, numel)

        return read_pickle(source, find, of_script=self.is_script)

    def text(self, name: str, most: int) -> bytes | None:
        """An entry that may be compressed, by its name without the folder; None if it is missing.

        Raises:
            InputError: It has more bytes than ``most``, is damaged or encrypted.
        """
        entry = self._entries.get(f"{self._folder}/{name}")
        if entry is None:
            return None
        where = f"{self.file.name}, {printable(entry.name)}"
        if entry.size > most:
            raise InputError(
                f"{where}: has {entry.size} bytes, more than of any RegNet; name the checkpoint it "
                "was made from."
            )
        data = self.directory.content(entry, max(entry.size, min(entry.stored, 2 * most)) + 1)
        wrong = len(data) != entry.size or (self._has_checksums and crc32(data) != entry.crc32)
        if wrong or entry.flags & ENCRYPTED:
            raise damaged(where, "is damaged or encrypted", "the file")
        return data

    def stated(self) -> dict[str, str]:
        """What torch's ``extra_files`` state beside the network, by key; empty of most archives.

        Raises:
            InputError: As of :meth:`text`.
        """
        inside = {entry.inside for entry in self.directory.entries}
        found: dict[str, str] = {}
        for key in (LABELS, PREPROCESSING, INTERFACE):
            if EXTRA + key in inside:
                self._folder = self.directory.require_one_folder()
                text = self.text(EXTRA + key, _MAX_STATED)
                found[key] = (text or b"").decode(errors="replace")
        return found

    def require_known_layout(self) -> int:
        """Check what torch says of the archive in entries of its own, without which it reads none.

        Returns:
            The version of the layout, and of the operators that code calls.

        Raises:
            InputError: The file is of another version, or of a big-endian machine, whose weights
                would have to be swapped.
        """
        if not any(f"{self._folder}/{name}" in self._entries for name in ("version", _VERSION)):
            what = "is no checkpoint of torch.save, for it has no entry called version"
            raise damaged(self.file.name, what, "the file")
        version = 0
        for name, (pattern, advice) in _LAYOUT.items():
            if f"{self._folder}/{name}" not in self._entries:
                continue  # versions of torch differ in what they say
            place = self.locate(name)
            start = place.offset - self.file.origin[1]
            said = self.file.read(start, min(place.length, _MAX_LAYOUT + 1))
            if re.fullmatch(pattern, said) is None:
                raise InputError(
                    f"{self.file.name}, {place.label}: is {printable(repr(said)[1:])}, {advice}."
                )
            if name.endswith("version"):
                version = int(said)
        return version

    def _find_storage(self, folder: str, key: str, dtype: str, numel: int) -> Storage:
        """Return a storage; see :data:`converters.checkpoint.pickle_machine.FindStorage`."""
        name = f"{folder}/{key}"
        if name not in self._storages:
            self._storages[name] = self.locate(name)
        storage = self._storages[name]
        if storage.length != numel * item_size(dtype):
            said = f"{folder}.pkl says {numel} elements of {dtype}"
            what = f"has {storage.length} bytes where {said}"
            raise damaged(f"{self.file.name}, {storage.label}", what, "the file")
        return storage

    def locate(self, name: str) -> Storage:
        """Return where the bytes of an entry are, by its name without the folder.

        Raises:
            InputError: It is missing, compressed or encrypted.
        """
        entry = self._entries.get(f"{self._folder}/{name}")
        if entry is None:
            where = f"{self.file.name}, {printable(f'{self._folder}/{name}')}"
            raise damaged(where, "is missing", "the file")
        return stored_bytes(self.file, self.directory, entry, has_checksums=self._has_checksums)


def stored_bytes(
    file: SourceFile | FilePart, directory: ZipDirectory, entry: Entry, *, has_checksums: bool
) -> Storage:
    """Return where the bytes of an entry are.

    Args:
        file: The archive.
        directory: Its entries, of which there is one reading.
        entry: One of these.
        has_checksums: Whether the checksums of the archive are such.

    Raises:
        InputError: It is compressed or encrypted.
    """
    where = f"{file.name}, {printable(entry.name)}"
    if entry.flags & ~(SIZES_FOLLOW | UTF8_NAME):
        what = "is encrypted" if entry.flags & ENCRYPTED else "has unusual flags"
        raise InputError(f"{where}: {what}; unpack the archive and pack it anew with `zip -0`.")
    if entry.method != STORED:
        raise InputError(
            f"{where}: is compressed; unpack the archive and pack it anew with `zip -0`."
        )
    path, base = file.origin
    return Storage(
        path,
        base + directory.data_offset(entry),
        entry.size,
        entry.crc32 if has_checksums else None,
        printable(entry.name),
    )
