"""26 to 32 and 36: weights in other orders, types and wrappers, and weights that are wrong."""

from __future__ import annotations

import argparse
import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from yacs.config import CfgNode

from tests.converters.checkpoint.files import in_zip, tensor_pickle

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.victim import Victim

State = dict[str, torch.Tensor]
WEIGHTS = "model.safetensors"
KERNEL = "s2.b1.f.a.weight"


def changed(state: State, name: str, number: float) -> State:
    """The state with one number of one tensor replaced."""
    tensor = state[name].clone()
    tensor.view(-1)[-1] = number
    return state | {name: tensor}


def test_26_the_file_of_a_big_endian_machine(victim: Victim) -> None:
    victim.put(in_zip(tensor_pickle(), byteorder=b"big"))
    victim.refused(2)


def test_27_weights_that_no_trained_network_has(victim: Victim, state: State) -> None:
    for name, number in (
        (KERNEL, float("nan")),
        ("head.fc.bias", float("-inf")),
        ("stem.bn.running_var", -1.0),
    ):
        torch.save(changed(state, name, number), "model.pyth")
        assert name in victim.refused(2)
        assert name in victim.refused(2, "convert", "model.pyth", "out", "-q", "--dtype=bfloat16")
    poisoned = {k: v.fill_(torch.nan) if k.endswith("bn.weight") else v for k, v in state.items()}
    torch.save(poisoned, "model.pyth")
    victim.refused(2)
    victim.converted("model.pyth", "--allow-nonfinite")


def test_28_views_transposed_tensors_and_shared_storages(victim: Victim, state: State) -> None:
    torch.save(state, "plain.pyth")
    numbers = torch.cat(
        [tensor.reshape(-1) for tensor in state.values() if tensor.is_floating_point()]
    )
    views, start = dict(state), 0
    for name, tensor in state.items():
        if tensor.is_floating_point():
            views[name] = numbers[start : start + tensor.numel()].view(tensor.shape)
            start += tensor.numel()
    views[KERNEL] = state[KERNEL].transpose(0, 1).contiguous().transpose(0, 1)
    torch.save(views, "views.pyth")
    plain, shared = victim.converted("plain.pyth"), victim.converted("views.pyth")
    assert (plain / WEIGHTS).read_bytes() == (shared / WEIGHTS).read_bytes()


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor:UserWarning")
def test_29_other_types_convert_if_they_are_floats(victim: Victim, state: State) -> None:
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        torch.save({k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}, "f")
        victim.converted("f")
    kernel = state[KERNEL]
    for other in (
        kernel.to(torch.int8),
        kernel.to(torch.complex64),
        torch.quantize_per_tensor(kernel, 0.1, 0, torch.qint8),
        kernel.to_sparse(),
        kernel.to("meta"),
    ):
        torch.save(state | {KERNEL: other}, "model.pyth")
        victim.refused(2)


def test_30_wrappers_are_taken_off(victim: Victim, state: State) -> None:
    torch.save(state, "plain.pyth")
    plain = victim.converted("plain.pyth")
    for path, prefix in (
        (["model_state"], "module."),
        (["state_dict"], "model._orig_mod."),
        (["model_ema"], ""),
    ):
        tree: Any = {prefix + name: tensor for name, tensor in state.items()}
        for key in path:
            tree = {key: tree}
        torch.save(tree, "wrapped.pyth")
        out = victim.converted("wrapped.pyth")
        assert (out / WEIGHTS).read_bytes() == (plain / WEIGHTS).read_bytes()


def test_31_objects_beside_the_weights_are_left_alone(victim: Victim, tree: dict[str, Any]) -> None:
    config = CfgNode({"OPTIM": {"BASE_LR": 0.1}})
    args = argparse.Namespace(lr=0.1, when=np.float64(3.5), seed=np.array([1, 2]))
    torch.save(tree | {"config": config, "args": args}, "model.pyth")
    out = victim.converted()
    assert "optimizer_state" in json.loads((out / "conversion.json").read_text())["skipped"]


def test_32_two_candidates_are_told_apart_or_refused(
    victim: Victim, tree: dict[str, Any], state: State
) -> None:
    torch.save({"student": state, "teacher": state}, "model.pyth")
    victim.refused(2)
    torch.save(tree | {"ema_state": state, "test_err": 20.0, "ema_err": 19.0}, "both.pyth")
    found = victim.answered("inspect", "both.pyth")["decisions"]
    victim.note("0: " + next(d["reason"] for d in found if d["topic"] == "weights"))


def test_36_branches_of_equal_shape_exchanged(victim: Victim, proven: Path) -> None:
    shutil.copytree(proven, "out")
    tensors = load_file("out/model.safetensors")
    kernels = {name: t for name, t in tensors.items() if t.dim() == 4 and t.shape[2] == 1}
    one, other = next(
        (a, b) for a in kernels for b in kernels if a < b and kernels[a].shape == kernels[b].shape
    )
    tensors[one], tensors[other] = tensors[other], tensors[one]
    save_file(tensors, "out/model.safetensors", {"format": "pt"})
    victim.broken("verify", "out", "-q")
