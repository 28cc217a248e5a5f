"""Messages of protobuf, whole and broken, and what protobuf's own library reads in them."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np


def varint(value: int) -> bytes:
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def run(number: int, content: bytes | str) -> bytes:
    """A field with a length."""
    data = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(data)) + data


def number(field: int, value: int) -> bytes:
    """A field that is a number."""
    return varint(field << 3) + varint(value)


def tensor(
    dims: tuple[int, ...] = (2,),
    kind: str = "Float32",
    content: bytes = bytes(8),
    more: bytes = b"",
) -> bytes:
    """The content of a tensor."""
    axes = b"".join(number(1, size) for size in dims)
    return axes + run(2, kind) + run(3, content) + more


def entry(name: str | bytes = "a", content: bytes | None = None, more: bytes = b"") -> bytes:
    """An entry of a checkpoint, by default a tensor of two zeros."""
    return run(1, run(1, name) + run(2, tensor() if content is None else content) + more)


def of_array(name: str, array: np.ndarray) -> bytes:
    """An entry as MindSpore writes it."""
    kind = {"f4": "Float32", "f2": "Float16", "i8": "Int64", "b1": "Bool"}[array.dtype.str[1:]]
    return entry(name, tensor(array.shape or (0,), kind, array.tobytes()))


@cache
def message() -> Any:
    """Protobuf's class for a checkpoint, of MindSpore's ``checkpoint.proto``."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    kinds = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="mindspore_checkpoint.proto", package="ms")
    for owner, fields in (
        ("Checkpoint", (("value", 1, kinds.TYPE_MESSAGE, ".ms.Value", True),)),
        (
            "Value",
            (
                ("tag", 1, kinds.TYPE_STRING, "", False),
                ("tensor", 2, kinds.TYPE_MESSAGE, ".ms.TensorProto", False),
            ),
        ),
        (
            "TensorProto",
            (
                ("dims", 1, kinds.TYPE_INT64, "", True),
                ("tensor_type", 2, kinds.TYPE_STRING, "", False),
                ("tensor_content", 3, kinds.TYPE_BYTES, "", False),
            ),
        ),
    ):
        described = file.message_type.add(name=owner)
        for name, place, kind, of, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            described.field.add(
                name=name, number=place, type=kind, label=label, type_name=of or None
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("ms.Checkpoint"))


Read = dict[str, tuple[tuple[int, ...], str, bytes]]


def theirs(data: bytes) -> Read | None:
    """Name to axes, type and bytes of tensors, as MindSpore takes them; None if it would not.

    Source: mindspore 2.10 ``train/serialization.py``, ``_load_ckpt_into_param_dict``.
    """
    from google.protobuf.message import DecodeError

    parsed = message()()
    try:
        parsed.ParseFromString(data)
    except DecodeError:
        return None
    found: Read = {}
    pieces: list[bytes] = []
    values = list(parsed.value)
    for index, value in enumerate(values):
        pieces.append(value.tensor.tensor_content)
        if index + 1 == len(values) or values[index + 1].tag != value.tag:
            dims = tuple(value.tensor.dims)
            shape = () if dims == (0,) else dims
            found[value.tag] = (shape, value.tensor.tensor_type, b"".join(pieces))
            pieces.clear()
    return found
