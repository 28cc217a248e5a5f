"""Every attribute that an operator can have, in every exporter's file: another value is refused."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import defs, helper

from converters.checkpoint import open_checkpoint
from converters.errors import InputError
from converters.families.graph_network import network_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from onnx import ModelProto

RECORDED = Path(__file__).parents[2] / "recorded" / "onnx"

FILES = ("optimum-y", "timm-y", "torch-plain-y", "torchvision-y", "transformers-odd")
"""A file of each exporter; torch's older one, which optimum calls, writes the first."""

HARMLESS = {
    ("BatchNormalization", "momentum"): "of training alone",
    ("CastLike", "saturate"): "of types of eight bits alone",
    ("ReduceMean", "noop_with_empty_axes"): "its axes are given",
    ("Reshape", "allowzero"): "its sizes are known, and none is zero",
}
"""Attributes that change nothing of what is computed."""

TYPES = defs.OpSchema.AttrType


@cache
def model(name: str) -> ModelProto:
    return onnx.load(RECORDED / f"{name}.onnx")


def attributes() -> Iterator[tuple[str, str, str]]:
    """File, operator and attribute; of constants the value is tested by what reads it."""
    for name in FILES:
        opset = max(entry.version for entry in model(name).opset_import)
        for operator in sorted({node.op_type for node in model(name).graph.node} - {"Constant"}):
            for attribute in defs.get_schema(operator, opset, "").attributes:
                yield name, operator, attribute


def other_values(name: str, operator: str, attribute: str) -> tuple[int, list[Any]]:
    """The last node of an operator, and values that its attribute does not have."""
    nodes = [i for i, node in enumerate(model(name).graph.node) if node.op_type == operator]
    opset = max(entry.version for entry in model(name).opset_import)
    schema = defs.get_schema(operator, opset, "").attributes[attribute]
    node = model(name).graph.node[nodes[-1]]
    stated = {each.name: helper.get_attribute_value(each) for each in node.attribute}
    default = schema.default_value
    value = stated.get(attribute, helper.get_attribute_value(default) if default.name else None)
    if schema.type == TYPES.INT:
        # Of a switch every number but zero is the same.
        return nodes[-1], [0 if value else 1] if attribute.startswith("trans") else [
            (value or 0) + 1,
            (value or 0) + 7,
        ]
    if schema.type == TYPES.FLOAT:
        return nodes[-1], [2.0 * (value or 1.0), (value or 0.0) + 1e-5]
    if schema.type == TYPES.INTS:
        sizes = list(value or [1, 1])
        return nodes[-1], [[size + 1 for size in sizes], [*sizes, sizes[-1]], sizes[:-1]]
    return nodes[-1], ["SAME_UPPER", "VALID", "other"]


@pytest.mark.parametrize(("name", "operator", "attribute"), [*attributes()])
def test_another_value_of_an_attribute_is_refused(
    name: str, operator: str, attribute: str, tmp_path: Path
) -> None:
    index, values = other_values(name, operator, attribute)
    for value in values:
        changed = onnx.ModelProto()
        changed.CopyFrom(model(name))
        node = changed.graph.node[index]
        kept = [each for each in node.attribute if each.name != attribute]
        del node.attribute[:]
        kind = onnx.AttributeProto.INTS if value == [] else None
        node.attribute.extend([*kept, helper.make_attribute(attribute, value, attr_type=kind)])
        path = tmp_path / "changed.onnx"
        path.write_bytes(changed.SerializeToString())
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.graph is not None
            if (operator, attribute) in HARMLESS:
                network_of(checkpoint.graph, path.name)
                continue
            with pytest.raises(InputError, match=r"^changed\.onnx: (its node|ends|lacks|gives)"):
                network_of(checkpoint.graph, path.name)


def test_every_harmless_attribute_occurs() -> None:
    assert {(operator, attribute) for _, operator, attribute in attributes()} >= HARMLESS.keys()
