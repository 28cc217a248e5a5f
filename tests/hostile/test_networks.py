"""33 to 41: other networks, other sizes, other heads."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
import torch
from timm.models.resnet import BasicBlock, ResNet

from tests.oracles import pycls

if TYPE_CHECKING:
    from pathlib import Path

    from tests.hostile.victim import Victim

State = dict[str, torch.Tensor]


def test_33_another_architecture(victim: Victim) -> None:
    torch.save(ResNet(BasicBlock, (1, 1, 1, 1), num_classes=10).state_dict(), "model.pyth")
    victim.refused(2)


def test_34_the_right_family_in_another_size(victim: Victim, tree: dict[str, Any]) -> None:
    torch.save(tree | {"cfg": tree["cfg"].replace("\n  DEPTH: 4", "\n  DEPTH: 9")}, "model.pyth")
    victim.refused(2)


def test_35_missing_and_unknown_tensors(victim: Victim, state: State) -> None:
    torch.save({k: v for k, v in state.items() if "bias" not in k}, "model.pyth")
    victim.refused(2)
    renamed = {k.replace("b1.f.a.weight", "b1.f.aa.weight"): v for k, v in state.items()}
    torch.save(renamed | {"s1.b1.f.a.weight": state["s1.b1.f.a.weight"]}, "model.pyth")
    victim.refused(2)


@pytest.mark.parametrize("classes", [3])
def test_37_another_head_or_none(victim: Victim, classes: int, state: State) -> None:
    network = pycls.build(pycls.TINY, classes=classes)
    pycls.save(victim.folder / "other.pyth", network, pycls.TINY, classes=classes)
    found = victim.answered("inspect", "other.pyth")["architecture"]["num_labels"]
    victim.note(f"0: {found} classes")
    torch.save({k: v for k, v in state.items() if not k.startswith("head")}, "trunk.pyth")
    found = victim.answered("inspect", "trunk.pyth")["architecture"]["num_labels"]
    victim.note(f"0: {found} classes")


def test_38_labels_that_do_not_fit(victim: Victim, saved: Path) -> None:
    shutil.copy(saved, "model.pyth")
    for labels in (["cat", "dog"], ["cat"] * 10, {"first": "cat"}):
        (victim.folder / "labels.json").write_text(json.dumps(labels))
        victim.refused(2, "convert", "model.pyth", "out", "-q", "--labels", "labels.json")


@pytest.mark.parametrize("channels", [1])
def test_39_an_image_of_one_channel(victim: Victim, channels: int, state: State) -> None:
    stem = state["stem.conv.weight"][:, :channels].clone()
    torch.save(state | {"stem.conv.weight": stem}, "model.pyth")
    out = victim.converted()
    assert json.loads((out / "config.json").read_text())["num_channels"] == channels


def test_40_another_epsilon_of_batch_norm(victim: Victim, tree: dict[str, Any]) -> None:
    for epsilon in (-0.001, 0.001):
        cfg = tree["cfg"].replace("EPS: 1.0e-05", f"EPS: {epsilon}")
        torch.save(tree | {"cfg": cfg}, "model.pyth")
        if epsilon < 0:
            victim.refused(2)
    out = victim.converted()
    assert json.loads((out / "config.json").read_text())["norm_eps"] == epsilon


def test_41_a_network_is_judged_in_evaluation_and_twice_alike(victim: Victim, proven: Path) -> None:
    shutil.copytree(proven, "out")
    once, again = (victim.answered("verify", "out") for _ in range(2))
    assert once == again
    victim.note("0: two runs agree to the last bit")
