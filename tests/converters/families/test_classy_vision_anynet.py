"""AnyNets and RegNetZ of ClassyVision; AnyNets of torchvision and VISSL, whose shapes say all."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs
from regnet.model import RegNetForImageClassification
from regnet.wider import WIDER_TYPE
from tests.converters.families.conversion import (
    Converted,
    converted,
    difference,
    noise,
    refusal,
    source_of,
)
from tests.converters.families.wrong_fields import unseen
from tests.oracles.loaders import load
from tests.oracles.statistics import randomise

pytest.importorskip("classy_vision")

from tests.oracles.classy_vision import UNEVEN, build, checkpoint, head

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

NATIVE = (1, 3, 224, 224)
SIZE = (2, 3, 97, 128)
"""An odd one, where strides meet the edge."""

RULE = {"name": "regnet", "depth": 5, "w_0": 16, "w_a": 10.7, "w_m": 2.51, "group_width": 4}
Z: dict[str, Any] = RULE | {
    "block_type": "res_bottleneck_linear_block",
    "activation": "silu",
    "bottleneck_multiplier": 4.0,
}
CONVOLVED: dict[str, Any] = {"conv_planes": 40, "activation": "silu"}

CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "RegNetZ": (Z, CONVOLVED),
    "RegNetZ with a linear head": (Z, {}),
    "RegNetZ without attention": (Z | {"use_se": False}, {}),
    "groups of each stage": (UNEVEN | {"group_widths": [4, 12, 6]}, {}),
    "narrow bottlenecks": (
        UNEVEN | {"bottleneck_multipliers": [0.3] * 3, "group_widths": [5, 7, 7], "se_ratio": 0.4},
        {},
    ),
    "CIFAR's stem": (UNEVEN | {"stem_type": "RES_STEM_CIFAR", "strides": [1, 2, 2]}, {}),
    "strides": (UNEVEN | {"widths": [16] * 3, "group_widths": [8] * 3, "strides": [2, 1, 4]}, {}),
    "another epsilon": (UNEVEN | {"bn_epsilon": 1e-3}, {}),
    "silu": (UNEVEN | {"activation": "SILU"}, {}),
    "a head with a convolution": (UNEVEN, CONVOLVED | {"activation": "relu"}),
}


@dataclass(frozen=True)
class Pair:
    """A network of ClassyVision with its head, and its folder."""

    theirs: nn.Module
    path: Path
    ours: Converted


def saved(
    config: dict[str, Any], options: dict[str, Any], folder: Path, *, says: bool = True
) -> tuple[nn.Module, Path]:
    """Build and save as a training run does; without its configuration if not `says`."""
    network = build(config)
    width = network(torch.zeros(1, 3, 64, 64)).shape[1]
    end = randomised(head("default_head", width, 7, **options))
    network.set_heads({"trunk_output": [end]})
    stated = config | {"heads": [{"unique_id": "default_head", **options}]}
    tree = checkpoint(network.eval(), stated)
    if not says:
        del tree["input_args"]
    torch.save(tree, folder / "net.torch")
    return network, folder / "net.torch"


def trained(
    config: dict[str, Any], options: dict[str, Any], folder: Path, *, says: bool = True
) -> Pair:
    """The same, converted."""
    network, path = saved(config, options, folder, says=says)
    return Pair(network, path, converted(path))


def randomised(end: nn.Module) -> nn.Module:
    """A head whose batch norm is like a trained one's."""
    for module in end.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias)
            module.running_var.uniform_(0.5, 2.0)  # type: ignore[union-attr, operator]
            module.running_mean.normal_()  # type: ignore[union-attr, operator]
    return end.eval()


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return trained(*CASES[request.param], tmp_path_factory.mktemp("net"))


@torch.inference_mode()
def error(pair: Pair, dtype: torch.dtype = torch.float64, size: tuple[int, ...] = SIZE) -> float:
    pixels = noise(*size).to(dtype)
    pair.theirs.to(dtype)
    expected = pair.theirs(pixels)
    pair.theirs.float()
    ours = RegNetForImageClassification.from_pretrained(pair.ours.out, dtype=dtype)
    return float((ours(pixels).logits - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["native", "odd"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_logits_are_those_of_classy_vision(
    pair: Pair, dtype: torch.dtype, limit: float, size: tuple[int, ...]
) -> None:
    assert error(pair, dtype, size) < limit


@torch.no_grad()
def test_batch_statistics_are_those_of_classy_vision(pair: Pair) -> None:
    """In training mode, in which no running statistics hide what an image contributes."""
    pixels = noise(*SIZE).double()
    expected = deepcopy(pair.theirs).double().train()(pixels)

    assert difference(pair.ours.in_training(torch.float64)(pixels).logits, expected) < 1e-12


def test_each_field_wrong_on_purpose_is_refused_or_seen_in_the_logits(pair: Pair) -> None:
    pixels = noise(*SIZE)
    with torch.inference_mode():
        theirs = pair.theirs(pixels)

    assert unseen(pair.ours.classifier, pixels, theirs) == []


def test_transformers_is_not_let_near_the_folder(pair: Pair) -> None:
    assert pair.ours.config.model_type == WIDER_TYPE


@torch.inference_mode()
def test_what_is_written_back_is_the_same_network_with_the_same_bytes(
    pair: Pair, tmp_path: Path
) -> None:
    write_back(pair.ours.out, tmp_path / "back.torch", "classy-vision")

    loaded: Any = load("classy-vision", tmp_path / "back.torch", pair.ours.config)

    theirs, again = pair.theirs.state_dict(), loaded.state_dict()
    assert again.keys() == theirs.keys()
    assert all(torch.equal(again[name], theirs[name]) for name in theirs)
    assert torch.equal(loaded(noise(*SIZE)), pair.theirs(noise(*SIZE)))
    assert converted(tmp_path / "back.torch").config == pair.ours.config


@pytest.mark.parametrize("case", ["RegNetZ", "narrow bottlenecks"])
def test_verify_runs_classy_vision_s_own_network(case: str, tmp_path: Path) -> None:
    pair = trained(*CASES[case], tmp_path)
    folder = ConvertedFolder(pair.ours.out)

    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), pair.path)

    assert verdict.passed, verdict.reason
    assert verdict.not_run is None


@pytest.mark.slow
def test_a_named_regnetz_is_one_without_saying_so(tmp_path: Path) -> None:
    pair = trained({"name": "regnet_z_500mf"}, CONVOLVED, tmp_path)

    assert error(pair) < 1e-12


def test_without_a_configuration_a_regnetz_has_its_activations(tmp_path: Path) -> None:
    pair = trained(*CASES["RegNetZ"], tmp_path, says=False)

    assert error(pair) < 1e-12
    assert pair.ours.decision("activations")[0] == "silu, none behind blocks"


@pytest.mark.parametrize(
    ("network", "options", "reason"),
    [
        (Z, {"conv_planes": 40}, "its convolution has relu where the network has silu"),
        (
            UNEVEN | {"bn_epsilon": 1e-3},
            CONVOLVED | {"activation": "relu"},
            "its batch norm has the epsilon 1e-05 where the network has 0.001",
        ),
    ],
)
def test_a_convolution_unlike_the_network_is_left_out_with_the_reason(
    tmp_path: Path, network: dict[str, Any], options: dict[str, Any], reason: str
) -> None:
    pair = trained(network, options, tmp_path)

    assert pair.ours.config.head_size == 0
    assert pair.ours.record["skipped"]["head default_head"] == reason


def test_a_head_cannot_be_written_with_another_epsilon(tmp_path: Path) -> None:
    pair = trained(*CASES["a head with a convolution"], tmp_path)
    config = pair.ours.config
    config.norm_eps = 1e-3
    config.save_pretrained(pair.ours.out)

    with pytest.raises(InputError, match=r"its norm_eps is 0\.001.*; choose another framework"):
        write_back(pair.ours.out, tmp_path / "back.torch", "classy-vision")


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ({"stem_type": "res_stem_in"}, "stem_type to 'res_stem_in'.*simple_stem_in or"),
        ({"block_type": "vanilla_block"}, "block_type to 'vanilla_block'"),
        ({"bottleneck_multipliers": [1.0, 0.5, 1.0]}, r"bottleneck_multipliers.* one number for"),
        ({"activation": "gelu"}, "activation to 'gelu'.* relu or silu"),
        ({"bn_epsilon": 0}, "bn_epsilon to 0.* a number above 0"),
        ({"strides": [2, 0, 2]}, r"strides to \[2, 0, 2\]"),
        ({"strides": 2}, "strides to 2"),
        ({"strides": [2, 2]}, "describes no network: strides has 2 numbers"),
    ],
)
def test_what_no_configuration_says_is_refused_by_name(
    tmp_path: Path, setting: dict[str, Any], words: str
) -> None:
    network = build(UNEVEN)
    torch.save(checkpoint(network, UNEVEN | setting), tmp_path / "net.torch")

    with pytest.raises(InputError, match=rf"^net\.torch: .*{words}.*\.$"):
        source_of(tmp_path / "net.torch")


STAGES: dict[str, Any] = {"depths": [1, 2, 1], "widths": [16, 24, 48], "strides": [2, 2, 2]}
FLAT: dict[str, dict[str, Any]] = {
    "groups of each stage": {"group_widths": [4, 12, 6], "bottleneck_multipliers": [1.0] * 3},
    "bottlenecks": {"group_widths": [5, 7, 7], "bottleneck_multipliers": [0.3] * 3},
}


@torch.inference_mode()
@pytest.mark.parametrize("se_ratio", [None, 0.25, 0.4])
@pytest.mark.parametrize("case", FLAT)
def test_torchvision_is_read_and_written_with_what_shapes_show(
    case: str, se_ratio: float | None, tmp_path: Path
) -> None:
    from torchvision.models.regnet import BlockParams, RegNet

    def built() -> Any:
        return RegNet(BlockParams(**STAGES, **FLAT[case], se_ratio=se_ratio), 7).eval()

    theirs, again = randomise(built()), built()
    torch.save(theirs.state_dict(), tmp_path / "net.pth")

    ours = converted(tmp_path / "net.pth")
    write_back(ours.out, tmp_path / "back.pth", "torchvision")

    expected = theirs(noise(*SIZE))
    assert (ours.logits(noise(*SIZE)) - expected).abs().max() < 1e-5 * expected.abs().max()
    assert ours.config.wider_fields()
    again.load_state_dict(torch.load(tmp_path / "back.pth", weights_only=True))
    assert torch.equal(again(noise(*SIZE)), expected)
    folder = ConvertedFolder(ours.out)
    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), tmp_path / "net.pth")
    assert verdict.passed
    assert verdict.not_run is None


def test_uneven_bottlenecks_of_torchvision_are_refused(tmp_path: Path) -> None:
    from torchvision.models.regnet import BlockParams, RegNet

    uneven = {"group_widths": [4, 4, 4], "bottleneck_multipliers": [1.0, 0.5, 1.0]}
    torch.save(RegNet(BlockParams(**STAGES, **uneven), 7).state_dict(), tmp_path / "net.pth")

    said = refusal(lambda: source_of(tmp_path / "net.pth"), "net.pth")

    assert "one bottleneck multiplier for all stages" in said
