"""One process that fuzzes one target: ``python -m fuzz.worker TARGET FOLDER [libFuzzer flags]``.

FOLDER is the target's own, with ``seeds`` and ``beside`` in it; ``slowest`` there gets the
processor time of the slowest run so far. Limits of memory are set here and by the caller's flags.
"""

from __future__ import annotations

import codecs
import os
import resource
import shutil
import sys
from pathlib import Path
from tempfile import mkdtemp
from typing import TYPE_CHECKING

import atheris

with atheris.instrument_imports(
    include=["converters", "regnet", "pickletools", "zipfile", "yaml", "tomllib"]
):
    from fuzz.targets import TARGETS

from fuzz.guard import Guard

if TYPE_CHECKING:
    from collections.abc import Callable

DATA_LIMIT = 1 << 30
"""Bytes of private memory, which includes some 100 MB of libraries."""

_ENCODINGS = ("ascii", "cp437", "latin-1", "raw_unicode_escape", "unicode_escape")
"""What readers decode with; Python imports the module of an encoding when it is first used."""


def main() -> None:
    """Fuzz until a flag's limit is reached or something is found."""
    name, folder = sys.argv[1], Path(sys.argv[2])
    place = Path(mkdtemp(prefix=f"fuzz-{name}-"))  # libFuzzer never returns: the caller removes it
    atheris.Setup([f"fuzz-{name}", *sys.argv[3:]], harness(name, folder, place))
    atheris.Fuzz()


def harness(name: str, folder: Path, place: Path) -> Callable[[bytes], None]:
    """Make the function that libFuzzer calls with each input, its modules imported already.

    Args:
        name: Of the target.
        folder: Its own.
        place: An empty folder for the input.
    """
    target = TARGETS[name]
    if (folder / "beside").is_dir():
        shutil.copytree(folder / "beside", place, dirs_exist_ok=True)
    guard = Guard(place)
    for encoding in _ENCODINGS:
        codecs.lookup(encoding)
    for seed in sorted((folder / "seeds").iterdir()):
        guard.warm_up(target.read, target.place(seed.read_bytes(), place))
    resource.setrlimit(resource.RLIMIT_DATA, (DATA_LIMIT, DATA_LIMIT))
    record = os.open(folder / "slowest", os.O_RDWR | os.O_CREAT)
    known = [float(os.pread(record, 32, 0) or 0)]

    def run(data: bytes) -> None:
        try:
            guard.run(target.read, target.place(data, place))
        finally:
            if guard.slowest > known[0]:
                known[0] = guard.slowest
                os.pwrite(record, f"{guard.slowest:.6f}".encode(), 0)

    return run


if __name__ == "__main__":
    main()
