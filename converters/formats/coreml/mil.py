"""MIL, the language of ML programs: types, values and operations as messages.

Source: coremltools' ``mlmodel/format/MIL.proto``. Numbers of fields and types are those of that
file; ``tests/converters/formats/test_coreml.py`` holds them to coremltools' own classes.
"""

from __future__ import annotations

from struct import pack
from typing import TYPE_CHECKING

from converters.formats.coreml.wire import entries, message, packed, repeated

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from converters.formats.onnx.form import Element

    Dims = tuple[int | None, ...]  # None is open
    Scalar = bool | int | float | str

OPSET = "CoreML5"
"""Version of the operations: that of iOS 15 and macOS 12, the first systems with ML programs."""

WEIGHTS_FILE = "@model_path/weights/weight.bin"
"""How a program calls the file of its weights."""

CLASSIFY = "classify"
"""MIL's name of the operation that names classes."""

_TYPES = {"bool": 1, "string": 2, "float16": 10, "float32": 11, "float64": 12, "int32": 23}


def identifier(name: str) -> str:
    """The name of a value or tensor as MIL can have it: letters, digits and underscores."""
    return name.replace(".", "_")


def tensor_type(element: str, dims: Dims) -> bytes:
    """The type of tensors of some sizes."""
    sizes = (message((1, message((1, size)))) if size else message((2, b"")) for size in dims)
    return message((1, message((1, _TYPES[element]), (2, len(dims)), *repeated(3, sizes))))


def named_type(name: str, element: str, dims: Dims) -> bytes:
    """A value's name and type."""
    return message((1, name), (2, tensor_type(element, dims)))


def value(content: Scalar | Sequence[int], element: Element = "float32") -> bytes:
    """A number, a text, a truth, or a row of whole numbers.

    Args:
        content: Which.
        element: The type of a float.
    """
    match content:
        case bool():
            kind, tensor = "bool", (3, message((1, packed([content]))))
        case int():
            kind, tensor = "int32", (2, message((1, packed([content]))))
        case float() if element == "float16":
            kind, tensor = element, (7, message((1, pack("<e", content))))
        case float():
            kind, tensor = element, (1, message((1, pack("<f", content))))
        case str():
            kind, tensor = "string", (4, message(*repeated(1, [content])))
        case _:
            kind, tensor = "int32", (2, message((1, packed(content))))
    dims = () if isinstance(content, bool | int | float | str) else (len(content),)
    return message((2, tensor_type(kind, dims)), (3, message((1, message(tensor)))))


def numbers(content: Sequence[float], dims: Dims) -> bytes:
    """Numbers in float32, in some sizes."""
    tensor = (1, message((1, pack(f"<{len(content)}f", *content))))
    return message((2, tensor_type("float32", dims)), (3, message((1, message(tensor)))))


def stored(element: Element, dims: Dims, offset: int) -> bytes:
    """A tensor in the file of the weights, described there at an offset in bytes."""
    place = message((1, WEIGHTS_FILE), (2, offset))
    return message((2, tensor_type(element, dims)), (5, place))


def constant(name: str, kind: bytes, content: bytes) -> bytes:
    """An operation that makes a value of nothing.

    Args:
        name: Of the value.
        kind: Its name and type, as :func:`named_type` gives them.
        content: From :func:`value` or :func:`stored`.
    """
    says = {"name": value(name), "val": content}
    return message((1, "const"), (3, kind), *entries(5, says))


def operation(kind: str, name: str, reads: Mapping[str, str], made: bytes) -> bytes:
    """An operation.

    Args:
        kind: Such as ``conv``.
        name: Its own.
        reads: Its inputs: their names to those of the values.
        made: Name and type of the value, as :func:`named_type` gives them.
    """
    inputs = {key: message((1, message((1, read)))) for key, read in reads.items()}
    says = {"name": value(name)}
    return message((1, kind), *entries(2, inputs), (3, made), *entries(5, says))


def classification(label: str, scores: str, reads: str, classes: Sequence[str]) -> bytes:
    """The operation that gives classes their names: the best one's, and a score under each.

    Args:
        label: Name of the text that it makes.
        scores: Of the dictionary.
        reads: Name of the values, (1, classes).
        classes: Names, none of them twice.
    """
    text, double = tensor_type("string", ()), tensor_type("float64", ())
    length = message((1, message((1, len(classes)))))
    texts = message(*repeated(1, map(value, classes)))
    held = message((2, message((2, message((1, text), (2, length))))), (3, message((3, texts))))
    inputs = {
        "classes": message((1, message((2, held)))),
        "probabilities": message((1, message((1, reads)))),
    }
    named = message((1, scores), (2, message((4, message((1, text), (2, double))))))
    outputs = [named_type(label, "string", ()), named]
    says = {"name": value("classify")}
    return message((1, CLASSIFY), *entries(2, inputs), *repeated(3, outputs), *entries(5, says))


def program(inputs: Sequence[bytes], operations: Sequence[bytes], outputs: Sequence[str]) -> bytes:
    """A program of one function, ``main``.

    Args:
        inputs: Names and types, as :func:`named_type` gives them.
        operations: In an order in which they can be computed.
        outputs: Names of the values that it returns.
    """
    block = message(*repeated(2, outputs), *repeated(3, operations))
    function = message(*repeated(1, inputs), (2, OPSET), *entries(3, {OPSET: block}))
    return message((1, 1), *entries(2, {"main": function}))
