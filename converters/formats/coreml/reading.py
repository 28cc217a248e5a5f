"""Core ML packages, read without anything that writes them or that Apple made.

A package is untrusted: its messages are taken apart within their bounds, weights are mapped, and
nothing is computed. Numbers of fields are those of coremltools' ``mlmodel/format/MIL.proto``,
``Model.proto`` and ``FeatureTypes.proto``; of the weights, of its ``StorageFormat.hpp``.
"""

from __future__ import annotations

import mmap
from collections import defaultdict
from dataclasses import dataclass
from struct import Struct, unpack
from typing import TYPE_CHECKING

from converters.formats.coreml.formats import MODEL, WEIGHTS

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    Content = int | memoryview
    Fields = Mapping[int, list[Content]]

_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}
_LONGEST_VARINT = 10

_ELEMENTS = {1: "bool", 2: "string", 10: "float16", 11: "float32", 23: "int32"}
"""MIL's numbers of the element types that are read."""

_IN_A_FILE = 5
"""Field of a value whose numbers lie in a file."""

_IMAGE = 4
"""Field of the type of an input that is an image."""

CLASSIFY = "classify"
"""MIL's name of the operation that gives classes their names."""

_BLOB = Struct("<IIQQ")
_BLOB_MARK = 0xDEADBEEF
_BLOB_ELEMENTS = {1: "float16", 2: "float32"}
_ITEM_SIZES = {"float16": 2, "float32": 4}
_WEIGHTS_FILE = "@model_path/weights/weight.bin"


@dataclass(frozen=True, slots=True)
class Kind:
    """The type of a tensor: its elements, and its sizes, None where open."""

    element: str
    sizes: tuple[int | None, ...]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tensor is described: a file and an offset in bytes."""

    file: str
    offset: int


Constant = bool | int | float | str | tuple[float, ...] | tuple[str, ...] | Place
"""What a program holds of itself: numbers, texts, and places of tensors."""


@dataclass(frozen=True, slots=True)
class Step:
    """An operation.

    Attributes:
        kind: MIL's name, ``const`` of those that make a value of nothing.
        name: Of the value that it makes; of several the first.
        made: Type of that value.
        reads: Names of its inputs to names of values.
        constant: What a ``const`` holds; of ``classify`` the names of the classes.
        message: The whole operation as it lies in the file.
    """

    kind: str
    name: str
    made: Kind
    reads: Mapping[str, str]
    constant: Constant | None
    message: bytes


@dataclass(frozen=True, slots=True)
class Package:
    """What a package holds.

    Attributes:
        model: Its ``model.mlmodel``.
        metadata: What it states of itself.
        inputs: Name to type of each input of the program.
        steps: In the order of the file.
        outputs: Names of the values that it returns.
        weights: The file of the weights, mapped.
        takes_images: Whether its input is described as an image, of which bytes are taken.
    """

    model: bytes
    metadata: Mapping[str, str]
    inputs: Mapping[str, Kind]
    steps: tuple[Step, ...]
    outputs: tuple[str, ...]
    weights: memoryview
    takes_images: bool

    @property
    def classes(self) -> tuple[str, ...]:
        """The names that it gives its classes; empty if it gives none."""
        found = [step.constant for step in self.steps if step.kind == CLASSIFY]
        return tuple(map(str, found[0])) if found and isinstance(found[0], tuple) else ()

    def elements(self, step: Step) -> tuple[str, memoryview]:
        """The element type and the bytes of a tensor that lies in the file of the weights.

        Raises:
            ValueError: If nothing is described where it says, or that does not fit its type.
        """
        place = step.constant
        if not isinstance(place, Place) or place.file != _WEIGHTS_FILE:
            raise ValueError(f"{step.name} does not lie in the file of the weights")
        mark, number, size, begin = _BLOB.unpack(_part(self.weights, place.offset, _BLOB.size))
        if mark != _BLOB_MARK or number not in _BLOB_ELEMENTS:
            raise ValueError(f"no tensor is described where {step.name} is said to be")
        return _BLOB_ELEMENTS[number], _part(self.weights, begin, size)


def read_package(path: Path) -> Package:
    """Take a package apart.

    Raises:
        OSError: If a file of it cannot be opened.
        ValueError: If it is no package of one ML program, or of more than is read here.
    """
    return read_model((path / MODEL).read_bytes(), _mapped(path / WEIGHTS))


def stated_in_package(path: Path) -> Mapping[str, str]:
    """What a package states of itself; raises as :func:`read_package` does."""
    return read_package(path).metadata


def read_model(model: bytes, weights: memoryview) -> Package:
    """The same of a ``model.mlmodel`` and the file of its weights."""
    fields = _fields(memoryview(model))
    description = _message(fields, 2)
    function = _only(_map(_message(fields, 502), 2), "function")
    block = _only(_map(function, 3), "block")
    return Package(
        model,
        {key: _text(entry) for key, entry in _contents(_message(description, 100), 100).items()},
        dict(map(_named, _messages(function, 1))),
        tuple(_step(content) for content in block.get(3, [])),
        tuple(_text(name) for name in block.get(2, [])),
        weights,
        any(_IMAGE in _message(feature, 3) for feature in _messages(description, 1)),
    )


def _mapped(path: Path) -> memoryview:
    with path.open("rb") as file:
        return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _step(content: Content) -> Step:
    fields = _fields(content)
    kind = _text(_single(fields, 1))
    if fields.get(4):
        raise ValueError(f"an operation {kind} has blocks of its own")
    if kind == CLASSIFY:
        return _classification(fields, content)
    name, made = _named(_message(fields, 3))
    says = _map(fields, 5)
    reads = {key: _read(entry) for key, entry in _map(fields, 2).items()}
    constant = _constant(says["val"]) if kind == "const" else None
    return Step(kind, name, made, reads, constant, bytes(_view(content)))


def _classification(fields: Fields, content: Content) -> Step:
    name, made = _named(_messages(fields, 3)[0])
    inputs = _map(fields, 2)
    texts = _message(_message(_message(_message(inputs["classes"], 1), 2), 3), 3)
    classes = tuple(str(_constant(each)) for each in _messages(texts, 1))
    reads = {"probabilities": _read(inputs["probabilities"])}
    return Step(CLASSIFY, name, made, reads, classes, bytes(_view(content)))


def _read(argument: Fields) -> str:
    binding = _message(argument, 1)
    return _text(_single(binding, 1))


def _named(fields: Fields) -> tuple[str, Kind]:
    return _text(_single(fields, 1)), _kind(_message(fields, 2))


def _kind(fields: Fields) -> Kind:
    tensor = _message(fields, 1)
    sizes = tuple(_size(size) for size in _messages(tensor, 3))
    number = _number(_single(tensor, 1))
    return Kind(_ELEMENTS.get(number, f"type {number}"), sizes)


def _size(dimension: Fields) -> int | None:
    return _number(_single(_message(dimension, 1), 1)) if 1 in dimension else None


def _constant(value: Fields) -> Constant:
    """What a value is: a number, a text, a row of numbers, or where a tensor lies."""
    kind = _kind(_message(value, 2))
    if _IN_A_FILE in value:
        place = _message(value, _IN_A_FILE)
        return Place(_text(_single(place, 1)), _number(_single(place, 2)))
    tensor = _message(_message(value, 3), 1)
    ((number, contents),) = tensor.items()
    content = _single(_fields(contents[-1]), 1)
    match number, kind.element:
        case 1, "float32":
            view = _view(content)
            reals: tuple[float, ...] = unpack(f"<{len(view) // 4}f", view)
            return reals if kind.sizes else reals[0]
        case 7, "float16":
            (real,) = unpack("<e", _view(content))
            return float(real)
        case 2, "int32":
            whole = tuple(_signed(one) for one in _unpacked(content))
            return whole if kind.sizes else whole[0]
        case 3, "bool":
            return bool(_unpacked(content)[0])
        case 4, "string":
            return _text(content)
    raise ValueError(f"a constant of {kind.element} is none that is read here")


def _unpacked(content: Content) -> list[int]:
    view, numbers, at = _view(content), [], 0
    while at < len(view):
        number, at = _varint(view, at)
        numbers.append(number)
    return numbers


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number


def _only(entries: Mapping[str, Fields], what: str) -> Fields:
    if len(entries) != 1:
        raise ValueError(f"it has {len(entries)} {what}s instead of one")
    return next(iter(entries.values()))


def _map(fields: Fields, number: int) -> dict[str, Fields]:
    return {key: _fields(content) for key, content in _contents(fields, number).items()}


def _contents(fields: Fields, number: int) -> dict[str, Content]:
    """What a field maps each text to."""
    found = (_fields(entry) for entry in fields.get(number, []))
    return {_text(_single(entry, 1)): _single(entry, 2) for entry in found}


def _messages(fields: Fields, number: int) -> list[Fields]:
    return [_fields(content) for content in fields.get(number, [])]


def _message(fields: Fields, number: int) -> Fields:
    return _fields(_single(fields, number))


def _single(fields: Fields, number: int) -> Content:
    """The content of a field that occurs once."""
    found = fields.get(number, [])
    if len(found) != 1:
        raise ValueError(f"a message has {len(found)} fields {number} instead of one")
    return found[0]


def _text(content: Content) -> str:
    return bytes(_view(content)).decode()


def _number(content: Content) -> int:
    if not isinstance(content, int):
        raise ValueError("a message has bytes where a number belongs")
    return content


def _view(content: Content) -> memoryview:
    if isinstance(content, int):
        raise ValueError("a message has a number where bytes belong")
    return content


def _fields(content: Content) -> Fields:
    """The fields of a message, number to contents, in its order.

    Raises:
        ValueError: If it ends inside a field, or is no protobuf.
    """
    message = _view(content)
    found: dict[int, list[Content]] = defaultdict(list)
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == _VARINT:
            number, at = _varint(message, at)
            found[tag >> 3].append(number)
            continue
        if kind == _BYTES:
            size, at = _varint(message, at)
        elif kind in _FIXED_SIZES:
            size = _FIXED_SIZES[kind]
        else:
            raise ValueError(f"it is no protobuf, for a field has wire type {kind}")
        found[tag >> 3].append(_part(message, at, size))
        at += size
    return dict(found)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and what comes after it: seven bits a byte, lowest first."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * place
        if byte < 0x80:  # noqa: PLR2004 -- the top bit says that another byte follows
            return value, at + place + 1
    raise ValueError("it ends inside a number")


def _part(view: memoryview, offset: int, length: int) -> memoryview:
    if not 0 <= offset <= offset + length <= len(view):
        raise ValueError(f"it ends at byte {len(view)}, where {offset + length} are needed")
    return view[offset : offset + length]
