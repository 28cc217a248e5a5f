"""Averaged weights, under every name that trainers give them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch.optim.swa_utils import AveragedModel

from converters.families.options import SourceOptions
from converters.weights.inspection import inspected
from tests.converters.families.conversion import refusal, source_of
from tests.oracles import pycls, timm, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

    from converters.families.source import WeightsChoice

State = dict[str, "Tensor"]

NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "pycls": lambda seed: pycls.build(pycls.TINY, classes=5, seed=seed),
    "timm": lambda seed: timm.build(num_classes=5, seed=seed),
    "torchvision": lambda seed: torchvision.build(classes=5, seed=seed),
}


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


def of_ema_pytorch(raw: nn.Module, averaged: nn.Module) -> State:
    """What its ``EMA`` module has for a state."""
    return {
        **prefixed("online_model.", raw.state_dict()),
        **prefixed("ema_model.", averaged.state_dict()),
        "initted": torch.tensor(True),
        "step": torch.tensor(7),
    }


def of_torch_ema(network: nn.Module) -> dict[str, Any]:
    """What torch_ema keeps, and diffusers likewise: averages of parameters(), without names."""
    shadow = [parameter.detach().clone() for parameter in network.parameters()]
    return {"decay": 0.99, "num_updates": 3, "shadow_params": shadow, "collected_params": None}


def of_lightning(raw: nn.Module, averaged: nn.Module) -> dict[str, Any]:
    """What its ``WeightAveraging`` makes of a checkpoint: ``on_save_checkpoint``."""
    model = AveragedModel(averaged).state_dict()
    return {
        "state_dict": {n[7:]: t for n, t in model.items() if n.startswith("module.")},
        "current_model_state": raw.state_dict(),
        "averaging_state": {n: t for n, t in model.items() if not n.startswith("module.")},
    }


TRAINERS: dict[str, Callable[[nn.Module, nn.Module], Any]] = {
    "ema": lambda raw, ema: {"model": raw.state_dict(), "ema": ema.state_dict()},
    "model_ema, as torchvision's": lambda raw, ema: {
        "model": raw.state_dict(),
        "model_ema": AveragedModel(ema).state_dict(),
    },
    "ema_state_dict": lambda raw, ema: {
        "state_dict": raw.state_dict(),
        "ema_state_dict": ema.state_dict(),
    },
    "a shadow": lambda raw, ema: {
        "model": raw.state_dict(),
        "ema": {"decay": 0.999, "shadow": ema.state_dict()},
    },
    "swa_model": lambda raw, ema: {
        "net": raw.state_dict(),
        "swa_model": AveragedModel(ema).state_dict(),
    },
    "an AveragedModel of no name": lambda raw, ema: {
        "net": raw.state_dict(),
        "best": AveragedModel(ema).state_dict(),
    },
    "within a module": lambda raw, ema: {
        "state_dict": prefixed("model.", raw.state_dict())
        | prefixed("ema_model.", AveragedModel(ema).state_dict())
    },
    "below one level": lambda raw, ema: {
        "ema_callback": {"model": raw.state_dict(), "averaged": ema.state_dict()}
    },
    "ema_pytorch": of_ema_pytorch,
    "Lightning": of_lightning,
    "torch_ema": lambda raw, ema: {"model": raw.state_dict(), "ema": of_torch_ema(ema)},
    "diffusers, in the same mapping": lambda raw, ema: {
        "model": prefixed("net.", raw.state_dict()) | {"criterion.weight": torch.ones(3)},
        **of_torch_ema(ema),
    },
}


def classifier(path: Path, choice: WeightsChoice) -> tuple[Tensor, str]:
    """The bytes of the classifier's weight that are taken, and why."""
    with inspected(path, SourceOptions(weights=choice)) as (checkpoint, inspection):
        source = inspection.source
        name = source.keymap.spell("classifier", {"affine": "weight"})
        (why,) = (d.reason for d in source.decisions if d.topic == "weights")
        return torch.from_numpy(checkpoint.array(source.tensors[name])), why


@pytest.mark.parametrize("trainer", TRAINERS)
@pytest.mark.parametrize("framework", NETWORKS)
def test_averaged_weights_are_found_by_any_name(
    tmp_path: Path, framework: str, trainer: str
) -> None:
    raw, averaged = (NETWORKS[framework](seed) for seed in (1, 2))
    path = tmp_path / "net.pth"
    torch.save(TRAINERS[trainer](raw, averaged), path)
    name = {"torchvision": "fc.weight"}.get(framework, "head.fc.weight")
    weights = {"raw": raw.get_parameter(name), "ema": averaged.get_parameter(name)}

    taken = {choice: classifier(path, choice) for choice in ("raw", "ema", "best")}

    assert torch.equal(taken["raw"][0], weights["raw"])
    assert torch.equal(taken["ema"][0], weights["ema"])
    first = "raw" if framework == "pycls" and trainer != "Lightning" else "ema"
    assert torch.equal(taken["best"][0], weights[first])
    assert taken["raw"][1] == "as asked for with --weights"
    assert "Lightning" in taken["best"][1] or framework in taken["best"][1]


@pytest.mark.parametrize("form", ["flat", "below a key"])
def test_an_averaged_model_alone_is_known_by_its_count(tmp_path: Path, form: str) -> None:
    state = AveragedModel(torchvision.build(classes=5)).state_dict()
    torch.save(state if form == "flat" else {"weights": state}, tmp_path / "net.pth")

    source = source_of(tmp_path / "net.pth", weights="ema")

    assert source.config.num_labels == 5
    assert "averaged weights only" in refusal(
        lambda: source_of(tmp_path / "net.pth", weights="raw"), "net.pth"
    )


def test_data_parallel_weights_are_not_averaged(tmp_path: Path) -> None:
    state = prefixed("module.", torchvision.build(classes=5).state_dict())
    torch.save(state, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pth", weights="raw").config.num_labels == 5


def test_averages_without_names_take_the_buffers_of_the_network(tmp_path: Path) -> None:
    raw, ema = map(NETWORKS["torchvision"], (1, 2))
    torch.save({"model": raw.state_dict(), "ema": of_torch_ema(ema)}, tmp_path / "net.pth")

    with inspected(tmp_path / "net.pth", SourceOptions(weights="ema")) as (checkpoint, inspection):
        source = inspection.source
        assert source.skipped == {"model": "the weights that were not chosen"}
        for name, tensor in source.tensors.items():
            network = raw if "running" in name or "num_batches" in name else ema
            taken = torch.from_numpy(checkpoint.array(tensor))
            assert torch.equal(taken, network.state_dict()[name]), name


def exchanged(shadow: list[Tensor]) -> list[Tensor]:
    return [shadow[1], shadow[0], *shadow[2:]]


@pytest.mark.parametrize(
    "change", [lambda shadow: shadow[:-1], exchanged, lambda shadow: [*shadow, torch.ones(3)]]
)
def test_averages_without_names_that_are_not_the_network_s_are_left_out_and_said(
    tmp_path: Path, change: Callable[[list[Tensor]], list[Tensor]]
) -> None:
    network = torchvision.build()
    kept = of_torch_ema(network)
    kept["shadow_params"] = change(kept["shadow_params"])
    kept["collected_params"] = [network.state_dict()["fc.weight"]]
    torch.save({"model": network.state_dict(), "ema": kept}, tmp_path / "net.pth")

    source = source_of(tmp_path / "net.pth")

    reason = "weights without names, which are not the network's one by one"
    assert source.skipped == {"ema": reason}
    assert f"holds averaged {reason}; leave out --weights ema" in refusal(
        lambda: source_of(tmp_path / "net.pth", weights="ema"), "net.pth"
    )


def test_averages_without_names_alone_are_refused(tmp_path: Path) -> None:
    torch.save(of_torch_ema(torchvision.build()), tmp_path / "ema.pth")

    assert "holds averaged weights without names; give the file" in refusal(
        lambda: source_of(tmp_path / "ema.pth"), "ema.pth"
    )


def test_averages_without_names_are_of_no_network_where_there_are_two(tmp_path: Path) -> None:
    raw, ema = map(NETWORKS["torchvision"], (1, 2))
    tree = {"model": raw.state_dict(), "model_ema": ema.state_dict(), "other": of_torch_ema(raw)}
    torch.save(tree, tmp_path / "net.pth")

    source = source_of(tmp_path / "net.pth", weights="ema")

    assert source.skipped["model"] == "the weights that were not chosen"
    assert "without names" in source.skipped["other"]
