"""The zip archive that torch.save writes since 1.6: one pickle, and one entry for each storage.

Only the central directory says what there is, as the standard library's zipfile reads it. Where a
local header disagrees, another program would read another file, so the archive is refused.
"""

from __future__ import annotations

import zipfile
from io import SEEK_SET, BytesIO
from typing import TYPE_CHECKING
from zlib import crc32

from converters.checkpoint.pickle_reader import MAX_PICKLE, PickleSource, read_pickle
from converters.checkpoint.values import Storage, Tree, item_size, printable
from converters.errors import ConversionError, InputError, UnsafeInputError

if TYPE_CHECKING:
    from converters.checkpoint.source_file import SourceFile

MAX_DIRECTORY = 1 << 24
"""In bytes; an entry of torch.save's takes about a hundred."""

_LOCAL_HEADER_SIZE = 30
_LOCAL_SIGNATURE = b"PK\x03\x04"
_ENCRYPTED = 0x0001
_SIZES_FOLLOW, _UTF8_NAME = 0x0008, 0x0800  # the only flags torch sets

_TORCHSCRIPT = "a TorchScript archive, which is a program"
_PT2 = "an exported program (.pt2), whose loader unpickles what it holds"
_PACKAGE = "a torch.package archive, whose loader runs the code in it"

# (what an entry's name, without the archive's own folder, begins with; what the archive then is;
# the error: TorchScript runs in an interpreter of its own, the others could do anything)
_OTHER_ARCHIVES: tuple[tuple[str, str, type[ConversionError]], ...] = (
    ("constants.pkl", _TORCHSCRIPT, InputError),
    ("code/", _TORCHSCRIPT, InputError),
    ("archive_format", _PT2, UnsafeInputError),
    ("serialized_exported_program", _PT2, UnsafeInputError),
    ("models/", _PT2, UnsafeInputError),
    (".data/extern_modules", _PACKAGE, UnsafeInputError),
)


def read_zip(file: SourceFile) -> Tree:
    """Read what a zip checkpoint holds, without its storages.

    Raises:
        InputError: It is truncated, damaged, or another kind of zip archive.
        UnsafeInputError: It names code to run, or different programs would read it differently.
    """
    archive = _Archive(file)
    archive.require_little_endian()
    place = archive.locate("data.pkl")
    label = f"{file.name}, {place.label}"
    if place.length > MAX_PICKLE:
        raise InputError(
            f"{label}: has {place.length} bytes, too many for a checkpoint; save the state dict "
            "alone."
        )
    pickle = file.read(place.offset, place.length)
    file.require_unchanged()
    if crc32(pickle) != place.crc32:
        raise checksum_error(place)
    return read_pickle(PickleSource(BytesIO(pickle), 0, len(pickle), label), archive.find_storage)


def checksum_error(storage: Storage) -> InputError:
    """Return the error for bytes that do not have the checksum the archive states for them."""
    return InputError(
        f"{printable(storage.path.name)}, {storage.label}: is damaged, its bytes do not have the "
        "checksum the file states; download or copy it again."
    )


class BoundedFile:
    """A file of which a reader takes no more at once than a directory may have.

    zipfile takes the whole directory at once, and some ten times its size in memory.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._stream = file.stream

    def seek(self, offset: int, whence: int = SEEK_SET) -> int:
        """Move, and return the position."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """Return the position."""
        return self._stream.tell()

    def read(self, size: int = -1) -> bytes:
        """Return up to ``size`` bytes.

        Raises:
            InputError: They are more than a directory has.
        """
        if size > MAX_DIRECTORY:
            raise InputError(
                f"{self._file.name}: has a table of contents of {size} bytes, too large for a "
                "checkpoint; save the state dict alone."
            )
        return self._stream.read(size)


class _Archive:
    """The directory of an archive that torch.save wrote.

    Raises:
        InputError: It is damaged, or another kind of archive.
        UnsafeInputError: It has two entries of one name, two folders, or paths that lead outside.
    """

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._storages: dict[str, Storage] = {}
        self._entries: dict[str, zipfile.ZipInfo] = {}
        try:
            with zipfile.ZipFile(BoundedFile(file)) as archive:
                entries = archive.infolist()
                self._end_of_data = archive.start_dir
        except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
            raise InputError(
                f"{file.name}: is truncated or damaged, its {file.size} bytes end without the "
                "table of contents of a zip archive; download or copy it again."
            ) from error
        if entries and min(entry.header_offset for entry in entries) > 0:
            raise self._ambiguous("has something else before its first entry")
        seen: set[str] = set()
        for entry in entries:
            name = entry.filename
            if name.startswith("/") or "\\" in name or ".." in name.split("/") or ":" in name[:2]:
                raise self._ambiguous(
                    f"has an entry called '{printable(name)}', which leads out of it"
                )
            if name.lower() in seen:  # torch, by miniz, looks for names in any case
                raise self._ambiguous(f"has two entries called '{printable(name)}'")
            seen.add(name.lower())
            self._entries[name] = entry
        self._folder = self._require_checkpoint()

    def _require_checkpoint(self) -> str:
        inside = [name.partition("/")[2] for name in self._entries]
        for start, what, error in _OTHER_ARCHIVES:
            if any(name.startswith(start) for name in inside):
                raise error(
                    f"{self._file.name}: is {what}; name a checkpoint with a state dict instead."
                )
        if "data.pkl" not in inside:
            raise InputError(
                f"{self._file.name}: is a zip archive but no checkpoint, for it has no data.pkl; "
                "if the checkpoint is inside, unpack it."
            )
        folders = sorted({name.partition("/")[0] for name in self._entries})
        if len(folders) > 1:
            raise self._ambiguous(f"has {len(folders)} folders, such as '{printable(folders[1])}'")
        return folders[0]

    def require_little_endian(self) -> None:
        """Refuse the files of a big-endian machine, whose weights would have to be swapped."""
        if f"{self._folder}/byteorder" not in self._entries:
            return  # before 2.1 torch did not say
        place = self.locate("byteorder")
        order = self._file.read(place.offset, min(place.length, 16))
        if order != b"little":
            raise InputError(
                f"{self._file.name}, {place.label}: is {order.decode('latin-1')!r}, of which only "
                "'little' is read; load the file with torch and save it again on another computer."
            )

    def find_storage(self, key: str, dtype: str, numel: int) -> Storage:
        """Return the storage ``key``; see :data:`converters.checkpoint.pickle_machine.FindStorage`.

        Raises:
            InputError: It is not there, or has another size than the pickle says.
        """
        if key not in self._storages:
            self._storages[key] = self.locate(f"data/{key}")
        storage = self._storages[key]
        if storage.length // item_size(dtype) != numel:
            raise InputError(
                f"{self._file.name}, {storage.label}: has {storage.length} bytes where data.pkl "
                f"says {numel} elements of {dtype}; download or copy the file again."
            )
        return storage

    def locate(self, name: str) -> Storage:
        """Return where the bytes of an entry are, by its name without the folder.

        Raises:
            InputError: It is missing, compressed or encrypted, or does not fit into the file.
            UnsafeInputError: Its local header tells another story.
        """
        where = self._where(f"{self._folder}/{name}")
        entry = self._entries.get(f"{self._folder}/{name}")
        if entry is None:
            raise InputError(f"{where}: is missing; download or copy the file again.")
        if entry.flag_bits & ~(_SIZES_FOLLOW | _UTF8_NAME):
            what = "is encrypted" if entry.flag_bits & _ENCRYPTED else "has unusual flags"
            raise InputError(f"{where}: {what}; unpack the archive and pack it anew with `zip -0`.")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise InputError(
                f"{where}: is compressed; unpack the archive and pack it anew with `zip -0`."
            )
        offset = self._data_offset(entry)
        if offset + entry.file_size > self._end_of_data:
            raise InputError(f"{where}: reaches beyond the file; download or copy it again.")
        return Storage(
            self._file.path, offset, entry.file_size, entry.CRC, printable(entry.filename)
        )

    def _data_offset(self, entry: zipfile.ZipInfo) -> int:
        name = entry.orig_filename.encode("utf-8" if entry.flag_bits & _UTF8_NAME else "cp437")
        size = _LOCAL_HEADER_SIZE + len(name)
        if not 0 <= entry.header_offset <= self._end_of_data - size:
            raise InputError(
                f"{self._where(entry.filename)}: lies outside the file; download or copy it again."
            )
        header = self._file.read(entry.header_offset, size)
        name_size, extra_size = (int.from_bytes(header[at : at + 2], "little") for at in (26, 28))
        if not header.startswith(_LOCAL_SIGNATURE):
            raise InputError(
                f"{self._where(entry.filename)}: is damaged, its header is missing; download or "
                "copy the file again."
            )
        if name_size != len(name) or header[_LOCAL_HEADER_SIZE:] != name:
            raise self._ambiguous(
                f"calls the entry '{printable(entry.filename)}' differently in two places"
            )
        return entry.header_offset + size + extra_size

    def _where(self, name: str) -> str:
        return f"{self._file.name}, {printable(name)}"

    def _ambiguous(self, what: str) -> UnsafeInputError:
        return UnsafeInputError(
            f"{self._file.name}: {what}, so that programs may disagree on its content; get the "
            "checkpoint from a source you trust."
        )
