"""A safetensors file that breaks a rule of the format is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from converters.errors import ConversionError, InputError, UnsafeInputError
from tests.converters.checkpoint.files import refusal

if TYPE_CHECKING:
    from pathlib import Path


def safetensors_of(header: object, data: bytes = bytes(8)) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(**changes: object) -> dict[str, object]:
    return {"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]} | changes}


TWICE = b'{"t": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "t": 0}'
TWO = {
    "a": {"dtype": "U8", "shape": [5], "data_offsets": [0, 5]},
    "b": {"dtype": "U8", "shape": [3], "data_offsets": [5, 8]},
}
OVERLAP = TWO | {"b": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}}
HOLE = TWO | {"b": {"dtype": "U8", "shape": [2], "data_offsets": [6, 8]}}
SAFETENSORS: dict[str, tuple[bytes, type[ConversionError], str]] = {
    "key twice": (safetensors_of(TWICE), UnsafeInputError, "has the key 't' twice"),
    "field twice": (
        safetensors_of(b'{"t": {"dtype": "F32", "dtype": "I32"}}'),
        UnsafeInputError,
        "has the key 'dtype' twice",
    ),
    "huge header": (b"\x00\x00\x00\x00\x00\x01\x00\x00{" + bytes(90), InputError, "header claims"),
    "cut header": (safetensors_of(entry())[:30], InputError, "is truncated, it has 30 bytes"),
    "cut data": (safetensors_of(entry())[:-1], InputError, "is truncated"),
    "trailing": (safetensors_of(entry()) + b"PK", InputError, "goes on behind its last tensor"),
    "no JSON": (safetensors_of(b"{nonsense"), InputError, "its header is not JSON"),
    "NaN": (safetensors_of(b'{"t": NaN}'), InputError, "its header is not JSON"),
    "nested": (safetensors_of(b'{"t":' + b"[" * 100_000), InputError, "its header is not JSON"),
    "overlap": (safetensors_of(OVERLAP), InputError, "'b' does not begin where the one before"),
    "hole": (safetensors_of(HOLE), InputError, "'b' does not begin where the one before ends"),
    "late start": (
        safetensors_of(entry(data_offsets=[4, 12]), bytes(12)),
        InputError,
        "does not begin",
    ),
    "other span": (safetensors_of(entry(shape=[3])), InputError, "'t' has other bytes than"),
    "negative": (safetensors_of(entry(shape=[-2])), InputError, "sizes or offsets that cannot be"),
    "boolean": (safetensors_of(entry(shape=[True, 2])), InputError, "cannot be"),
    "fraction": (safetensors_of(entry(shape=[2.0])), InputError, "cannot be"),
    "overflow": (safetensors_of(entry(shape=[2**63, 2**63])), InputError, "cannot be"),
    "offsets": (safetensors_of(entry(data_offsets=[8])), InputError, "lacks dtype, shape or"),
    "type": (safetensors_of(entry(dtype="F4")), InputError, "has the unsupported type F4"),
    "metadata": (
        safetensors_of({"__metadata__": {"a": 1}}, b""),
        InputError,
        "its metadata is not text",
    ),
}


@pytest.mark.parametrize(("content", "kind", "expected"), SAFETENSORS.values(), ids=SAFETENSORS)
def test_a_safetensors_file_that_breaks_the_format_is_refused(
    content: bytes, kind: type[ConversionError], expected: str, tmp_path: Path
) -> None:
    assert expected in refusal(content, tmp_path, kind)
