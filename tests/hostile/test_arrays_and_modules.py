"""56 and 57: NumPy's arrays in pickles, and modules that were pickled whole."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np

from tests.converters.checkpoint.files import in_zip

if TYPE_CHECKING:
    from tests.hostile.victim import Victim

SHAPE = b"K\x03K\x02\x86"
ARRAY = {"stem.conv.weight": np.ones((3, 2), np.float32), "s1.b1.f.a.weight": np.array([1, None])}


def changed(new: bytes, protocol: int = 4) -> bytes:
    """The pickle of two arrays, of which the first says another shape."""
    content = pickle.dumps(ARRAY, protocol)
    assert content.count(SHAPE) == 1
    return content.replace(SHAPE, new)


def test_56_arrays_of_numpy_with_other_bytes_or_objects(victim: Victim) -> None:
    for content in (
        changed(b"K\x03K\x03\x86"),
        changed(b"K\x01K\x02\x86", protocol=2),
        changed(b"K\x03\x8a\x08" + b"\xff" * 7 + b"\x7f\x86"),
        changed(b"J\xff\xff\xff\xffJ\xfa\xff\xff\xff\x86"),
        changed(SHAPE),
    ):
        victim.put(content, "model.pkl")
        victim.refused(2, "convert", "model.pkl", "out", "-q")
        victim.put(in_zip(content))
        victim.refused(2)


BEGIN = b"csomebody\nModel\n)\x81}(U\x0b_parameters}U\x08_buffers}U\x08_modules}"
"""A module without parameters, before what its modules are."""


END = b"uub"
"""What ends the modules in a module, and it."""


def nested(levels: int) -> bytes:
    """A module in a module, and so on."""
    return b"\x80\x02" + (BEGIN + b"(U\x01a") * levels + BEGIN + b"ub" + END * levels + b"."


def doubled(levels: int) -> bytes:
    """A module that holds another twice, and so on."""
    twice = b"q\x000" + BEGIN + b"(U\x01ah\x00U\x01bh\x00" + END
    return b"\x80\x02" + BEGIN + b"ub" + twice * levels + b"."


def test_57_modules_in_themselves_and_without_end(victim: Victim) -> None:
    in_itself = b"\x80\x02" + BEGIN.replace(b"\x81", b"\x81q\x00") + b"(U\x01ah\x00" + END + b"."
    for program in (in_itself, nested(101), nested(30_000), doubled(60)):
        victim.put(in_zip(program))
        victim.refused(2)
