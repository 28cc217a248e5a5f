"""Changes of graphs: of ONNX node by node, of TorchScript's code line by line."""

from __future__ import annotations

import re
from collections import defaultdict
from typing import TYPE_CHECKING, TypeVar

import onnx
from onnx import AttributeProto, GraphProto, NodeProto, helper

from fuzz.differential.pickles import changed_bytes

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

_T = TypeVar("_T")

_OPERATORS = (
    "Relu", "Sigmoid", "HardSigmoid", "HardSwish", "Identity", "Neg", "Abs", "Tanh", "Softplus",
    "Conv", "Gemm", "MatMul", "Mul", "Add", "Sub", "Div", "Max", "GlobalAveragePool",
    "GlobalMaxPool", "AveragePool", "MaxPool", "BatchNormalization", "Flatten", "ReduceMean",
)  # fmt: skip
_ATTRIBUTES: tuple[tuple[str, object], ...] = (
    ("pads", [1, 1, 1, 1]), ("pads", [0, 0, 1, 1]), ("strides", [2, 2]), ("strides", [2, 1]),
    ("dilations", [2, 2]), ("group", 2), ("kernel_shape", [3, 3]), ("auto_pad", "SAME_UPPER"),
    ("auto_pad", "VALID"), ("alpha", 0.5), ("beta", 0.5), ("transA", 1), ("transB", 0), ("axis", 2),
    ("axes", [2]), ("keepdims", 0), ("epsilon", 1e-3), ("training_mode", 1), ("ceil_mode", 1),
    ("count_include_pad", 1),
)  # fmt: skip
_INTEGERS = (-1, 0, 1, 1, 2, 2, 3)
_FLOATS = (0.0, 1.0, -1.0, 0.5, 1e-5, 1e-3, 6.0)


def changed_onnx(content: bytes, rng: Random) -> bytes:
    """Change a model."""
    model = onnx.load_model_from_string(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _change(model.graph, rng)
    if rng.randrange(20) == 0:
        model.opset_import[0].version += rng.choice((-5, -1, 1))
    data = bytes(model.SerializeToString())
    return changed_bytes(data, rng) if rng.randrange(20) == 0 else data


def _change(graph: GraphProto, rng: Random) -> None:
    at = rng.randrange(len(graph.node))
    node = graph.node[at]
    values = [
        *(i.name for i in graph.initializer),
        *(name for n in graph.node for name in n.output),
    ]
    match rng.randrange(13):
        case 0 | 1 | 2 | 3:
            _change_attribute(node, rng)
        case 11 | 12:
            _exchange_attributes(graph, rng)
        case 4 if node.input:
            node.input[rng.randrange(len(node.input))] = rng.choice(values)
        case 5:
            node.op_type = rng.choice(_OPERATORS)
        case 6:
            _leave_out(graph, at)
        case 7:
            _put_in(graph, at, rng.choice(_OPERATORS[:9]))
        case 8:
            _exchange(graph, rng)
        case 9:
            inputs = rng.sample(list(node.input), len(node.input))
            node.input[:] = inputs
        case _:
            other = graph.node[rng.randrange(len(graph.node))]
            node.input[0], other.input[0] = other.input[0], node.input[0]


def _change_attribute(node: NodeProto, rng: Random) -> None:
    attribute = rng.choice(node.attribute) if node.attribute else AttributeProto()
    if rng.randrange(4) == 0 or not node.attribute:
        key, value = rng.choice(_ATTRIBUTES)
        for old in [a for a in node.attribute if a.name == key]:
            node.attribute.remove(old)
        node.attribute.append(helper.make_attribute(key, value))
    elif rng.randrange(4) == 0:
        node.attribute.remove(attribute)
    elif attribute.ints:
        at = rng.choice((slice(None), slice(rng.randrange(len(attribute.ints)), None, 99)))
        attribute.ints[at] = [rng.choice(_INTEGERS)] * len(attribute.ints[at])
    elif attribute.type == AttributeProto.INT:
        attribute.i = rng.choice(_INTEGERS)
    elif attribute.type == AttributeProto.FLOAT:
        attribute.f = rng.choice((*_FLOATS, attribute.f * 2))


def _exchange_attributes(graph: GraphProto, rng: Random) -> None:
    """Exchange what two nodes state of one thing: strides, and values may keep their shapes."""
    stated: dict[str, list[AttributeProto]] = defaultdict(list)
    for node in graph.node:
        for attribute in node.attribute:
            stated[attribute.name].append(attribute)
    one, other = _two_unlike(list(stated.values()), rng, AttributeProto.SerializeToString)
    before = AttributeProto.FromString(one.SerializeToString())
    one.CopyFrom(other)
    other.CopyFrom(before)


def _two_unlike(groups: list[list[_T]], rng: Random, content: Callable[[_T], bytes]) -> list[_T]:
    """Two of a group that say different things; where all say the same, one twice."""
    mixed = [group for group in groups if len(set(map(content, group))) > 1]
    group = rng.choice(mixed or groups)
    one = rng.choice(group)
    return [one, rng.choice([each for each in group if content(each) != content(one)] or [one])]


def _leave_out(graph: GraphProto, at: int) -> None:
    """Let those that read a node's value read what it reads."""
    node = graph.node.pop(at)
    for reader in graph.node:
        reader.input[:] = [node.input[0] if name in node.output else name for name in reader.input]
    for output in graph.output:
        if output.name in node.output:
            output.name = node.input[0]


def _put_in(graph: GraphProto, at: int, operator: str) -> None:
    """Compute something more of a node's value, which its readers read."""
    node: NodeProto = graph.node[at]
    before = f"{node.output[0]}_before"
    graph.node.insert(at + 1, helper.make_node(operator, [before], [node.output[0]]))
    node.output[0] = before


def _exchange(graph: GraphProto, rng: Random) -> None:
    """Exchange two tensors of one shape."""
    one = rng.choice(graph.initializer)
    alike = [i for i in graph.initializer if i.dims == one.dims and i.data_type == one.data_type]
    other = rng.choice(alike)
    one.name, other.name = other.name, one.name


_LIST = re.compile(rb"\[-?[0-9]+(?:, *-?[0-9]+)*\]")
_LINE = re.compile(rb"[^\n]+")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_0-9.]*|-?[0-9]+(?:\.[0-9]*)?(?:e-?[0-9]+)?")


def changed_code(content: bytes, rng: Random) -> bytes:
    """Exchange words or lines of a text, leave them out, or say them twice."""
    lines = content.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(10):
        case 8 | 9:
            return _exchange_lists(content, rng)
        case 0:
            del lines[at]
        case 1:
            lines.insert(other, lines[at])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            return _other_word(content, rng)
    return b"\n".join(lines)


def _exchange_lists(content: bytes, rng: Random) -> bytes:
    """Exchange what two lines have at one place among their lists: strides, as above."""
    lists: dict[int, list[re.Match[bytes]]] = defaultdict(list)
    for line in _LINE.finditer(content):
        for place, found in enumerate(_LIST.finditer(content, line.start(), line.end())):
            lists[place].append(found)
    if not lists:
        return _other_word(content, rng)
    pair = _two_unlike(list(lists.values()), rng, re.Match.group)
    first, last = sorted(pair, key=re.Match.start)
    if first is last:
        return _other_word(content, rng)
    between = content[first.end() : last.start()]
    return content[: first.start()] + last[0] + between + first[0] + content[last.end() :]


def _other_word(content: bytes, rng: Random) -> bytes:
    words = list(_WORD.finditer(content))
    if not words:
        return changed_bytes(content, rng)
    word = rng.choice(words)
    is_number = not word[0][:1].isalpha()
    alike = [one[0] for one in words if one[0][:1].isalpha() is not is_number]
    numbers = (b"0", b"1", b"2", b"-1", b"1.0", b"0.001", b"2.")
    other = rng.choice(numbers) if is_number and rng.randrange(2) else rng.choice(alike)
    end = content.find(b"\n", word.start()) if rng.randrange(2) else word.end()
    line = content[word.start() : end]  # in which it may stand several times
    return content[: word.start()] + line.replace(word[0], other) + content[end:]
