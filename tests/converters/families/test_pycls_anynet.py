"""AnyNets and RegNetZ of pycls: what its cfg can set and transformers cannot express."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import torch
import yaml

from converters.errors import InputError
from converters.families.known import target_named
from converters.folder.folder import ConvertedFolder
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs
from regnet.config import RegNetConfig
from regnet.design_space import named_like
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
from tests.oracles.pycls_head import LINEAR, build, save

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

NATIVE = (1, 3, 224, 224)
SIZE = (2, 3, 97, 128)
"""An odd one, where strides meet the edge."""

SMALL = {"DEPTH": 5, "W0": 16, "WA": 10.7, "WM": 2.51, "GROUP_W": 4, "SE_ON": True}
Z: dict[str, Any] = {"BLOCK_TYPE": LINEAR, "BOT_MUL": 4.0, "SE_ON": True}
STAGES: dict[str, Any] = {"STEM_W": 16, "DEPTHS": [1, 2, 1], "WIDTHS": [16, 24, 48]}
STAGES |= {"STRIDES": [2, 2, 2], "BOT_MULS": [1.0] * 3, "GROUP_WS": [8] * 3, "SE_ON": True}


def of(section: str, stages: dict[str, Any], **others: Any) -> dict[str, Any]:
    """A whole cfg, with sections beside that of the network."""
    model = {"TYPE": section.lower(), "NUM_CLASSES": 7} | others.pop("MODEL", {})
    return {"MODEL": model, section: stages, **others}


SILU = {"ACTIVATION_FUN": "silu"}
CASES: dict[str, dict[str, Any]] = {
    "RegNetZ": of("REGNET", SMALL | Z | {"HEAD_W": 40}, MODEL=SILU),
    "RegNetZ without a convolution in its head": of("REGNET", SMALL | Z, MODEL=SILU),
    "linear blocks without attention": of(
        "ANYNET", STAGES | {"BLOCK_TYPE": LINEAR, "SE_ON": False, "BOT_MULS": [2.0] * 3}
    ),
    "groups of each stage": of("ANYNET", STAGES | {"GROUP_WS": [4, 12, 6]}),
    "narrow bottlenecks": of(
        "ANYNET", STAGES | {"BOT_MULS": [0.3] * 3, "GROUP_WS": [5, 7, 7], "SE_R": 0.4}
    ),
    "CIFAR's stem": of("ANYNET", STAGES | {"STEM_TYPE": "res_stem_cifar", "STRIDES": [1, 2, 2]}),
    "strides": of("ANYNET", STAGES | {"WIDTHS": [16, 16, 48], "STRIDES": [2, 1, 4]}),
    "stride 1 everywhere": of("REGNET", SMALL | {"STRIDE": 1}),
    "another epsilon": of("ANYNET", STAGES, BN={"EPS": 1e-3}),
    "silu": of("ANYNET", STAGES, MODEL=SILU),
    "gelu": of("ANYNET", STAGES, MODEL={"ACTIVATION_FUN": "gelu"}),
}
REGNETZ_500MF = of(
    "REGNET", SMALL | Z | {"DEPTH": 21, "HEAD_W": 1024}, MODEL=SILU | {"NUM_CLASSES": 1000}
)


@dataclass(frozen=True)
class Pair:
    """A network of pycls, its cfg, and its folder."""

    values: dict[str, Any]
    theirs: nn.Module
    path: Path
    ours: Converted


def pair_of(values: dict[str, Any], folder: Path) -> Pair:
    theirs = build(values)
    path = save(folder / "net.pyth", theirs, values)
    return Pair(values, theirs, path, converted(path))


@pytest.fixture(scope="module", params=CASES)
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    return pair_of(CASES[request.param], tmp_path_factory.mktemp("net"))


@torch.inference_mode()
def error(
    theirs: nn.Module,
    ours: nn.Module,
    dtype: torch.dtype = torch.float64,
    size: tuple[int, ...] = SIZE,
) -> float:
    """Ours takes RGB, theirs BGR."""
    pixels = noise(*size).to(dtype)
    expected = theirs.to(dtype)(pixels.flip(1))
    theirs.float()
    return float((ours.to(dtype)(pixels).logits - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("size", [NATIVE, SIZE], ids=["native", "odd"])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_the_logits_are_those_of_pycls(
    pair: Pair, dtype: torch.dtype, limit: float, size: tuple[int, ...]
) -> None:
    ours = RegNetForImageClassification.from_pretrained(pair.ours.out)

    assert error(pair.theirs, ours, dtype, size) < limit


def test_transformers_is_not_let_near_the_folder(pair: Pair) -> None:
    assert pair.ours.config.model_type == WIDER_TYPE


@torch.inference_mode()
def test_what_is_written_back_is_the_same_network_with_the_same_bytes(
    pair: Pair, tmp_path: Path
) -> None:
    write_back(pair.ours.out, tmp_path / "back.pyth", "pycls")
    tree = torch.load(tmp_path / "back.pyth", weights_only=True)

    again = build(yaml.safe_load(tree["cfg"]), seed=1)
    again.load_state_dict(tree["model_state"])

    theirs = pair.theirs.state_dict()
    assert list(tree["model_state"]) == list(theirs)
    assert all(torch.equal(tree["model_state"][name], theirs[name]) for name in theirs)
    assert torch.equal(again(noise(*SIZE)), pair.theirs(noise(*SIZE)))
    assert converted(tmp_path / "back.pyth").config == pair.ours.config


def test_each_field_wrong_on_purpose_is_refused_or_seen_in_the_logits(pair: Pair) -> None:
    pixels = noise(*SIZE)
    with torch.inference_mode():
        theirs = pair.theirs(pixels.flip(1))

    assert unseen(pair.ours.classifier, pixels, theirs) == []


@torch.no_grad()
def test_batch_statistics_are_those_of_pycls(pair: Pair) -> None:
    """In training mode, in which no running statistics hide what an image contributes."""
    pixels = noise(*SIZE).double()
    expected = deepcopy(pair.theirs).double().train()(pixels.flip(1))

    assert difference(pair.ours.in_training(torch.float64)(pixels).logits, expected) < 1e-12


@pytest.mark.slow
def test_the_published_regnetz_is_that_of_pycls(tmp_path: Path) -> None:
    pair = pair_of(REGNETZ_500MF, tmp_path)

    assert sum(one.numel() for one in pair.theirs.parameters()) == 7_122_742
    assert named_like(pair.ours.config) == "RegNetZ-500MF"
    assert error(pair.theirs, RegNetForImageClassification.from_pretrained(pair.ours.out)) < 1e-12


def test_without_a_cfg_a_regnetz_has_its_activations_and_this_is_told(tmp_path: Path) -> None:
    values = CASES["RegNetZ"]
    theirs = build(values)

    ours = converted(save(tmp_path / "net.pyth", theirs, None))

    assert error(theirs, RegNetForImageClassification.from_pretrained(ours.out)) < 1e-12
    value, reason = ours.decision("activations")
    assert value == "silu, none behind blocks"
    assert "no cfg" in reason


def test_verify_runs_an_anynet_of_pycls_own(tmp_path: Path) -> None:
    values = CASES["narrow bottlenecks"] | {"BN": {"EPS": 1e-3}}
    pair = pair_of(values, tmp_path)
    folder = ConvertedFolder(pair.ours.out)

    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), pair.path)

    assert verdict.passed, verdict.reason
    assert verdict.not_run is None


def test_a_regnetz_is_not_run_by_a_pycls_that_has_none(tmp_path: Path) -> None:
    pair = pair_of(CASES["linear blocks without attention"], tmp_path)
    folder = ConvertedFolder(pair.ours.out)

    verdict = judge_source(folder, Truth(folder, fresh_inputs(folder)), pair.path)

    assert "no RegNetZ" in str(verdict.not_run)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"STEM_TYPE": "res_stem_in"}, r"STEM_TYPE to res_stem_in \(a 7x7 convolution and max"),
        ({"STEM_TYPE": "res_stem_patch"}, "STEM_TYPE to res_stem_patch"),
        ({"BLOCK_TYPE": "vanilla_block"}, r"BLOCK_TYPE to vanilla_block \(blocks without a short"),
        ({"BLOCK_TYPE": "res_basic_block"}, r"BLOCK_TYPE to res_basic_block \(blocks of two"),
        ({"BOT_MULS": [1.0, 0.5, 1.0]}, r"BOT_MULS to \[1.0, 0.5, 1.0\].* one number for all st"),
        ({"STRIDES": [2, 0, 2]}, "STRIDE to 0.* a whole number of at least 1"),
        ({"STRIDES": [2, 2]}, "describes no network: strides has 2 numbers and depths 3"),
        ({"SE_R": -1}, "SE_R to -1.* a number above 0"),
        ({"HEAD_W": 4.5}, "HEAD_W to 4.5"),
    ],
)
def test_what_no_configuration_says_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    network = build(CASES["silu"])
    path = save(tmp_path / "net.pyth", network, of("ANYNET", STAGES | changes))

    with pytest.raises(InputError, match=rf"^net\.pyth: .*{words}.*\.$"):
        source_of(path)


def test_uneven_bottlenecks_are_refused_without_a_cfg_as_well(tmp_path: Path) -> None:
    uneven = of("ANYNET", STAGES | {"BOT_MULS": [1.0, 0.5, 1.0], "GROUP_WS": [4] * 3})
    path = save(tmp_path / "net.pyth", build(uneven), None)

    assert "one bottleneck multiplier" in refusal(lambda: source_of(path), "net.pyth")


@pytest.mark.parametrize(
    "changes",
    [
        {"BOT_MULS": [2.0] * 3},
        {"SE_R": 0.5},
        {"HEAD_W": 20},
        {"BLOCK_TYPE": LINEAR},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_cfg_of_another_network_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = save(tmp_path / "net.pyth", build(CASES["silu"]), of("ANYNET", STAGES | changes))

    with pytest.raises(InputError, match=r"^net\.pyth"):
        converted(path)


SAYABLE: dict[str, Any] = {
    "groups_width": [8, 12, 8],
    "expansion": 2.0,
    "se_ratio": 0.5,
    "norm_eps": 1e-3,
    "stem_strides": [1],
    "strides": [2, 1, 3],
    "head_size": 8,
}
UNSAYABLE: dict[str, dict[str, Any]] = {
    "expansion_of": {"expansion": 2.0, "expansion_of": "input"},
    "se_of": {"se_of": "bottleneck", "expansion": 2.0},
    "shortcut": {"shortcut": "avg"},
    "output_act": {"output_act": False},
    "se_act": {"se_act": "silu"},
    "preactivation": {"preactivation": True},
    "norm": {"norm": "group", "norm_group_size": 8},
    "final_act": {"final_act": True},
    "padding": {"padding": "same"},
    "stem_sizes": {"stem_sizes": [8, 16]},
    "stem_strides": {"stem_strides": [3]},
}


def obstacle(framework: str, **fields: Any) -> str | None:
    config = RegNetConfig(
        hidden_sizes=[16, 24, 48], depths=[1, 2, 1], embedding_size=16, num_labels=7
    )
    config = RegNetConfig.from_dict(config.to_dict() | {"groups_width": 8} | fields)
    return next(target_named(framework)._obstacles(config, has_classifier=True), None)


@pytest.mark.parametrize("framework", ["pycls", "classy-vision", "torchvision", "vissl"])
def test_each_field_is_written_where_a_file_says_it(framework: str) -> None:
    shown = {"groups_width", "expansion", "se_ratio"}
    says = set(SAYABLE) if framework in {"pycls", "classy-vision"} else shown

    found = {field for field, value in SAYABLE.items() if not obstacle(framework, **{field: value})}

    assert found == says


@pytest.mark.parametrize("framework", ["pycls", "classy-vision", "torchvision", "vissl"])
@pytest.mark.parametrize("field", UNSAYABLE)
def test_what_no_file_says_is_refused_by_name(framework: str, field: str) -> None:
    assert f"its {field} is" in str(obstacle(framework, **UNSAYABLE[field]))
