"""NumPy's archives of arrays, ``.npz``: the elements stay in the file.

``numpy.savez`` of a state dict writes a zip archive with a member for each array: a text that says
type, order and shape, and the elements behind it. Source: numpy/lib/_format_impl.py (versions 1 to
3) and _npyio_impl.py (``savez``).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from converters.checkpoint.pickle_arrays import DTYPE, RECONSTRUCT, torch_type, view_of
from converters.checkpoint.source_file import damaged
from converters.checkpoint.values import Opaque
from converters.checkpoint.zip_container import stored_bytes
from converters.checkpoint.zip_directory import ZipDirectory
from converters.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Hashable

    from converters.checkpoint.source_file import SourceFile
    from converters.checkpoint.values import Storage, Tree

_ENDING = ".npy"

_MAGIC = b"\x93NUMPY"
_VERSIONS = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}
"""Version to how many bytes say how long the text is."""

_ALIGNED = 16
"""Bytes of which the place of the elements is a multiple, by the oldest rule."""

_MAX_TEXT = 1 << 12
"""In bytes; that of an array of 64 axes has some 1,400."""

_AXIS = r"(?:0|[1-9]\d{0,18})L?"
_TEXT = re.compile(
    r"\{'descr': ?(?:'(?P<kind>[^']*)'|\[(?P<fields>.*)\])"
    r", ?'fortran_order': ?(?P<order>True|False)"
    rf", ?'shape': ?\((?P<shape>(?:{_AXIS},(?: ?{_AXIS},)* ?(?:{_AXIS})?)?)\),? ?\}} *\n?"
)
"""What a member says; Python 2 wrote sizes with an L, which NumPy takes of the versions of its
time."""

_WITH_L = 2
"""The last of them."""

_SIZE = re.compile(r"\d+")


def read_npz(file: SourceFile) -> Tree | None:
    """Read the headers of an archive's arrays.

    Returns:
        The arrays by the names of their members, of which slashes are dots; a note where one is
        of a type that is not read. None if not all that is in the archive are arrays.

    Raises:
        InputError: It is truncated or damaged, or a member is compressed or of Python's objects.
        UnsafeInputError: Different programs would read it differently.
    """
    directory = ZipDirectory(file)
    if not all(entry.name.endswith(_ENDING) for entry in directory.entries):
        return None
    directory.require_one_reading()
    has_checksums = any(entry.crc32 for entry in directory.entries)
    whole = {entry.name for entry in directory.entries}
    tree: dict[Hashable, Tree] = {}
    for entry in directory.entries:
        name = entry.name.removesuffix(_ENDING).replace("/", ".")
        # NumPy takes a name with its ending, too: of `a.npy.npy` that is the name of another.
        if name in tree or entry.name.removesuffix(_ENDING) in whole:
            raise directory.ambiguous(f"has two arrays called '{printable(name)}'")
        place = stored_bytes(file, directory, entry, has_checksums=has_checksums)
        tree[name] = _array(file, place)
    file.require_unchanged()
    return tree


def _array(file: SourceFile, member: Storage) -> Tree:
    """A member as a view of its elements, or a note of one of another type."""
    where = f"{file.name}, {member.label}"
    version, text, start = _text(file, member)
    match = _TEXT.fullmatch(text)
    if match is None or start % _ALIGNED or ("L" in match["shape"] and version > _WITH_L):
        raise damaged(where, "is damaged, it does not begin as an array of NumPy does", "the file")
    kind = match["kind"] or "|V"
    if kind.endswith("O"):
        raise InputError(
            f"{where}: is an array of Python's objects, which NumPy unpickles; save the arrays of "
            "the state dict alone, with numpy.savez."
        )
    dtype = torch_type(kind[:1], kind[1:])
    if dtype is None:
        state = (3, kind[:1])
        return Opaque(RECONSTRUCT, (), state=(1, (), Opaque(DTYPE, (kind[1:],), state=state)))
    sizes = tuple(int(size) for size in _SIZE.findall(match["shape"]))
    try:
        return view_of(member, dtype, sizes, is_fortran=match["order"] == "True", start=start)
    except ValueError as error:
        raise damaged(where, f"is damaged, it is {error}", "the file") from error


def _text(file: SourceFile, member: Storage) -> tuple[int, str, int]:
    """A member's version, what it says of its elements, and where they begin.

    It says "" where it begins otherwise than an array, or would say too much.
    """
    head = file.read(member.offset, min(len(_MAGIC) + 6, member.length))
    size = _VERSIONS.get(head[len(_MAGIC) : len(_MAGIC) + 2], 0)
    before = len(_MAGIC) + 2 + size
    length = int.from_bytes(head[before - size : before], "little")
    if not head.startswith(_MAGIC) or not size or length > min(_MAX_TEXT, member.length - before):
        return 0, "", 0
    text = file.read(member.offset + before, length).decode("latin-1")
    return head[len(_MAGIC)], text, before + length
