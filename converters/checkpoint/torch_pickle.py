"""Pickles as torch reads them, written opcode by opcode without torch; the zip around them.

The standard library cannot write them: a tensor is a call of torch's own function on a storage that
lies outside the pickle. Protocol 2, as ``torch.save`` has it; see torch's ``_utils.py`` and
``_weights_only_unpickler.py`` for what is read.
"""

from __future__ import annotations

import pickle  # for the names of its opcodes; nothing is unpickled
import struct
from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from converters.checkpoint.torch_archive import TorchArchive
from converters.checkpoint.values import contiguous_stride
from converters.errors import InputError
from regnet.files.dtypes import COUNTER_DTYPE, DTYPES, ELEMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from converters.checkpoint import StoredTensor

_ARCHIVE_ROOT = "archive"
_ARCHIVE_VERSION = b"3\n"
"""Of torch's zip container, since torch 1.6; see its ``caffe2/serialize/versions.h``."""


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A tensor whose elements lie beside the pickle.

    Attributes:
        key: What the archive calls its elements: the entry ``data/KEY``.
        name: Its whole name in the state dict, for messages.
        stored: Where it comes from, and its shape; what lies beside the pickle is in C order.
        dtype: Of the elements beside the pickle.
        legacy: Whether it is for the container of torch before 1.6, which says of a storage also
            of which other one it is a part; of none, here.
    """

    key: str
    name: str
    stored: StoredTensor
    dtype: str
    legacy: bool = False


Value: TypeAlias = (
    "dict[str, Value] | Sequence[Value] | tuple[Value, ...]"
    " | str | int | float | bool | PickledTensor"
)


def program(*parts: bytes) -> bytes:
    """A whole pickle, whose parts build its one value."""
    return b"".join((pickle.PROTO, b"\x02", *parts, pickle.STOP))


def opcodes(content: Value) -> bytes:
    """The opcodes that build plain values and tensors, in any nest.

    Raises:
        InputError: If a tensor is of a dtype that a RegNet cannot have.
        TypeError: If something is neither.
    """
    match content:
        case str() | int():
            return _plain(content)
        case float():
            return pickle.BINFLOAT + struct.pack(">d", content)
        case PickledTensor():
            return _tensor(content)
        case tuple():
            return pickle.MARK + b"".join(map(opcodes, content)) + pickle.TUPLE
        case list():
            return pickle.EMPTY_LIST + _several(list(map(opcodes, content)), pickle.APPENDS)
        case dict():
            start = _ordered_dict() if isinstance(content, OrderedDict) else pickle.EMPTY_DICT
            items = [opcodes(key) + opcodes(item) for key, item in content.items()]
            return start + _several(items, pickle.SETITEMS)
    raise TypeError(f"{content!r} has no place in a checkpoint.")


def global_name(module: str, name: str) -> bytes:
    """The opcode that names a class or a function."""
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _several(items: list[bytes], end: bytes) -> bytes:
    return pickle.MARK + b"".join(items) + end if items else b""


def _ordered_dict() -> bytes:
    return global_name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE


def _plain(content: str | int) -> bytes:
    if isinstance(content, bool):
        return pickle.NEWTRUE if content else pickle.NEWFALSE
    if isinstance(content, str):
        text = content.encode()
        return pickle.BINUNICODE + len(text).to_bytes(4, "little") + text
    if content < 1 << 31:
        return pickle.BININT + content.to_bytes(4, "little")
    # torch reads a long integer of eight bytes and no other.
    return pickle.LONG1 + b"\x08" + content.to_bytes(8, "little")


def _tensor(tensor: PickledTensor) -> bytes:
    """A call of ``torch._utils._rebuild_tensor_v2``; no gradient is asked for."""
    stored = tensor.stored
    storage = (
        pickle.MARK
        + opcodes("storage")
        + global_name("torch", _storage_class(tensor))
        + opcodes(tensor.key)
        + opcodes("cpu")
        + opcodes(stored.numel)
        + (pickle.NONE if tensor.legacy else b"")
        + pickle.TUPLE
        + pickle.BINPERSID
    )
    layout = (
        opcodes(0)
        + opcodes(stored.shape)
        + opcodes(contiguous_stride(stored.shape))
        + opcodes(False)
    )
    arguments = pickle.MARK + storage + layout + _ordered_dict() + pickle.TUPLE
    return global_name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def _storage_class(tensor: PickledTensor) -> str:
    """What torch calls a storage of a dtype that a RegNet can have."""
    storage = ELEMENT_TYPES[tensor.dtype].storage
    if storage is None or tensor.dtype not in {*DTYPES, COUNTER_DTYPE}:
        raise InputError(
            f"{tensor.stored.storage.path.name}: {tensor.name} is {tensor.dtype}, which "
            "no RegNet computes in; convert the checkpoint again with `--dtype float32`."
        )
    return storage


def save_archive(
    place: Path | BinaryIO,
    tree: dict[str, Value],
    elements: Iterable[tuple[int, Iterable[bytes]]],
) -> None:
    """Write a zip as ``torch.save`` does, front to back.

    Args:
        place: A path, created or replaced; or a file open for writing, which is closed in the end.
        tree: What ``torch.load`` is to give; its tensors are called "0", "1" and so on.
        elements: Of the tensors in that order: how many bytes, and the bytes. Each is asked for
            when the file stands where the bytes belong.

    Raises:
        InputError: If a tensor is of a dtype that no RegNet computes in.
        OSError: If the file cannot be written.
    """
    content = program(opcodes(tree))
    with TorchArchive(place, _ARCHIVE_ROOT) as archive:
        archive.add("data.pkl", len(content), [content])
        archive.add("byteorder", len(b"little"), [b"little"])
        for key, (size, chunks) in enumerate(elements):
            archive.add(f"data/{key}", size, chunks)
        archive.add("version", len(_ARCHIVE_VERSION), [_ARCHIVE_VERSION])
