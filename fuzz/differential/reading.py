"""What a reader found in a file, in a form in which two readers can be compared.

A reading is a mapping from the path of a value to the value: of a tensor its dtype, shape, strides
and bytes, of anything else its type and content. Paths are made of the keys of dicts and the
indices of lists, so that names are compared with all else.
"""

from __future__ import annotations

import hashlib
from math import isfinite
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

Leaf = list[Any]
"""``["tensor", dtype, shape, strides, digest]``, ``["plain", text]`` or ``["unread"]``; of what a
network computes ``["numbers", shape, [...]]``, which only :func:`are_close` compares."""

Reading = dict[str, Leaf]

UNREAD: Leaf = ["unread"]
"""Of what is not built: an object of a class unknown to the reader. It may be anything."""

MAX_BYTES = 1 << 24
"""Of a tensor that are compared."""

_NEAR = 1e-3
"""Of the largest number: what two libraries may differ by."""

MAX_LEAVES = 20_000
MAX_DEPTH = 250


class EndlessError(Exception):
    """There is more in the file than is compared."""


def tensor(
    dtype: str,
    shape: tuple[int, ...],
    stride: tuple[int, ...],
    nbytes: int,
    data: Callable[[], bytes],
) -> Leaf:
    """A tensor as it is compared.

    Args:
        dtype: torch's name, without ``torch.``.
        shape: The sizes.
        stride: In elements.
        nbytes: Of all elements.
        data: Gives them in row-major order; not called where they are too many.
    """
    if 0 in shape:  # strides of nothing differ among libraries, its type among torch's own readers
        return ["tensor", "of nothing", list(shape), [], ""]
    digest = hashlib.sha256(data()).hexdigest() if nbytes <= MAX_BYTES else "too many bytes"
    return ["tensor", dtype, list(shape), list(stride), digest]


def are_close(ours: Leaf, theirs: Leaf) -> bool:
    """Whether two networks compute the same, as far as float32 allows."""
    (_, shape, found), (_, other_shape, expected) = ours, theirs
    if shape != other_shape:
        return False
    scale = max((abs(number) for number in expected if isfinite(number)), default=0.0)
    near = _NEAR * max(scale, 1e-3)
    return all(
        abs(one - other) <= near if isfinite(one) and isfinite(other) else repr(one) == repr(other)
        for one, other in zip(found, expected, strict=True)
    )


def taken_apart(tree: object, leaf_of: Callable[[object], Leaf | None]) -> Reading:
    """Make a reading of a tree.

    Args:
        tree: Dicts, lists, tuples, sets, plain values, and whatever ``leaf_of`` knows.
        leaf_of: Makes a leaf of a tensor or of an object that the reader did not build; None of
            all else.

    Raises:
        EndlessError: It is nested too deep, or has too many values.
    """
    reading: Reading = {}
    for path, leaf in _walk(tree, leaf_of, ""):
        if len(reading) > MAX_LEAVES:
            raise EndlessError
        reading[path] = leaf
    return reading


def _walk(
    value: object, leaf_of: Callable[[object], Leaf | None], path: str
) -> Iterator[tuple[str, Leaf]]:
    if path.count("/") > MAX_DEPTH:
        raise EndlessError
    leaf = leaf_of(value)
    if leaf is not None:
        yield path, leaf
        return
    match value:
        case dict():
            yield path, ["plain", f"dict of {len(value)}"]
            for key, member in value.items():
                key_text = _key(key, leaf_of)
                if key_text is None:
                    yield path, UNREAD
                    return
                yield from _walk(member, leaf_of, f"{path}/{key_text}")
        case list() | tuple():
            kind = "list" if isinstance(value, list) else "tuple"
            yield path, ["plain", f"{kind} of {len(value)}"]
            for index, member in enumerate(value):
                yield from _walk(member, leaf_of, f"{path}/{index}")
        case set() | frozenset():
            keys = [_key(member, leaf_of) for member in value]
            kind = "set" if isinstance(value, set) else "frozenset"
            unread = None in keys
            yield path, UNREAD if unread else ["plain", f"{kind} {sorted(filter(None, keys))}"]
        case _:
            yield path, ["plain", _plain(value)]


def path_of(name: str) -> str:
    """The path of a value that a dict has under a name."""
    return f"/{_key(name, lambda _: None)}"


def _key(value: object, leaf_of: Callable[[object], Leaf | None]) -> str | None:
    """A key of a dict as text; None if it is not all plain."""
    leaf = leaf_of(value)
    if leaf is not None:
        return str(leaf[1]).replace("/", "\\x2f") if leaf[0] == "plain" else None
    if isinstance(value, tuple | frozenset):
        parts = [_key(member, leaf_of) for member in value]
        if None in parts:
            return None
        kept = [part for part in parts if part is not None]
        return f"({','.join(kept if isinstance(value, tuple) else sorted(kept))})"
    return _plain(value).replace("/", "\\x2f")


def _plain(value: object) -> str:
    if isinstance(value, bytearray):
        value = bytes(value)
    if isinstance(value, int) and not isinstance(value, bool) and value.bit_length() > 1 << 12:
        return f"int of {value.bit_length()} bits"
    return f"{type(value).__name__} {value!r}" if isinstance(value, _PLAIN) else "another object"


_PLAIN = (str, bytes, bool, int, float, complex, type(None))


def difference(ours: Mapping[str, Leaf], theirs: Mapping[str, Leaf]) -> str | None:
    """The first place at which two readings differ, in words, or None.

    What ours did not build may be anything; so may what lies in it.
    """
    unread = [path for path, leaf in ours.items() if leaf[0] == "unread"]
    within = tuple(f"{path}/" for path in unread)
    for path, leaf in ours.items():
        if leaf[0] == "unread":
            continue
        other = theirs.get(path)
        if other is None:
            return f"{path or 'the file'}: ours has {leaf}, theirs nothing"
        if other != leaf and other[0] != "unread":
            return f"{path or 'the file'}: ours has {leaf}, theirs {other}"
        if other[0] == "unread" and leaf[0] == "tensor":
            return f"{path}: ours has a tensor, theirs an object it cannot build"
    for path in theirs:
        if path not in ours and not path.startswith(within):
            return f"{path}: theirs has {theirs[path]}, ours nothing"
    return None
