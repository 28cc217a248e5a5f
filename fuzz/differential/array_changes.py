"""NumPy's files of arrays, and their changes: what the text before the elements says, and how."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from fuzz.differential.pickles import changed_bytes

if TYPE_CHECKING:
    from random import Random

_MAGIC = b"\x93NUMPY"
_LEAST = 12
"""Bytes before the text, of which version 1 has two less."""

_KINDS = (
    "'<f4'", "'<f4'", "'>f4'", "'=f4'", "'|f4'", "'f4'", "'float32'", "'<f2'", "'<f8'", "'<i8'",
    "'<i4'", "'|i1'", "'|u1'", "'|b1'", "'?'", "'<c8'", "'<U1'", "'|S4'", "'|V4'", "'|O'", "'O'",
    "'<M8[s]'", "'bfloat16'", "'<f4 '", "' <f4'", "'<f4,<f4'", "'2<f4'", "'(2,)<f4'", "''", "None",
    '"<f4"', "[('a', '<f4')]", "[('a', '<f4'), ('b', '<f4')]", "('<f4', (2,))", "'\\x3cf4'",
)  # fmt: skip
_SHAPES = (
    "(6,)", "(2, 3)", "(3, 2)", "(1, 6)", "(6, 1)", "()", "(0,)", "(7,)", "(6)", "6", "[2, 3]",
    "(2,3)", "(2,3,)", "(2, 3, )", "(2 ,3)", "(02, 3)", "(2L, 3L)", "(2L, 3)", "(True, 6)", "(-1,)",
    "(-6,)", "(2.0, 3)", "(0x2, 3)", "(1_0,)", "(18446744073709551622,)", "(4611686018427387904,)",
    "(,)", "(2, 3", "None", "(2, 3), ", "(2, (3))", "(2, 3, 1, 1)", "(4294967296, 4294967296)",
)  # fmt: skip
_ORDERS = ("False", "True", "True", "0", "1", "None", "false", "'F'")


_KEYS = ("descr", "fortran_order", "shape")


def files() -> list[bytes]:
    """What `numpy.savez` writes of two networks of one shape, of all kinds of arrays; one array."""
    base = np.arange(1.0, 7.0, dtype=np.float32).reshape(2, 3)
    kinds: dict[str, Any] = {
        "order": np.asfortranarray(base), "half": base.astype(np.float16), "scalar": np.array(7),
        "none": base[:0], "big": base.astype(">f4"), "truth": base > 1, "bytes": base.astype("u1"),
        "text": np.array(["a"]), "records": np.zeros(2, [("a", "f4")]), "steps": base.astype("i8"),
    }  # fmt: skip
    np.save(single := io.BytesIO(), base)
    return [
        _saved({"a": base, "b": base[0], "c/d": base.T}),
        _saved({"a": -base, "b": -base[0], "c/d": base.T * 2}),
        _saved({"a": base, "a.npy": -base, "A ": base[0]}),
        _saved(kinds),
        _saved({"a": base, "objects": np.array([1, None])}),
        single.getvalue(),
    ]


def _saved(arrays: dict[str, Any]) -> bytes:
    np.savez(buffer := io.BytesIO(), **arrays)
    return buffer.getvalue()


def changed(content: bytes, rng: Random) -> bytes:
    """Change an array: what it says, its spelling, the elements, or some bytes."""
    if not content.startswith(_MAGIC) or len(content) < _LEAST or rng.randrange(6) == 0:
        return changed_bytes(content, rng)
    start = _LEAST if content[6] > 1 else _LEAST - 2
    end = start + int.from_bytes(content[8:start], "little")
    said, elements = _said(content[start:end].decode("latin-1")), content[end:]
    if len(said) < len(_KEYS):
        return changed_bytes(content, rng)
    for _ in range(rng.choice((1, 1, 2))):
        match rng.randrange(5):
            case 0:
                said["descr"] = rng.choice(_KINDS)
            case 1:
                said["fortran_order"] = rng.choice(_ORDERS)
            case 2:
                said["shape"] = rng.choice(_SHAPES)
            case 3:
                other = (elements + b"\0", elements[4:], elements * 2, elements[::-1])
                elements = rng.choice(other)
    text = _text(said, rng).encode("latin-1")
    version = rng.choice((*[(1, 0)] * 5, (2, 0), (3, 0), (3, 1), (4, 0), (0, 0)))
    width = 2 if version[0] == 1 else 4
    before = len(_MAGIC) + 2 + width
    text += b" " * (-(before + len(text) + 1) % rng.choice((64, 64, 64, 16, 1))) + b"\n"
    return _MAGIC + bytes(version) + len(text).to_bytes(width, "little") + text + elements


def _said(text: str) -> dict[str, str]:
    """What a text says, value by value, as it is spelt."""
    for key in _KEYS:
        text = text.replace(f"'{key}':", "\0", 1)
    _, *values = text.rstrip(" \n}").split("\0")
    return dict(zip(_KEYS, (value.strip(" ,") for value in values), strict=False))


def _text(said: dict[str, str], rng: Random) -> str:
    """The values under their names, in an order and a spelling that may be another."""
    items = list(said.items())
    if rng.randrange(6) == 0:
        rng.shuffle(items)
    if rng.randrange(12) == 0:
        items.append(rng.choice((items[0], ("more", "1"), ("shape", "(2, 3)"))))
    colon, comma, end = rng.choice(
        (*[(": ", ", ", ", }")] * 6, (":", ",", "}"), (" : ", " , ", ",}"), (": ", ", ", " }"))
    )
    return "{" + comma.join(f"'{key}'{colon}{value}" for key, value in items) + end
