"""Networks that were pickled whole convert as their state dicts do, and their code is not run."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn

from converters.checkpoint import Opaque, open_checkpoint, pickled_modules
from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from tests.oracles import pycls, timm, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: torchvision.build(classes=10),
    "timm": lambda: timm.build(num_classes=10),
    "pycls": lambda: pycls.build(pycls.TINY, classes=10),
}


def saved(value: object, path: Path, *, is_zip: bool = True) -> Path:
    torch.save(value, path, _use_new_zipfile_serialization=is_zip)
    return path


def bytes_of(path: Path) -> dict[str, bytes]:
    """What a plan copies, by the reference's names, and what it says of the module."""
    with inspected(path, SourceOptions()) as (checkpoint, inspection):
        return {
            step.target.name: checkpoint.array(step.tensor).tobytes()
            for step in inspection.plan.steps
            if step.tensor
        }


@pytest.mark.filterwarnings("ignore")  # torch warns of source that it does not find
@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("framework", BUILDERS)
def test_a_module_is_what_its_state_dict_is(framework: str, is_zip: bool, tmp_path: Path) -> None:
    network = BUILDERS[framework]()
    state = saved(network.state_dict(), tmp_path / "state.pth")
    expected = bytes_of(state)
    trees: dict[str, object] = {
        "itself": network,
        "parallel": nn.DataParallel(network),
        "in a dict": {"model": network, "epoch": 3, "optimizer": {"state": {}}},
        "averaged": {"model_ema": torch.optim.swa_utils.AveragedModel(network)},
    }
    for name, tree in trees.items():
        path = saved(tree, tmp_path / f"{name}.pth", is_zip=is_zip)
        assert bytes_of(path) == expected, name


def test_names_and_order_are_those_of_the_state_dict(tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    with open_checkpoint(saved(network, tmp_path / "a.pth")) as checkpoint:
        tree: Any = checkpoint.tree
        assert list(tree) == list(network.state_dict())


def test_the_class_is_said(tmp_path: Path) -> None:
    path = saved({"net": torchvision.build(classes=10)}, tmp_path / "a.pth")
    with inspected(path, SourceOptions()) as (_, inspection):
        (said,) = (d for d in inspection.source.decisions if d.topic == "module")
    assert said.value.endswith("RegNet")
    assert "its code was not run" in said.reason


def test_buffers_that_are_not_saved_and_parts_that_are_not_there_are_left_out(
    tmp_path: Path,
) -> None:
    module = nn.Conv2d(3, 8, 3, padding=1, bias=False)
    module.register_buffer("kept", torch.ones(1))
    module.register_buffer("dropped", torch.ones(1), persistent=False)
    module.register_module("nothing", None)
    with open_checkpoint(saved(module, tmp_path / "a.pth")) as checkpoint:
        assert list(module.state_dict()) == ["weight", "kept"]
        tree: Any = checkpoint.tree
        assert list(tree) == ["weight", "kept"]


UNLIKE: dict[str, Callable[[Any], object]] = {
    "BatchNorm2d with eps 0.001": lambda net: setattr(net.stem[1], "eps", 1e-3),
    "Conv2d with padding (0, 0)": lambda net: setattr(net.stem[0], "padding", (0, 0)),
    "Conv2d with dilation (2, 2)": lambda net: setattr(net.stem[0], "dilation", (2, 2)),
    "Conv2d with padding_mode reflect": lambda net: setattr(net.stem[0], "padding_mode", "reflect"),
}


@pytest.mark.parametrize("words", UNLIKE)
def test_what_a_module_says_that_its_tensors_do_not_is_heeded(words: str, tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    UNLIKE[words](network)
    path = saved(network, tmp_path / "a.pth")

    with pytest.raises(InputError, match="stem") as caught, inspected(path, SourceOptions()):
        pass
    assert words in str(caught.value)


# Modules that no program made.


def module(**parts: Any) -> Opaque:
    state = {"_parameters": {}, "_buffers": {}, "_modules": {}} | parts
    return Opaque("a.Module", (), state=state)


def nested(depth: int, *, twice: bool = False) -> Opaque:
    inner = module()
    for _ in range(depth):
        inner = module(_modules={"a": inner, "b": inner} if twice else {"a": inner})
    return inner


def in_itself() -> Opaque:
    found = module()
    found.state["_modules"]["again"] = module(_modules={"up": found})  # type: ignore[call-overload,index]
    return found


HOSTILE: dict[str, tuple[Callable[[], Opaque], str]] = {
    "in itself": (in_itself, "a module that is in itself"),
    "deep": (lambda: nested(101), "modules nested more than 100 deep"),
    "a million deep": (lambda: nested(1_000_000), "modules nested more than 100 deep"),
    "doubling": (lambda: nested(60, twice=True), "modules with more than 50000 parts"),
    "many": (
        lambda: module(_parameters=dict.fromkeys(map(str, range(50_001)), 1)),
        "modules with more than 50000 parts",
    ),
    "no name": (lambda: module(_parameters={1: 2}), "a part whose name no module has"),
    "a long name": (lambda: module(_parameters={"a" * 501: 2}), "a part whose name no module has"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_modules_without_end_are_refused(kind: str) -> None:
    make, words = HOSTILE[kind]
    tree = make()
    with pytest.raises(InputError, match=words):
        pickled_modules.state_dicts_of({"model": tree}, "x")
    while tree is not None and kind.startswith("a million"):  # else Python takes it apart at once
        inner = tree.state["_modules"]  # type: ignore[call-overload,index]
        tree.state, tree = None, inner.get("a")


def test_what_holds_no_module_is_left_as_it_is() -> None:
    tree: Any = {"a": {"b": [module()]}, "c": Opaque("a.Module", (), state={"_parameters": {}})}
    assert pickled_modules.state_dicts_of(tree, "x") == (tree, {})
    assert pickled_modules.state_dicts_of(tree, "x")[0] is tree


def test_the_tree_is_not_changed() -> None:
    tree: Any = {"model": module(_parameters={"w": 1}), "other": {"x": 1}}
    before = copy.copy(tree)
    found: Any = pickled_modules.state_dicts_of(tree, "x")[0]
    assert found == {"model": {"w": 1}, "other": {"x": 1}}
    assert tree == before
