"""Whether a zip of torch is what its certificate has seen, before torch opens it.

torch has a reader of archives of its own, which runs what it finds. So what two readers could take
for different programs does not get there, nor what grows in memory without bound.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from converters.checkpoint.source_file import SourceFile
from converters.checkpoint.zip_directory import STORED, ZipDirectory
from converters.errors import InputError, UnsafeInputError, printable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MAX_INFLATED = 1 << 24
"""Bytes of an archive's compressed entries together; the code of RegNetY-128GF, traced, with its
debug records has some hundred thousand."""

_CODE = "code/"
"""What torch.jit.save compresses; weights and everything in a `.pt2` lie as they are."""


@contextmanager
def loadable(path: Path) -> Iterator[ZipDirectory]:
    """Check an archive that torch is to open; its directory can be read inside the block.

    Args:
        path: TorchScript, `.pt2` or an AOTInductor package.

    Raises:
        RuntimeError: It is damaged or no zip, as torch says it.
        UnsafeInputError: Programs may find other entries in it, or it inflates.
        StorageError: It cannot be read.
    """
    with SourceFile(path) as file:
        try:
            directory = ZipDirectory(file)
            directory.require_one_reading()
            directory.require_one_folder()
        except InputError as error:
            raise RuntimeError(str(error)) from error
        inflated = 0
        for entry in directory.entries:
            if entry.method == STORED:
                continue
            inflated += entry.size
            if not entry.inside.startswith(_CODE) or inflated > MAX_INFLATED:
                raise UnsafeInputError(
                    f"{file.name}, {printable(entry.name)}: is compressed, {entry.stored} bytes to "
                    f"{entry.size}, as torch writes none; nothing was loaded, get the file from a "
                    "source you trust."
                )
        yield directory
