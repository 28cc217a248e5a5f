"""ATen's operators as nodes: one spelling of each, and nothing that reads what was overwritten."""

from __future__ import annotations

import pytest
import torch

from converters.checkpoint.aten import SIGNATURES, AtenNodes, Named, argument_names
from converters.errors import InputError
from converters.families.graph_aten import OPERATORS


def nodes_of(
    *calls: tuple[str, tuple[object, ...], str], outputs: tuple[str, ...] = ()
) -> AtenNodes:
    nodes = AtenNodes("model.pt2", ("x", "w"))
    for operator, arguments, output in calls:
        named = [Named(a[1:]) if isinstance(a, str) and a[:1] == "%" else a for a in arguments]
        nodes.add(output, operator, named, (output,))  # type: ignore[arg-type]
    nodes.finish(outputs)
    return nodes


def test_arguments_are_the_schema_s_in_order_or_by_name() -> None:
    nodes = AtenNodes("model.pt2", ("x", "w"))
    nodes.add("a", "aten::conv2d", (Named("x"), Named("w"), None, (2, 2), (1, 1)), ("y",))
    nodes.add("b", "aten.conv2d.default", {"input": Named("x"), "weight": Named("w")}, ("z",))
    nodes.add("c", "aten.mul_.Tensor", {"self": Named("y"), "other": 2.0}, ("v",))

    first, second, third = nodes.finish(("v", "z"))

    assert (first.op, first.domain, first.inputs) == ("conv2d", "aten", ("x", "w", ""))
    assert first.attributes == {"stride": (2, 2), "padding": (1, 1)}
    assert (second.inputs, second.attributes) == (("x", "w", ""), {})
    assert (third.op, third.inputs, third.attributes) == ("mul", ("y", ""), {"other": 2.0})


def test_signatures_are_torch_s() -> None:
    """Every overload that exporters call has these arguments, in this order."""
    for name, (tensors, others) in SIGNATURES.items():
        assert sorted(argument_names(name)) == sorted((*tensors, *others))
        overloads = getattr(torch.ops.aten, name)
        schemas = [getattr(overloads, one)._schema for one in overloads.overloads()]
        fit = [
            schema
            for schema in schemas
            if tuple(a.name for a in schema.arguments) == argument_names(name)
        ]
        assert fit, name
        kinds = {argument.name: str(argument.type) for argument in fit[0].arguments}
        assert all("Tensor" in kinds[tensor] for tensor in tensors), name


def test_every_signature_has_a_reader() -> None:
    assert set(OPERATORS) == set(SIGNATURES)


STALE = [
    (("aten::relu_", ("%a",), "b"), ("aten::add", ("%a", "%b"), "c")),
    (("aten::flatten", ("%a", 1), "v"), ("aten::relu_", ("%a",), "b"), ("aten::t", ("%v",), "c")),
    (("aten::alias", ("%a",), "v"), ("aten::relu_", ("%v",), "b"), ("aten::t", ("%a",), "c")),
    (
        ("aten::add_", ("%a", "%a", 1), "b"),
        ("aten::mul_", ("%b", 2), "c"),
        ("aten::t", ("%b",), "d"),
    ),
]


@pytest.mark.parametrize("calls", STALE, ids=["itself", "a view", "of a view", "twice"])
def test_what_reads_an_overwritten_value_is_refused(calls: tuple[object, ...]) -> None:
    begin = ("aten::clone", ("%x",), "a")

    with pytest.raises(InputError, match=r"model.pt2: its node .* reads '.*', which .* has overwr"):
        nodes_of(begin, *calls)  # type: ignore[arg-type]
    nodes_of(begin, *calls[:-1])  # type: ignore[arg-type]


def test_an_output_that_was_overwritten_is_refused() -> None:
    with pytest.raises(InputError, match=r"reads 'a', which aten.relu 'b' has overwritten"):
        nodes_of(
            ("aten::t", ("%x",), "t"),
            ("aten::clone", ("%t",), "a"),
            ("aten::relu_", ("%a",), "b"),
            outputs=("b", "a"),
        )


@pytest.mark.parametrize("through", [(), (("aten::alias", ("%w",), "v"),)])
def test_what_overwrites_a_constant_is_refused(through: tuple[object, ...]) -> None:
    name = "v" if through else "w"
    with pytest.raises(InputError, match=r"its node aten.add 'b' overwrites 'w'"):
        nodes_of(*through, ("aten::add_", (f"%{name}", 1), "b"))  # type: ignore[arg-type]


def test_what_is_not_known_stays_what_it_is() -> None:
    nodes = AtenNodes("model.pt2", ("x",))
    nodes.add("a", "torchvision::nms", (Named("x"), 0.5), ("y",))
    nodes.add("b", "aten::hardtanh_", (Named("y"), 0, 1), ("z",))
    nodes.add("c", "aten::relu.out", {"self": Named("x"), "out": Named("z")}, ("v",))
    nodes.add("d", "aten::relu", (Named("x"), 1), ("u",))

    foreign, other, out, many = nodes.finish(())

    assert (foreign.domain, foreign.op, foreign.inputs) == ("torchvision", "nms", ("x",))
    assert other.op == "hardtanh_"
    assert out.attributes == {"out": "the value z"}
    assert many.attributes == {"argument 1": 1}
