"""Changes of a safetensors file: its header's values, the spelling of its JSON, its data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from fuzz.differential.pickles import changed_bytes

if TYPE_CHECKING:
    from random import Random

_LENGTH = 8
_DTYPES = (
    "F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E4M3FNUZ", "F8_E5M2", "F8_E5M2FNUZ", "F8_E8M0",
    "F6_E2M3", "F6_E3M2", "F4", "C64", "I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL",
    "f32", "F32\0",
)  # fmt: skip
_RAW = (
    "null", "true", "0", "1", "-1", "-0", "1.0", "1e0", "1E2", "4.0e0", "01", "+1", "0x4", "NaN",
    "18446744073709551616", "18446744073709551615", "9223372036854775808", "9223372036854775807",
    "2147483648", '"4"', "[]", "[4]", "{}", '""', "[0,0]", "[0,4]", "1_0", "\uff11",
)  # fmt: skip
_NAMES = (
    "",
    "a",
    "A",
    "\xe9",
    "e\u0301",
    "\ud800",
    "\0",
    "__metadata__",
    "__metadata__\0",
    "/",
    "x" * 300,
)
_BEFORE = ("", " ", "\n", "\t", "\ufeff", "\0", "//", "\f", "\xa0")

Pairs = list[tuple[str, Any]]


class Raw(str):
    """A text that stands in the header as it is."""

    __slots__ = ()


def parsed(data: bytes) -> tuple[Pairs, bytes]:
    """The header's pairs, entries likewise pairs, and the bytes of the tensors."""
    size = int.from_bytes(data[:_LENGTH], "little")
    pairs: Pairs = json.loads(data[_LENGTH : _LENGTH + size], object_pairs_hook=lambda got: got)
    return pairs, data[_LENGTH + size :]


def changed(data: bytes, rng: Random) -> bytes:
    """Change a file."""
    pairs, content = parsed(data)
    for _ in range(rng.choice((1, 1, 2, 2, 3, 4))):
        _change_header(pairs, rng)
    if rng.randrange(8) == 0:
        content = changed_bytes(content, rng)
    text = _spelt(pairs, rng if rng.randrange(3) == 0 else None)
    header = text.encode("utf-8", "surrogatepass")
    match rng.randrange(12):
        case 0:
            header = changed_bytes(header, rng)
        case 1:
            header += rng.choice((b" ", b"\n", b"\0", b"\t", b"}", b"{}", b" " * 9, b",", b"\xa0"))
        case 2:
            header = rng.choice(_BEFORE).encode() + header
    length = len(header)
    if rng.randrange(20) == 0:
        length = rng.choice(
            (length + 1, max(length - 1, 0), 0, 1 << 63, 1 << 40, length + len(content))
        )
    return length.to_bytes(_LENGTH, "little") + header + content


def _change_header(pairs: Pairs, rng: Random) -> None:
    at = rng.randrange(len(pairs)) if pairs else 0
    match rng.randrange(9):
        case 0 if pairs:
            name, entry = pairs[at]
            pairs.insert(rng.randrange(len(pairs)), (rng.choice((name, name.upper())), entry))
        case 1 if pairs:
            del pairs[at]
        case 2 if pairs:
            pairs[at] = (rng.choice(_NAMES), pairs[at][1])
        case 3 if pairs:
            pairs[at] = (pairs[at][0], Raw(rng.choice(_RAW)))
        case 4:
            rng.shuffle(pairs)
        case 5:
            metadata: Any = rng.choice(
                (
                    [],
                    [("a", "b")],
                    [("a", 1)],
                    [("a", "b"), ("a", "c")],
                    Raw("null"),
                    Raw("[]"),
                    "x",
                )
            )
            pairs.insert(at, ("__metadata__", metadata))
        case 6 if len(pairs) > 1:
            other = rng.randrange(len(pairs))
            names = pairs[at][0], pairs[other][0]
            pairs[at], pairs[other] = (names[1], pairs[at][1]), (names[0], pairs[other][1])
        case _ if pairs and isinstance(pairs[at][1], list):
            pairs[at] = (pairs[at][0], entry := list(pairs[at][1]))
            _change_entry(entry, rng)


def _change_entry(entry: list[Any], rng: Random) -> None:
    if not entry:
        return
    at = rng.randrange(len(entry))
    key, value = entry[at]
    match rng.randrange(8):
        case 0:
            entry[at] = (key, Raw(rng.choice(_RAW)))
        case 1:
            entry.insert(rng.randrange(len(entry) + 1), (key, value))
        case 2:
            entry.append(
                (rng.choice(("extra", "Dtype", "shape", "dtype")), rng.choice((1, "F32", [])))
            )
        case 3:
            del entry[at]
        case 4:
            rng.shuffle(entry)
        case _ if key == "dtype":
            entry[at] = (key, rng.choice(_DTYPES))
        case _ if isinstance(value, list):
            entry[at] = (key, _other_list(value, rng))


def _other_list(value: list[Any], rng: Random) -> list[Any]:
    value = list(value)
    match rng.randrange(6):
        case 0:
            value.reverse()
        case 1:
            value.append(rng.choice((1, 0, 2)))
        case 2 if value:
            del value[rng.randrange(len(value))]
        case 3:
            value.insert(0, Raw(rng.choice(_RAW)))
        case _ if value:
            at = rng.randrange(len(value))
            if isinstance(value[at], int):
                value[at] += rng.choice((-8, -4, -1, 1, 4, 8))
    return value


def _spelt(value: Any, rng: Random | None) -> str:
    """JSON; with an ``rng``, with escapes and spaces here and there."""
    space = rng.choice(("", "", "", " ", "\n", "\r\t")) if rng else ""
    match value:
        case Raw():
            return space + value
        case list() if all(isinstance(member, tuple) for member in value) and value:
            pairs = (f"{_spelt(key, rng)}{space}:{_spelt(each, rng)}" for key, each in value)
            return space + "{" + f"{space},".join(pairs) + "}" + space
        case list():
            return f"[{','.join(_spelt(member, rng) for member in value)}]"
        case str():
            escaped = "".join(f"\\u{ord(c):04x}" if ord(c) < 0x10000 else c for c in value)  # noqa: PLR2004
            as_ascii = rng is not None and rng.randrange(3) == 0
            return f'"{escaped}"' if as_ascii else json.dumps(value, ensure_ascii=False)
    return json.dumps(value)
