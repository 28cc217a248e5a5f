"""Pickles as lists of instructions, changed one by one and written anew.

Most changes keep a pickle one that can be read: another number, another text or name, the same
value spelt by another instruction. The rest are deletions, copies and insertions of instructions.
"""

from __future__ import annotations

import pickletools
import struct
import warnings
from dataclasses import dataclass, replace
from io import BytesIO
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction.

    Attributes:
        name: As :mod:`pickletools` calls it.
        argument: What :mod:`pickletools` makes of its operand.
        raw: Its bytes, with the operand.
    """

    name: str
    argument: Any
    raw: bytes


def parsed(data: bytes) -> tuple[list[Instruction], bytes]:
    """Take apart one pickle; the bytes behind it come second.

    Raises:
        ValueError: It is none.
    """
    stream = BytesIO(data)
    with warnings.catch_warnings(action="ignore"):
        steps = [(op.name, argument, at or 0) for op, argument, at in pickletools.genops(stream)]
    ends = [at for _, _, at in steps[1:]] + [stream.tell()]
    instructions = [
        Instruction(name, argument, data[at:end])
        for (name, argument, at), end in zip(steps, ends, strict=True)
    ]
    return instructions, data[stream.tell() :]


def written(instructions: list[Instruction]) -> bytes:
    """Write instructions one behind another."""
    return b"".join(instruction.raw for instruction in instructions)


_CODES = {opcode.name: opcode.code.encode("latin-1") for opcode in pickletools.opcodes}

_INTEGERS: dict[str, Callable[[int], bytes]] = {
    "INT": lambda n: b"I%d\n" % n,
    "LONG": lambda n: b"L%dL\n" % n,
    "BININT": lambda n: b"J" + struct.pack("<i", n),
    "BININT1": lambda n: b"K" + struct.pack("<B", n),
    "BININT2": lambda n: b"M" + struct.pack("<H", n),
    "LONG1": lambda n: b"\x8a" + struct.pack("<B", _width(n)) + _long(n),
    "LONG4": lambda n: b"\x8b" + struct.pack("<i", _width(n)) + _long(n),
}

_TEXTS: dict[str, Callable[[str], bytes]] = {
    "BINUNICODE": lambda t: b"X" + struct.pack("<I", len(_utf8(t))) + _utf8(t),
    "SHORT_BINUNICODE": lambda t: b"\x8c" + struct.pack("<B", len(_utf8(t))) + _utf8(t),
    "BINUNICODE8": lambda t: b"\x8d" + struct.pack("<Q", len(_utf8(t))) + _utf8(t),
    "UNICODE": lambda t: b"V" + t.encode("raw_unicode_escape") + b"\n",
    "STRING": lambda t: b"S'" + t.encode("latin-1") + b"'\n",
    "SHORT_BINSTRING": lambda t: b"U" + struct.pack("<B", len(_latin(t))) + _latin(t),
    "BINSTRING": lambda t: b"T" + struct.pack("<i", len(_latin(t))) + _latin(t),
    "SHORT_BINBYTES": lambda t: b"C" + struct.pack("<B", len(_latin(t))) + _latin(t),
}

_MEMOS: dict[str, Callable[[int], bytes]] = {
    "PUT": lambda n: b"p%d\n" % n,
    "BINPUT": lambda n: b"q" + struct.pack("<B", n),
    "LONG_BINPUT": lambda n: b"r" + struct.pack("<I", n),
    "GET": lambda n: b"g%d\n" % n,
    "BINGET": lambda n: b"h" + struct.pack("<B", n),
    "LONG_BINGET": lambda n: b"j" + struct.pack("<I", n),
}

_NUMBERS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 12, 24, 100, 255, 256, 65535, 65536, -1, -2, (1 << 31) - 1,
            1 << 31, 1 << 40, (1 << 63) - 1, 1 << 63, 1 << 64, True, False)  # fmt: skip

_NAMES = (
    *(f"torch {kind}Storage" for kind in (
        "Float", "Double", "Half", "BFloat16", "Long", "Int", "Short", "Char", "Byte", "Bool",
        "ComplexFloat", "QInt8", "QUInt8", "QInt32", "Untyped", "Typed")),
    *("torch.storage UntypedStorage", "torch.storage TypedStorage", "torch.cuda FloatStorage"),
    *(f"torch._utils _rebuild_{what}" for what in (
        "tensor", "tensor_v2", "tensor_v3", "parameter", "parameter_with_state", "qtensor",
        "sparse_tensor", "meta_tensor_no_storage", "device_tensor_from_numpy")),
    *("torch._tensor _rebuild_from_type_v2", "torch Tensor", "torch Size", "torch device"),
    *(f"torch {dtype}" for dtype in ("float16", "float32", "uint16", "uint8", "int64", "bool")),
    *("torch.nn.parameter Parameter", "collections OrderedDict", "collections defaultdict"),
    *("collections Counter", "builtins set", "builtins dict", "builtins list", "builtins tuple"),
    *("builtins frozenset", "builtins bytes", "builtins bytearray", "builtins complex"),
    *("__builtin__ set", "__builtin__ list", "copy_reg _reconstructor", "__builtin__ object"),
    *("numpy._core.multiarray _reconstruct", "numpy._core.numeric _frombuffer", "numpy ndarray"),
    *("_codecs encode", "numpy._core.multiarray scalar", "numpy dtype", "yacs.config CfgNode"),
    *("argparse Namespace", "somebody Else", "torch.float32 real", "torch.nn.parameter Buffer"),
)  # fmt: skip
"""None of these runs code."""

_WORDS = (
    "", "0", "1", "a", "b", "cpu", "cuda:0", "meta", "storage", "module", "latin1", "utf-8", "data",
    "real", "weight", "Weight", "\xe9", "\u212a", "weight\0", "w/e", "'", "\\n", "1.5",
)  # fmt: skip


_PLAIN = (
    "NONE", "NEWTRUE", "NEWFALSE", "EMPTY_LIST", "EMPTY_TUPLE", "EMPTY_DICT", "EMPTY_SET", "MARK",
    "POP", "POP_MARK", "DUP", "STOP", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "LIST", "DICT",
    "FROZENSET", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS", "BUILD", "REDUCE",
    "NEWOBJ", "NEWOBJ_EX", "OBJ", "BINPERSID", "MEMOIZE", "STACK_GLOBAL", "READONLY_BUFFER",
    "NEXT_BUFFER",
)  # fmt: skip

_EQUAL = {
    "EMPTY_DICT": (b"(d",),
    "EMPTY_LIST": (b"(l",),
    "EMPTY_TUPLE": (b"(t",),
    "NEWTRUE": (b"I01\n",),
    "NEWFALSE": (b"I00\n",),
    "NONE": (b"(NN1N", *(b"(X\1\0\0\0v" + view for view in (b"K\0K\1t", b"K\1K\2t"))),
    "DUP": (b"\x940h\0",),
    "POP": (b"(10",),
    "NEWOBJ": (b"R",),
    "REDUCE": (b"\x81",),
}
"""Other spellings; of None also a view of a storage, where one may stand; the last four only in
places."""


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _latin(text: str) -> bytes:
    return text.encode("latin-1")


def _width(number: int) -> int:
    return 0 if not number else number.bit_length() // 8 + 1


def _long(number: int) -> bytes:
    return number.to_bytes(_width(number), "little", signed=True)


def change(data: bytes, rng: Random, other: bytes | None = None) -> bytes:
    """Change a pickle, and leave what stands behind it.

    Args:
        data: Begins with the pickle.
        rng: Decides everything.
        other: Another pickle, of which instructions may be taken.
    """
    try:
        steps, behind = parsed(data)
    except (ValueError, struct.error, OverflowError):
        return changed_bytes(data, rng)
    for _ in range(rng.choice((1, 1, 1, 2, 2, 3, 5))):
        kind = rng.random()
        if kind < 0.72:  # noqa: PLR2004 -- about three of four
            _replace_one(steps, rng)
        elif kind < 0.96:  # noqa: PLR2004 -- almost all of the rest
            _rearrange(steps, rng, other)
        else:
            return changed_bytes(written(steps), rng) + behind
    return written(steps) + behind


def changed_bytes(data: bytes, rng: Random) -> bytes:
    """Change, add or leave out some bytes."""
    at = rng.randrange(len(data)) if data else 0
    before, there, behind = data[:at], data[at : at + 1] or b"\0", data[at + 1 :]
    word = rng.choice((bytes(4), b"\xff" * 4, b"\1\0\0\0", b"\x7f", rng.randbytes(1)))
    return rng.choice(
        (
            before + bytes([there[0] ^ (1 << rng.randrange(8))]) + behind,
            before + word + data[at + len(word) :],
            before + data[at + rng.choice((1, 2, 4, 8)) :],
            before + data[at : at + rng.randrange(1, 9)] + data[at:],
            before,
            data + rng.randbytes(8),
        )
    )


def _replace_one(steps: list[Instruction], rng: Random) -> None:
    """Give an instruction another argument, or spell it otherwise."""
    kinds = (*_INTEGERS, *_TEXTS, *_MEMOS, *_EQUAL, "GLOBAL", "BINFLOAT", "PROTO", "FRAME")
    indices = [index for index, step in enumerate(steps) if step.name in kinds]
    if not indices:
        return
    index = rng.choice(indices)
    raw = _other(steps[index], steps, rng)
    if raw is not None:
        steps[index] = replace(steps[index], raw=raw)


def _other(step: Instruction, steps: list[Instruction], rng: Random) -> bytes | None:
    """The bytes of another instruction in its place; None if it cannot be spelt."""
    try:
        if step.name in _INTEGERS:
            return _other_number(step, steps, rng)
        if step.name in _TEXTS and isinstance(step.argument, str):
            there = [s.argument for s in steps if s.name in _TEXTS and isinstance(s.argument, str)]
            own = step.argument
            text = rng.choice((own, rng.choice(there), rng.choice(_WORDS), own.upper()))
            return rng.choice([_TEXTS[step.name], *_TEXTS.values()])(text)
        if step.name in _MEMOS:
            slots: list[int] = [s.argument for s in steps if s.name in _MEMOS]
            slot: int = step.argument
            alike = [f for n, f in _MEMOS.items() if ("GET" in n) == ("GET" in step.name)]
            return rng.choice(alike)(rng.choice((slot, slot + 1, slot - 1, rng.choice(slots))))
    except (struct.error, UnicodeError, OverflowError, ValueError):
        return None
    return _other_plain(step, rng)


def _other_number(step: Instruction, steps: list[Instruction], rng: Random) -> bytes:
    own: int = step.argument
    there: int = rng.choice([s.argument for s in steps if s.name in _INTEGERS])
    near = (own + 1, own - 1, own * 2, own // 2)
    number = rng.choice((own, own, *near, there, rng.choice(_NUMBERS)))
    if step.name == "INT" or rng.randrange(20) == 0:
        return rng.choice((b"I0%d\n", b"I0x%x\n", b"I %d\n", b"I%d_0\n", b"L0%dL\n")) % number
    if isinstance(number, bool):
        return rng.choice((b"I01\n", b"\x88") if number else (b"I00\n", b"\x89"))
    return rng.choice([_INTEGERS[step.name], *_INTEGERS.values()])(number)


def _other_plain(step: Instruction, rng: Random) -> bytes | None:
    match step.name:
        case "GLOBAL":
            module, _, name = rng.choice((*_NAMES, step.argument)).partition(" ")
            if rng.randrange(4):
                return f"c{module}\n{name}\n".encode()
            return _TEXTS["BINUNICODE"](module) + _TEXTS["BINUNICODE"](name) + b"\x93"
        case "BINFLOAT":
            return b"G" + struct.pack(">d", rng.choice((0.0, -0.0, 1.5, float("nan"), 1e308)))
        case "PROTO":
            return b"\x80" + bytes([rng.choice((0, 1, 2, 3, 4, 5, 6, 255))])
        case "FRAME":
            size = rng.choice((0, 1, 2, step.argument + 1, max(step.argument - 1, 0), 1 << 40))
            return b"\x95" + struct.pack("<Q", size)
    return rng.choice(_EQUAL[step.name]) if step.name in _EQUAL else None


def _rearrange(steps: list[Instruction], rng: Random, other: bytes | None) -> None:
    """Delete, double, move or insert instructions."""
    at = rng.randrange(len(steps))
    match rng.randrange(6):
        case 0:
            del steps[at : at + rng.choice((1, 1, 2, 3))]
        case 1:
            start = rng.randrange(len(steps))
            steps[at:at] = steps[start : start + rng.choice((1, 1, 2, 5, 10, 20))]
        case 2:
            other_at = rng.randrange(len(steps))
            steps[at], steps[other_at] = steps[other_at], steps[at]
        case 3 if other is not None:
            theirs, _ = parsed(other)
            start = rng.randrange(len(theirs))
            steps[at:at] = theirs[start : start + rng.choice((1, 2, 5, 20))]
        case _:
            steps.insert(at, _any_instruction(rng))
    if not steps:
        steps.append(Instruction("STOP", None, b"."))


def _any_instruction(rng: Random) -> Instruction:
    kind = rng.randrange(6)
    if kind == 0:
        return Instruction("GLOBAL", "", f"c{rng.choice(_NAMES).replace(' ', chr(10))}\n".encode())
    if kind == 1:
        return Instruction("BINGET", 0, b"h" + bytes([rng.randrange(12)]))
    if kind == 2:  # noqa: PLR2004 -- one of six
        return Instruction("BINPUT", 0, b"q" + bytes([rng.randrange(12)]))
    if kind == 3:  # noqa: PLR2004
        return Instruction("BININT1", 0, b"K" + bytes([rng.randrange(12)]))
    name = rng.choice(_PLAIN)
    return Instruction(name, None, _CODES[name])
