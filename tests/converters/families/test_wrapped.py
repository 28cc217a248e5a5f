"""What trainers of any framework put around a network, and what users change about it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from tests.converters.cli.running import regnet
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    refusal,
    source_of,
    theirs,
)
from tests.oracles import pycls, timm, torchvision
from tests.oracles import transformers as transformers_oracle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import Tensor, nn

State = dict[str, "Tensor"]

NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "pycls": lambda: pycls.build(pycls.TINY, classes=7),
    "timm": lambda: timm.build(num_classes=7),
    "torchvision": lambda: torchvision.build(classes=7),
    "transformers": lambda: transformers_oracle.twin(transformers_oracle.classifier(num_labels=7)),
}
EVERY_FRAMEWORK = pytest.mark.parametrize("framework", NETWORKS)


def on_rgb(framework: str, network: nn.Module, pixels: Tensor) -> Tensor:
    """What the real network computes of RGB pixels."""
    return theirs(network, pixels.flip(1) if framework == "pycls" else pixels)


def prefixed(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "DDP": lambda state: {"state_dict": prefixed("module.", state)},
    "compiled DDP": lambda state: prefixed("_orig_mod.module.", state),
    "Lightning": lambda state: {
        "epoch": 3,
        "pytorch-lightning_version": "2.5.0",
        "state_dict": prefixed("model.", state) | {"criterion.weight": torch.ones(7)},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(3)}}}],
        "hyper_parameters": {"lr": 0.1},
    },
    "deep": lambda state: {"a": {"b": {"c": state}}},
}


@EVERY_FRAMEWORK
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapped_network_computes_the_same(tmp_path: Path, framework: str, wrapper: str) -> None:
    network = NETWORKS[framework]()
    torch.save(WRAPPERS[wrapper](network.state_dict()), tmp_path / "net.ckpt")

    ours = converted(tmp_path / "net.ckpt")

    assert ours.framework == framework
    left_out = {"criterion", "optimizer_states"} if wrapper == "Lightning" else set()
    assert set(ours.record["skipped"]) == left_out
    assert difference(ours.logits(noise()), on_rgb(framework, network, noise())) < LIMIT


@EVERY_FRAMEWORK
@pytest.mark.parametrize("dtype", [torch.float16, torch.float64], ids=str)
def test_another_precision_becomes_float32_and_counters_stay(
    tmp_path: Path, framework: str, dtype: torch.dtype
) -> None:
    network = NETWORKS[framework]().to(dtype)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    written = load_file(ours.out / "model.safetensors")
    assert {t.dtype for name, t in written.items() if "num_batches" in name} == {torch.int64}
    assert {t.dtype for name, t in written.items() if "num_batches" not in name} == {torch.float32}
    counters = [t for name, t in written.items() if "num_batches" in name]
    assert min(int(counter) for counter in counters) >= 1000
    assert difference(ours.logits(noise()), on_rgb(framework, network.float(), noise())) < LIMIT


@EVERY_FRAMEWORK
def test_a_network_without_its_head_is_a_trunk(tmp_path: Path, framework: str) -> None:
    state = NETWORKS[framework]().state_dict()
    head = {name for name in state if name.startswith(("head.", "fc.", "classifier."))}
    torch.save({name: t for name, t in state.items() if name not in head}, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert len(head) == 2
    assert ours.config.architectures == ["RegNetModel"]  # type: ignore[attr-defined]
    assert ours.trunk(noise()).pooler_output.shape[2:] == (1, 1)


@EVERY_FRAMEWORK
@pytest.mark.parametrize("channels", [1, 5])
def test_other_input_channels_are_kept(tmp_path: Path, framework: str, channels: int) -> None:
    state = NETWORKS[framework]().state_dict()
    stem = next(name for name, tensor in state.items() if tensor.shape[1:] == (3, 3, 3))
    state[stem] = torch.randn(len(state[stem]), channels, 3, 3)
    torch.save(state, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert ours.config.num_channels == channels
    assert ours.decision("channel order") == ("kept", f"{channels} input channels")
    written = load_file(ours.out / "model.safetensors")
    assert torch.equal(written["regnet.embedder.embedder.convolution.weight"], state[stem])


def detector(network: nn.Module) -> dict[str, Any]:
    """A detector of detectron2 on a pycls backbone: frozen norms, which have no counters."""
    backbone = {
        f"backbone.bottom_up.{name}": tensor
        for name, tensor in network.state_dict().items()
        if not name.startswith("head.") and "num_batches" not in name
    }
    others = {"backbone.fpn_lateral2.weight": torch.ones(2), "roi_heads.box.weight": torch.ones(2)}
    return {"model": backbone | others, "iteration": 9, "__author__": "Detectron2"}


def test_a_detector_of_detectron2_gives_its_trunk(tmp_path: Path) -> None:
    network = pycls.build(pycls.TINY)
    torch.save(detector(network), tmp_path / "model_final.pth")

    ours = converted(tmp_path / "model_final.pth")

    assert ours.framework == "pycls"
    assert ours.decision("channel order")[0] == "BGR, stem flipped to take RGB"
    assert set(ours.record["skipped"]) == {"fpn_lateral2", "roi_heads"}
    features: list[Tensor] = []
    network.get_submodule("head").register_forward_pre_hook(
        lambda _, inputs: features.append(inputs[0])
    )
    with torch.inference_mode():
        network(noise().flip(1))
        assert difference(ours.trunk(noise()).last_hidden_state, features[0]) < LIMIT


def test_two_networks_in_one_file_are_refused_by_their_places(tmp_path: Path) -> None:
    state = NETWORKS["timm"]().state_dict()
    tree = {"state_dict": prefixed("student.", state) | prefixed("teacher.", state)}
    torch.save(tree, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert "several models (at state_dict.student, state_dict.teacher)" in message


@EVERY_FRAMEWORK
@pytest.mark.parametrize("choice", ["ema", "raw"])
def test_weights_that_are_not_there_are_not_given(
    tmp_path: Path, framework: str, choice: str
) -> None:
    state = NETWORKS[framework]().state_dict()
    torch.save({"model_ema": state} if choice == "raw" else state, tmp_path / "net.pth")

    message = refusal(lambda: source_of(tmp_path / "net.pth", weights=choice), "net.pth")

    assert f"leave out --weights {choice}" in message


@EVERY_FRAMEWORK
def test_inspect_tells_the_framework_without_being_told(tmp_path: Path, framework: str) -> None:
    torch.save({"state_dict": NETWORKS[framework]().state_dict()}, tmp_path / "net.pth")

    finished = regnet("inspect", "net.pth", cwd=tmp_path)

    assert finished.status == 0, finished.err
    assert re.search(rf"^framework +{framework} *$", finished.out, re.MULTILINE)
    assert "7 classes" in finished.out
