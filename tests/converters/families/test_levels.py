"""What wrappers put inside of names, and what libraries make of weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint import checkpoint_wrapper
from torch.distributed.fsdp import _common_utils as fsdp
from torch.nn.utils import parametrizations, spectral_norm, weight_norm

from converters.errors import InputError
from converters.families.changed import require_unchanged
from converters.families.levels import stored_prefix, without_levels
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    refusal,
    source_of,
    theirs,
)
from tests.oracles import openmmlab, pycls, timm, torchvision
from tests.oracles import transformers as transformers_oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor

State = dict[str, "Tensor"]

CLASSES = 5
PEFT = "base_model.model."

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pycls": lambda: pycls.build(pycls.TINY, classes=CLASSES),
    "timm": lambda: timm.build(num_classes=CLASSES),
    "torchvision": lambda: torchvision.build(classes=CLASSES),
    "transformers": lambda: transformers_oracle.twin(
        transformers_oracle.classifier(num_labels=CLASSES)
    ),
    "mmpretrain": lambda: openmmlab.build(classes=CLASSES),
}


class Wrapped(nn.Module):
    """A module as any wrapper has it, below a level of its own."""

    def __init__(self, module: nn.Module, level: str) -> None:
        super().__init__()
        self.add_module(level, module)


def wrapped(module: nn.Module, wrap: Callable[[nn.Module], nn.Module], depth: int = 9) -> nn.Module:
    """Wrap all modules inside of one, from the innermost, but for those too deep."""
    for name, child in list(module.named_children()):
        if depth:
            setattr(module, name, wrap(wrapped(child, wrap, depth - 1)))
    return module


def saved(state: Any, tmp_path: Path) -> Path:
    torch.save(state, tmp_path / "net.pth")
    return tmp_path / "net.pth"


LEVELS: dict[str, str] = {
    "torch.compile": "_orig_mod",
    "activation checkpointing": checkpoint_wrapper._CHECKPOINT_WRAPPED_MODULE,
    "FSDP": fsdp.FSDP_WRAPPED_MODULE,
    "data parallel": "module",
    "Fabric": "_forward_module",
    "peft, of what it did not replace": "original_module",
}


@pytest.mark.parametrize("framework", NETWORKS)
@pytest.mark.parametrize("depth", [1, 2, 9])
def test_wrapped_parts_of_a_network_have_its_names(
    tmp_path: Path, framework: str, depth: int
) -> None:
    network = NETWORKS[framework]()
    plain = source_of(saved(network.state_dict(), tmp_path))
    for level in LEVELS.values():
        parts = wrapped(NETWORKS[framework](), lambda m, level=level: Wrapped(m, level), depth)
        names = parts.state_dict()

        source = source_of(saved({"model": names}, tmp_path))

        assert any(f".{level}." in name for name in names)
        assert source.framework == framework
        assert list(source.tensors) == list(plain.tensors)
        assert not source.skipped


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of what torch.compile imports
def test_compiled_blocks_compute_the_same(tmp_path: Path) -> None:
    network = torchvision.build(classes=CLASSES)
    expected = theirs(network, noise())
    state = wrapped(network, torch.compile, 2).state_dict()

    ours = converted(saved({"state_dict": {f"module.{n}": t for n, t in state.items()}}, tmp_path))

    assert "trunk_output._orig_mod.block1._orig_mod.block1-0.f.a.0.weight" in state
    assert difference(ours.logits(noise()), expected) < LIMIT


def test_a_layer_in_two_places_is_refused(tmp_path: Path) -> None:
    state = torchvision.build(classes=CLASSES).state_dict()
    state["stem._orig_mod.0.weight"] = state["stem.0.weight"]

    message = refusal(lambda: source_of(saved({"net": state}, tmp_path)), "net")

    assert "stem.0.weight twice" in message


@pytest.mark.parametrize(
    ("names", "bare"),
    [
        (["module", "a.module", "a.module.b"], ["module", "a.module", "a.b"]),
        (["_orig_mod.module._orig_mod.a"], ["a"]),
        (["a._fpw_module.w", "_original_module.b.w"], ["a.w", "b.w"]),
        (["module." * 65 + "a"], ["module." * 65 + "a"]),
        (["fc.modules_to_save.w"], ["fc.modules_to_save.w"]),
        (["fc.modules_to_save.default.inner.w"], ["fc.inner.w"]),
        (
            ["modules.a", "_orig_model.a", "a._module.b"],
            ["modules.a", "_orig_model.a", "a._module.b"],
        ),
        (
            ["fc.original_module.w", "fc.modules_to_save.default.w", "se.original_module.w"],
            ["fc.original_module.w", "fc.w", "se.w"],
        ),
        (
            ["fc.modules_to_save.a.w", "fc.modules_to_save.b.w"],
            ["fc.modules_to_save.a.w", "fc.modules_to_save.b.w"],
        ),
    ],
)
def test_only_levels_of_wrappers_are_taken_out(names: list[str], bare: list[str]) -> None:
    assert without_levels(names) == dict(zip(names, bare, strict=True))


@pytest.mark.parametrize(
    ("name", "end", "prefix"),
    [
        ("s1.b1.w", "s1.b1.w", ""),
        ("s1._orig_mod.b1.w", "s1.b1.w", ""),
        ("module._orig_mod.s1.b1.module.w", "s1.b1.w", "module._orig_mod."),
        ("s1.s1.module.b1.w", "s1.b1.w", "s1."),
    ],
)
def test_what_stands_before_a_network_is_told_from_what_is_inside(
    name: str, end: str, prefix: str
) -> None:
    assert stored_prefix(name, end) == prefix


# peft, by the names that it documents: ModulesToSaveWrapper, LoraLayer, get_peft_model_state_dict.


def trained_by_peft(network: nn.Module, *, adapters: tuple[str, ...] = ("default",)) -> State:
    """What a network is saved as whose classifier peft trained, and nothing else."""
    state = {f"{PEFT}{n}": t for n, t in network.state_dict().items() if not n.startswith("fc.")}
    for leaf, tensor in network.get_submodule("fc").state_dict().items():
        state[f"{PEFT}fc.original_module.{leaf}"] = tensor + 1
        state |= {f"{PEFT}fc.modules_to_save.{a}.{leaf}": tensor for a in adapters}
    return state


def test_of_what_peft_trained_and_replaced_the_first_is_taken(tmp_path: Path) -> None:
    network = torchvision.build(classes=CLASSES)

    ours = converted(saved(trained_by_peft(network), tmp_path))

    assert difference(ours.logits(noise()), theirs(network, noise())) < LIMIT
    assert "before peft" in ours.record["skipped"]["fc.original_module"]


def test_of_several_modules_that_peft_trained_none_is_taken(tmp_path: Path) -> None:
    state = trained_by_peft(torchvision.build(classes=CLASSES), adapters=("a", "b"))

    message = refusal(lambda: source_of(saved(state, tmp_path)), "net.pth")

    assert "merge_and_unload()" in message


@pytest.mark.parametrize("alone", [True, False])
def test_adapters_of_peft_are_named_with_what_merges_them(tmp_path: Path, alone: bool) -> None:
    name = "trunk_output.block1.block1-0.f.a.0"
    state: State = {}
    if not alone:
        network = torchvision.build(classes=CLASSES)
        state = {f"{PEFT}{n}": t for n, t in network.state_dict().items()}
        state[f"{PEFT}{name}.base_layer.weight"] = state.pop(f"{PEFT}{name}.weight")
    state[f"{PEFT}{name}.lora_A.default.weight"] = torch.ones(4, 16, 1, 1)
    state[f"{PEFT}{name}.lora_B.default.weight"] = torch.ones(16, 4, 1, 1)

    message = refusal(lambda: source_of(saved(state, tmp_path)), "net.pth")

    assert "of an adapter of peft" in message
    assert "merge_and_unload()" in message


def test_a_folder_of_an_adapter_is_named_so(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text("{}")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"")

    assert "merge_and_unload()" in refusal(lambda: source_of(tmp_path), str(tmp_path))


# What torch makes of weights.


def first_convolution(network: nn.Module) -> nn.Module:
    return next(module for module in network.modules() if isinstance(module, nn.Conv2d))


CHANGES: dict[str, tuple[Callable[[nn.Module], object], str]] = {
    "a parametrization": (
        lambda network: parametrizations.spectral_norm(first_convolution(network)),
        "remove_parametrizations()",
    ),
    "spectral norm": (
        lambda network: spectral_norm(first_convolution(network)),
        "remove_spectral_norm()",
    ),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_is_no_weight_yet_is_named_with_what_makes_it_one(tmp_path: Path, change: str) -> None:
    network = torchvision.build(classes=CLASSES)
    make, undo = CHANGES[change]
    make(network)

    message = refusal(lambda: source_of(saved(network.state_dict(), tmp_path)), "net.pth")

    assert undo in message


@pytest.mark.filterwarnings("ignore:.*weight_norm.* is deprecated")
def test_a_head_of_weight_norm_beside_a_trunk_can_be_left_out(tmp_path: Path) -> None:
    trunk = torchvision.build(classes=CLASSES)
    trunk.fc = nn.Identity()
    both = nn.ModuleDict({"backbone": trunk, "last_layer": weight_norm(nn.Linear(9, 7))})

    assert not source_of(saved(both.state_dict(), tmp_path), head="none").has_classifier


def test_flat_parameters_of_fsdp_are_named_so(tmp_path: Path) -> None:
    state = {f"{fsdp.FSDP_WRAPPED_MODULE}._flat_param": torch.ones(9)}

    message = refusal(lambda: source_of(saved(state, tmp_path)), "net.pth")

    assert "FULL_STATE_DICT" in message


def test_shapes_of_nothing_are_named_as_deepspeed_s(tmp_path: Path) -> None:
    state = torchvision.build(classes=CLASSES).state_dict()
    state |= {n: torch.empty(0) for n in state if n.endswith("weight")}

    message = refusal(lambda: source_of(saved({"module": state}, tmp_path)), "net.pth")

    assert "zero_to_fp32.py" in message


@pytest.mark.parametrize(
    ("name", "undo"),
    [
        ("fc.base_layer.weight", "merge_and_unload"),
        ("fc.weight_mask", "prune.remove"),
        ("fc.weight_g", "remove_weight_norm"),
    ],
)
def test_half_of_what_makes_a_weight_is_named_with_what_makes_it_one(name: str, undo: str) -> None:
    require_unchanged(["fc.weight", "fc.masks"], "net")

    with pytest.raises(InputError, match=undo):
        require_unchanged(["fc.bias", name], "net")
