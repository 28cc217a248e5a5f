"""Files with one field changed: every field of the containers, pickles, headers and settings."""

from __future__ import annotations

import json
import pickletools
import struct
import zipfile
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

Changed = tuple[str, bytes]
"""Which field, and the file."""

# The sizes of a zip archive's fields, in bytes; APPNOTE.TXT 4.3.7, 4.3.12, 4.3.16.
_LOCAL = (4, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2)
_CENTRAL = (4, 2, 2, 2, 2, 2, 2, 4, 4, 4, 2, 2, 2, 2, 2, 4, 4)
_END = (4, 2, 2, 2, 2, 4, 4, 2)

_SETTINGS: tuple[Any, ...] = (
    *(None, True, False, -1, 0, 1, 3, 1.5, float("nan"), 1 << 62, 10**30),
    *("", "x", "\x1b[2J", [], [0], [8, 16, 24], ["x"], {}, {"0": "x"}, {"x": [1]}),
)


def _others(raw: bytes) -> Iterator[bytes]:
    """Other contents of a field, of the same size."""
    places = dict.fromkeys((0, len(raw) // 2, len(raw) - 1))
    flipped = (raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :] for at in places)
    candidates = (bytes(len(raw)), b"\xff" * len(raw), *flipped)
    yield from (other for other in dict.fromkeys(candidates) if other != raw)


def _replaced(data: bytes, start: int, size: int, name: str) -> Iterator[Changed]:
    for other in _others(data[start : start + size]):
        yield f"{name} at {start}: {other[:8].hex()}", data[:start] + other + data[start + size :]


def of_zip(data: bytes) -> Iterator[Changed]:
    """Every field of every header of an archive."""
    with zipfile.ZipFile(BytesIO(data)) as archive:
        entries, position = archive.infolist(), archive.start_dir
    headers = [(entry.header_offset, _LOCAL, "local") for entry in entries]
    for entry in entries:
        headers.append((position, _CENTRAL, "central"))
        position += sum(_CENTRAL) + sum(
            struct.unpack_from("<3H", data, position + sum(_CENTRAL[:10]))
        )
        headers.append((position - 1, (1,), f"last byte of the name of {entry.filename}"))
    headers.append((data.rindex(b"PK\x05\x06"), _END, "end"))
    for start, sizes, name in headers:
        for index, size in enumerate(sizes):
            yield from _replaced(data, start + sum(sizes[:index]), size, f"{name} {index}")


def of_pickle(data: bytes, start: int = 0) -> Iterator[Changed]:
    """The argument of every instruction of a pickle that begins somewhere in a file."""
    stream = BytesIO(data)
    stream.seek(start)
    instructions = [(opcode.name, at or 0) for opcode, _, at in pickletools.genops(stream)]
    ends = [at for _, at in instructions[1:]] + [stream.tell()]
    for (name, at), end in zip(instructions, ends, strict=True):
        if end > at + 1:
            yield from _replaced(data, at + 1, end - at - 1, name)


def of_safetensors(data: bytes) -> Iterator[Changed]:
    """Every value of the header; the file is written anew around it."""
    size = int.from_bytes(data[:8], "little")
    header: dict[str, Any] = json.loads(data[8 : 8 + size])
    for name, entry in header.items():
        for key, value in entry.items():
            for other in (*_neighbours(value), *_SETTINGS):
                changed = json.dumps(header | {name: entry | {key: other}}).encode()
                content = len(changed).to_bytes(8, "little") + changed + data[8 + size :]
                yield f"{name}.{key}: {other!r}", content


def _neighbours(value: Any) -> Iterator[Any]:
    """Values of the same kind."""
    if isinstance(value, list):
        for index, member in enumerate(value):
            yield from ([*value[:index], member + step, *value[index + 1 :]] for step in (-1, 1))
        yield value[::-1]
        yield [*value, 1]
    yield from ("F16", "I32", "F64", "BF16") if isinstance(value, str) else ()


def of_settings(data: bytes) -> Iterator[Changed]:
    """Every key of a JSON file, its value changed, and some that are not there."""
    settings = json.loads(data)
    for key in (*settings, "self", "to_dict", "_validate", "__class__", "__dict__", "auto_map"):
        for other in _SETTINGS:
            yield f"{key}: {other!r}", json.dumps(settings | {key: other}).encode()
