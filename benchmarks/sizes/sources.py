"""What the contenders read: giants, one at a time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parents[2]

_BLOCK = 512
"""Bytes, of which ``st_blocks`` counts (``stat(2)``)."""


@dataclass(frozen=True, slots=True)
class Source:
    """A kind of checkpoint.

    Attributes:
        name: Of the file or folder; of several files, the one that is named to readers.
        title: In words, for the head of a table.
        arguments: For :mod:`benchmarks.giants`.
    """

    name: str
    title: str
    arguments: tuple[str, ...]


CONSOLIDATED = Source("model.torch", "VISSL's one file, zip", ("--framework", "vissl"))
LEGACY = Source(
    "legacy.torch",
    "VISSL's one file, legacy",
    ("--framework", "vissl", "--container", "legacy"),
)
SHARDS = Source("shards.torch", "VISSL's shards", ("--framework", "vissl", "--layout", "shards"))
BIN = Source(
    "bin",
    "transformers' `pytorch_model.bin`",
    ("--framework", "transformers", "--layout", "folder"),
)
FOLDER = Source(
    "folder",
    "transformers' `model.safetensors`",
    ("--framework", "transformers", "--layout", "folder", "--container", "safetensors"),
)
SOURCES = (CONSOLIDATED, LEGACY, SHARDS, BIN, FOLDER)


@dataclass(frozen=True, slots=True)
class MadeSource:
    """A source of one network, on the disk.

    Attributes:
        folder: Holds nothing else.
        path: What is named to readers.
        size: Bytes of all its files, holes included.
        allotted: Bytes of disk that they take.
    """

    folder: Path
    path: Path
    size: int
    allotted: int


@contextmanager
def made(source: Source, network: str, density: float, scratch: Path) -> Iterator[MadeSource]:
    """Make a source, and delete it in the end.

    Args:
        source: Which.
        network: A published name.
        density: How much of large tensors is written; between lie holes.
        scratch: Gets the folder ``source``.

    Raises:
        subprocess.CalledProcessError: If it cannot be made.
    """
    folder = scratch / "source"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / source.name
    maker = [sys.executable, "-m", "benchmarks.giants", network, str(path), *source.arguments]
    try:
        # A process of its own: the measuring one must stay small.
        subprocess.run(  # noqa: S603 -- the benchmark's own program
            [*maker, "--density", str(density)], cwd=CHECKOUT, check=True
        )
        stats = [file.stat() for file in files_in(folder)]
        size = sum(stat.st_size for stat in stats)
        yield MadeSource(folder, path, size, sum(_BLOCK * stat.st_blocks for stat in stats))
    finally:
        shutil.rmtree(folder)


def files_in(folder: Path) -> Iterator[Path]:
    """Every file in a folder and the folders in it."""
    return (path for path in folder.rglob("*") if path.is_file())


def forget(folder: Path) -> None:
    """Drop a folder's files from the page cache, so that the next reader begins at the disk."""
    os.sync()  # pages that wait to be written stay
    for path in files_in(folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        finally:
            os.close(descriptor)
