"""Where state dicts are found and what is taken off their names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from converters.checkpoint import Opaque
from converters.errors import InputError
from converters.families.wrapping import all_tensors, find_state_dicts
from tests.converters.stored import stored

if TYPE_CHECKING:
    from converters.families.source import StateDict

TELL_TALE = "s1.b1.f.a.weight"
KERNEL = stored((16, 12, 1, 1))
VECTOR = stored((16,))
STATE = {TELL_TALE: KERNEL, "s1.b1.f.a_bn.bias": VECTOR}


def only(tree: Any) -> StateDict:
    states = find_state_dicts(tree)
    assert len(states) == 1
    return states[0]


@pytest.mark.parametrize(
    "prefix",
    [
        "",
        "module.",
        "_orig_mod.",
        "module._orig_mod.",
        "_orig_mod.module.",
        "model.",
        "model.net.encoder.",
        "backbone.bottom_up.",
    ],
)
@pytest.mark.parametrize("path", [(), ("model",), ("a", "b", "c")])
def test_wrappers_and_prefixes_are_taken_off(path: tuple[str, ...], prefix: str) -> None:
    tree: dict[str, Any] = {prefix + name: tensor for name, tensor in STATE.items()}
    for key in reversed(path):
        tree = {key: tree, "epoch": 3, "optimizer": {"state": {0: VECTOR}}}

    state = only(tree)

    assert (state.framework, state.path, state.prefix) == ("pycls", path, prefix)
    assert state.tensors == STATE
    assert state.beside == {}


@pytest.mark.parametrize(
    "tree", [None, 3, "text", [VECTOR], Opaque("some.Class"), {}, {"a": STATE}]
)
def test_only_mappings_by_name_hold_tensors(tree: object) -> None:
    assert all_tensors(tree) == (STATE if isinstance(tree, dict) and tree else {})


def test_entries_that_are_no_tensors_are_left_out() -> None:
    tree: dict[Any, Any] = {**STATE, "epoch": 3, 7: VECTOR, "nested": {"b": VECTOR}}

    assert only(tree).tensors == STATE


def test_what_stands_beside_a_prefixed_trunk_keeps_its_own_name() -> None:
    trunk = {f"module.backbone.{name}": tensor for name, tensor in STATE.items()}

    state = only({**trunk, "module.head.fc.bias": VECTOR, "steps": VECTOR})

    assert state.tensors == STATE
    assert state.beside == {"head.fc.bias": VECTOR, "steps": VECTOR}


def test_two_models_in_one_mapping_are_two() -> None:
    tree = {f"{who}.{n}": t for who in ("student", "ema_model.module") for n, t in STATE.items()}

    states = find_state_dicts({"state_dict": tree})

    assert [state.place for state in states] == [
        "state_dict.ema_model.module",
        "state_dict.student",
    ]
    assert all(state.tensors == STATE and not state.beside for state in states)


def test_the_outermost_state_dict_comes_first() -> None:
    states = find_state_dicts({"a": {"b": {"c": STATE}}, "z": STATE})

    assert [state.place for state in states] == ["z", "a.b.c"]


def test_a_tensor_with_and_without_the_prefix_is_refused() -> None:
    tree = {"model": {f"module.{TELL_TALE}": KERNEL, "module.a": VECTOR, "a": VECTOR}}

    with pytest.raises(InputError, match=r"^model holds a twice, with and without module\. .*\.$"):
        find_state_dicts(tree)


def test_endless_nesting_ends() -> None:
    tree: dict[str, Any] = {}
    tree["again"] = tree

    assert find_state_dicts(tree) == []
