"""RegNetX of OpenMMLab: what mmengine saves, what mmdetection's script writes."""

from __future__ import annotations

import re
from collections import OrderedDict
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.jobs.writeback import write_back
from converters.weights.plan import make_plan
from tests.converters.families.conversion import (
    LIMIT,
    converted,
    difference,
    noise,
    picture,
    refusal,
    source_of,
    source_of_headers,
    theirs,
)
from tests.converters.stored import headers
from tests.oracles import pycls
from tests.oracles.loaders import load

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType

    from torch import Tensor, nn

RENAMES = (
    (r"^stem\.conv", "conv1"),
    (r"^stem\.bn", "bn1"),
    (r"^head\.fc", "fc"),
    (r"^s(\d)\.b(\d+)\.proj", r"layer\1.\2.downsample.0"),
    (r"^s(\d)\.b(\d+)\.bn", r"layer\1.\2.downsample.1"),
    (r"^s(\d)\.b(\d+)\.f\.a_bn", r"layer\1.\2.bn1"),
    (r"^s(\d)\.b(\d+)\.f\.b_bn", r"layer\1.\2.bn2"),
    (r"^s(\d)\.b(\d+)\.f\.c_bn", r"layer\1.\2.bn3"),
    (r"^s(\d)\.b(\d+)\.f\.a", r"layer\1.\2.conv1"),
    (r"^s(\d)\.b(\d+)\.f\.b", r"layer\1.\2.conv2"),
    (r"^s(\d)\.b(\d+)\.f\.c", r"layer\1.\2.conv3"),
)
"""What mmdetection's `tools/model_converters/regnet2mmdet.py` does to pycls' names."""


def renamed(network: nn.Module) -> dict[str, Tensor]:
    """A pycls state in the words of that script; blocks then count from zero."""
    state = OrderedDict()
    for name, tensor in network.state_dict().items():
        for pattern, replacement in RENAMES:
            if re.search(pattern, name):
                name = re.sub(pattern, replacement, name)  # noqa: PLW2901 -- a chain of renames
                break
        state[re.sub(r"^(layer\d\.)(\d+)", lambda m: m[1] + str(int(m[2]) - 1), name)] = tensor
    return state


def on_bgr(network: nn.Module, pixels: Tensor) -> Tensor:
    """What a network that takes BGR computes of RGB pixels."""
    return theirs(network, pixels.flip(1))


def test_what_mmdetection_renamed_is_flipped_and_computes_the_same(tmp_path: Path) -> None:
    network = pycls.build(pycls.TINY_X, classes=10)
    torch.save({"state_dict": renamed(network), "meta": {}}, tmp_path / "regnetx.pth")

    ours = converted(tmp_path / "regnetx.pth")

    assert ours.framework == "mmpretrain"
    assert ours.decision("channel order") == ("BGR, stem flipped to take RGB", "mmpretrain's own")
    assert difference(ours.logits(noise()), on_bgr(network, noise())) < LIMIT


def test_a_whole_detector_gives_its_backbone(tmp_path: Path) -> None:
    network = pycls.build(pycls.TINY_X, classes=10)
    backbone = {f"backbone.{n}": t for n, t in renamed(network).items() if not n.startswith("fc")}
    others = {"neck.lateral.weight": torch.ones(3), "bbox_head.cls.bias": torch.ones(3)}
    torch.save({"meta": {}, "state_dict": backbone | others}, tmp_path / "detector.pth")

    source = source_of(tmp_path / "detector.pth")

    assert not source.has_classifier
    assert set(source.tensors) == {name.removeprefix("backbone.") for name in backbone}
    assert set(source.skipped) == {"neck", "bbox_head"}


@pytest.fixture(scope="module")
def mmpretrain() -> ModuleType:
    """The real framework, where it is installed."""
    for module in ("mmengine", "mmcv", "mmpretrain"):
        pytest.importorskip(module, exc_type=ImportError)
    from tests.oracles import openmmlab

    return openmmlab


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"meta": {"epoch": 3}, "state_dict": state},
        lambda state: state,
        lambda state: {"state_dict": {f"module.{name}": t for name, t in state.items()}},
    ],
    ids=["mmengine", "flat", "DDP"],
)
def test_a_classifier_sees_a_picture_as_mmpretrain_does(
    tmp_path: Path, mmpretrain: ModuleType, wrap: Any
) -> None:
    network = mmpretrain.build()
    torch.save(wrap(network.state_dict()), tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")

    assert ours.framework == "mmpretrain"
    for image in (picture(400, 300), picture(300, 517)):
        expected = mmpretrain.logits_of_picture(network, image)
        assert difference(ours.logits_of_picture(image), expected) < LIMIT


@pytest.mark.parametrize(("choice", "taken"), [("best", "ema"), ("raw", "raw")])
def test_mmengine_stores_averaged_weights_where_others_have_the_raw(
    tmp_path: Path, mmpretrain: ModuleType, choice: str, taken: str
) -> None:
    raw, ema = mmpretrain.build(seed=0), mmpretrain.build(seed=1)
    tree = {
        "meta": {},
        "state_dict": ema.state_dict(),
        "ema_state_dict": mmpretrain.averaged(raw).state_dict(),
    }
    torch.save(tree, tmp_path / "epoch_3.pth")

    ours = converted(tmp_path / "epoch_3.pth", weights=choice)

    assert ours.decision("weights")[0] == taken
    expected = on_bgr(ema if taken == "ema" else raw, noise())
    assert difference(ours.logits(noise()), expected) < LIMIT


def with_buffers(own: nn.Module, beside: nn.Module) -> dict[str, Tensor]:
    """What mmcv's EMAHook makes of a network: its parameters again, as buffers."""
    buffers = {f"ema_{n.replace('.', '_')}": p.data for n, p in beside.named_parameters()}
    return {**own.state_dict(), **buffers}


EPOCHS = "runner = dict(type='EpochBasedRunner', max_epochs=100)\n"


@pytest.mark.parametrize(
    ("config", "choice", "taken"),
    [
        (EPOCHS, "best", "ema"),
        (EPOCHS, "raw", "raw"),
        ("", "ema", "ema"),
        (EPOCHS.replace("Epoch", "Iter"), "best", "raw"),
        (EPOCHS.replace("Epoch", "Iter"), "ema", "ema"),
    ],
)
def test_mmcv_keeps_the_others_as_buffers_and_exchanges_them_where_there_are_epochs(
    tmp_path: Path, mmpretrain: ModuleType, config: str, choice: str, taken: str
) -> None:
    raw, ema = mmpretrain.build(seed=0), mmpretrain.build(seed=1)
    is_exchanged = "Iter" not in config
    own, beside = (ema, raw) if is_exchanged else (raw, ema)
    state = with_buffers(own, beside)
    torch.save({"meta": {"config": config}, "state_dict": state}, tmp_path / "epoch_3.pth")

    ours = converted(tmp_path / "epoch_3.pth", weights=choice)

    assert ours.decision("weights")[0] == taken
    network = ema if taken == "ema" else raw
    network.load_state_dict(
        {n: b for n, b in own.state_dict().items() if "running" in n}, strict=False
    )
    assert difference(ours.logits(noise()), on_bgr(network, noise())) < LIMIT


def test_a_buffer_of_another_shape_is_not_left_out(tmp_path: Path, mmpretrain: ModuleType) -> None:
    network = mmpretrain.build()
    state = with_buffers(network, network) | {"ema_head_fc_weight": torch.ones(3, 3)}
    torch.save({"meta": {}, "state_dict": state}, tmp_path / "epoch_3.pth")

    message = refusal(lambda: converted(tmp_path / "epoch_3.pth"), "epoch_3.pth")
    assert "ema_head_fc_weight" in message


@pytest.mark.parametrize(
    "meta",
    [
        {"dataset_meta": {"classes": tuple("abcdefghij")}},
        {"CLASSES": list("abcdefghij")},
    ],
    ids=["mmengine", "mmcv"],
)
def test_the_classes_in_meta_become_the_labels(tmp_path: Path, meta: dict[str, Any]) -> None:
    network = pycls.build(pycls.TINY_X, classes=10)
    torch.save({"meta": meta, "state_dict": renamed(network)}, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pth").labels == tuple("abcdefghij")


@pytest.mark.parametrize("meta", [None, {}, {"CLASSES": ["a"]}, {"dataset_meta": None}])
def test_classes_that_are_not_all_there_are_left_out(tmp_path: Path, meta: Any) -> None:
    network = pycls.build(pycls.TINY_X, classes=10)
    torch.save({"meta": meta, "state_dict": renamed(network)}, tmp_path / "net.pth")

    assert source_of(tmp_path / "net.pth").labels is None


def test_every_published_network_is_read_whole(mmpretrain: ModuleType) -> None:
    for name in mmpretrain.ARCHITECTURES:
        network = mmpretrain.build_on_meta(name)
        source = source_of_headers(headers(network))

        assert len(make_plan(source, name).steps) == len(network.state_dict())


@torch.inference_mode()
@pytest.mark.parametrize(
    "backbone",
    [{"strides": (1, 1, 2, 3)}, {"norm_cfg": {"type": "BN", "eps": 1e-2}}],
    ids=["strides", "epsilon"],
)
def test_strides_and_epsilon_are_as_the_configuration_says(
    mmpretrain: ModuleType, backbone: dict[str, Any], tmp_path: Path
) -> None:
    network = mmpretrain.build(**backbone)
    model = {"backbone": {"type": "RegNet", **backbone}}
    tree = {"meta": {"cfg": f"model = {model!r}\n"}, "state_dict": network.state_dict()}
    torch.save(tree, tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")
    write_back(ours.out, tmp_path / "back.pth", "mmpretrain")

    pixels = noise(2, 3, 97, 128)
    expected = network(pixels.flip(1))
    assert difference(ours.logits(pixels), expected) < LIMIT
    assert torch.equal(
        load("mmpretrain", tmp_path / "back.pth", ours.config)(pixels.flip(1)), expected
    )
    assert converted(tmp_path / "back.pth").config == ours.config
