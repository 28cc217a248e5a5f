"""The design space against pycls' published table and pycls' own code."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pycls.core.net import complexity as pycls_complexity
from pycls.models.regnet import RegNet, adjust_ws_gs_comp

from regnet import RegNetConfig
from regnet.design_space import (
    NETWORKS,
    REGNETZ,
    complexity,
    fit_widths_to_groups,
    named_like,
    stage_widths_and_depths,
)
from tests.oracles import pycls


class Published(NamedTuple):
    """A row of pycls' model zoo: flops in units of 1e9, activations of 1e6."""

    name: str
    depths: list[int]
    widths: list[int]
    parameters: int
    flops: str
    activations: str


TABLE = [
    Published("X-200MF", [1, 1, 4, 7], [24, 56, 152, 368], 2_684_792, "0.199", "2.164"),
    Published("X-400MF", [1, 2, 7, 12], [32, 64, 160, 384], 5_157_512, "0.398", "3.143"),
    Published("X-600MF", [1, 3, 5, 7], [48, 96, 240, 528], 6_196_040, "0.601", "3.975"),
    Published("X-800MF", [1, 3, 7, 5], [64, 128, 288, 672], 7_259_656, "0.800", "5.149"),
    Published("X-1.6GF", [2, 4, 10, 2], [72, 168, 408, 912], 9_190_136, "1.603", "7.934"),
    Published("X-3.2GF", [2, 6, 15, 2], [96, 192, 432, 1008], 15_296_552, "3.177", "11.367"),
    Published("X-4.0GF", [2, 5, 14, 2], [80, 240, 560, 1360], 22_118_248, "3.964", "12.202"),
    Published("X-6.4GF", [2, 4, 10, 1], [168, 392, 784, 1624], 26_209_256, "6.460", "16.370"),
    Published("X-8.0GF", [2, 5, 15, 1], [80, 240, 720, 1920], 39_572_648, "7.995", "14.060"),
    Published("X-12GF", [2, 5, 11, 1], [224, 448, 896, 2240], 46_106_056, "12.087", "21.367"),
    Published("X-16GF", [2, 6, 13, 1], [256, 512, 896, 2048], 54_278_536, "15.941", "25.515"),
    Published("X-32GF", [2, 7, 13, 1], [336, 672, 1344, 2520], 107_811_560, "31.736", "36.302"),
    Published("Y-200MF", [1, 1, 4, 7], [24, 56, 152, 368], 3_162_996, "0.200", "2.168"),
    Published("Y-400MF", [1, 3, 6, 6], [48, 104, 208, 440], 4_344_144, "0.402", "3.892"),
    Published("Y-600MF", [1, 3, 7, 4], [48, 112, 256, 608], 6_055_160, "0.601", "4.334"),
    Published("Y-800MF", [1, 3, 8, 2], [64, 128, 320, 768], 6_263_168, "0.797", "5.250"),
    Published("Y-1.6GF", [2, 6, 17, 2], [48, 120, 336, 888], 11_202_430, "1.612", "8.045"),
    Published("Y-3.2GF", [2, 5, 13, 1], [72, 216, 576, 1512], 19_436_338, "3.176", "11.263"),
    Published("Y-4.0GF", [2, 6, 12, 2], [128, 192, 512, 1088], 20_646_656, "3.973", "12.287"),
    Published("Y-6.4GF", [2, 7, 14, 2], [144, 288, 576, 1296], 30_583_252, "6.355", "16.407"),
    Published("Y-8.0GF", [2, 4, 10, 1], [168, 448, 896, 2016], 39_180_068, "7.963", "17.969"),
    Published("Y-12GF", [2, 5, 11, 1], [224, 448, 896, 2240], 51_822_544, "12.092", "21.384"),
    Published("Y-16GF", [2, 4, 11, 1], [224, 448, 1232, 3024], 83_590_140, "15.912", "23.041"),
    Published("Y-32GF", [2, 5, 12, 1], [232, 696, 1392, 3712], 145_046_770, "32.280", "30.262"),
]
ALL = pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)


def test_the_24_published_networks_are_named() -> None:
    assert list(NETWORKS) == [f"RegNet{row.name}" for row in TABLE]


@ALL
def test_a_published_network_has_the_widths_depths_and_cost_of_the_table(row: Published) -> None:
    config = NETWORKS[f"RegNet{row.name}"].config()
    assert (config.depths, config.hidden_sizes) == (row.depths, row.widths)
    assert (config.layer_type, config.num_labels) == (row.name[0].lower(), 1000)
    cost = complexity(config)
    assert cost.parameters == row.parameters
    assert f"{cost.flops / 1e9:.3f}" == row.flops
    assert f"{cost.activations / 1e6:.3f}" == row.activations


@ALL
@pytest.mark.parametrize("image_size", [224, 97])
def test_cost_equals_what_pycls_counts(row: Published, image_size: int) -> None:
    name = f"RegNet{row.name}"
    with pycls.settings(pycls.published(name), classes=10, TRAIN__IM_SIZE=image_size):
        expected = pycls_complexity(RegNet)
    cost = complexity(NETWORKS[name].config(num_labels=10), image_size)
    assert {"params": cost.parameters, "flops": cost.flops, "acts": cost.activations} == expected


@settings(derandomize=True, deadline=None)  # a tie in a logarithm is no bug to find by chance
@given(
    depth=st.integers(1, 63),
    w_0=st.integers(1, 31).map(lambda n: 8 * n),
    w_a=st.floats(0, 255),
    w_m=st.floats(1.1, 3),
    group_width=st.integers(1, 31).map(lambda n: 8 * n),
)
def test_the_rule_gives_the_stages_that_pycls_builds(
    depth: int, w_0: int, w_a: float, w_m: float, group_width: int
) -> None:
    regnet = {"DEPTH": depth, "W0": w_0, "WA": w_a, "WM": w_m, "GROUP_W": group_width}
    with pycls.settings(regnet):
        expected = RegNet.get_args()
    widths, depths = stage_widths_and_depths(depth, w_0, w_a, w_m)
    assert (fit_widths_to_groups(widths, group_width), depths) == (expected["ws"], expected["ds"])


def test_a_stage_narrower_than_the_group_width_keeps_its_width() -> None:
    assert fit_widths_to_groups([80, 240, 1040], 120) == [80, 240, 1080]


@pytest.mark.parametrize(
    ("expansion", "whole", "fitted"),
    [
        (4.0, False, [15, 40, 105]),
        (4.0, True, [15, 40, 105]),
        (3.0, False, [16, 40, 103]),  # 312 snaps to 310, which is no multiple of three
        (3.0, True, [20, 40, 100]),
        (0.5, False, [16, 40, 100]),
        (0.5, True, [16, 40, 100]),
    ],
)
def test_a_bottleneck_is_fitted_to_groups(expansion: float, whole: bool, fitted: list[int]) -> None:
    assert fit_widths_to_groups([16, 40, 104], 10, expansion, whole=whole) == fitted
    if not whole:
        widths, _ = adjust_ws_gs_comp([16, 40, 104], [expansion] * 3, [10] * 3)
        assert widths == fitted


@pytest.mark.parametrize(
    ("name", "widths", "depths"),
    [
        ("RegNetZ-500MF", [16, 40, 104, 256], [1, 4, 9, 7]),
        ("RegNetZ-4.0GF", [48, 104, 240, 528], [2, 6, 14, 6]),
    ],
)
def test_the_regnetz_of_pycls_follow_from_their_rule(
    name: str, widths: list[int], depths: list[int]
) -> None:
    config = REGNETZ[name].config(num_labels=7)

    assert (config.hidden_sizes, config.depths) == (widths, depths)
    assert named_like(config) == name
    assert named_like(RegNetConfig.from_dict(config.to_dict() | {"head_size": 1024})) == name
    for field, other in {"hidden_act": "relu", "expansion": 2.0, "output_act": True}.items():
        assert named_like(RegNetConfig.from_dict(config.to_dict() | {field: other})) is None


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param({"depth": 0}, id="no blocks"),
        pytest.param({"w_0": 0}, id="no width"),
        pytest.param({"w_0": -8}, id="negative width"),
        pytest.param({"w_0": 20}, id="width not a multiple of eight"),
        pytest.param({"w_a": -0.1}, id="narrowing"),
        pytest.param({"w_m": 1.0}, id="multiplier of one"),
        pytest.param({"w_m": 0.5}, id="shrinking multiplier"),
    ],
)
def test_the_rule_refuses_what_is_outside_the_design_space(wrong: dict[str, Any]) -> None:
    good: dict[str, Any] = {"depth": 13, "w_0": 24, "w_a": 36.44, "w_m": 2.49}
    assert stage_widths_and_depths(**good) == ([24, 56, 152, 368], [1, 1, 4, 7])
    with pytest.raises(ValueError, match="outside the design space"):
        stage_widths_and_depths(**good | wrong)


def test_a_network_without_slope_is_one_stage() -> None:
    assert stage_widths_and_depths(5, 64, 0.0, 2.0) == ([64], [5])


@ALL
def test_a_published_network_is_known_by_its_shape_whatever_its_labels(row: Published) -> None:
    config = NETWORKS[f"RegNet{row.name}"].config(id2label={0: "cat"}, num_channels=1)
    assert config.num_labels == 1
    assert named_like(config) == f"RegNet{row.name}"


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_sizes": [32, 64, 160, 400]},  # torchvision's rounding of X-400MF
        {"depths": [1, 2, 7, 11]},
        {"groups_width": 32},
        {"layer_type": "y"},
        {"embedding_size": 64},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_network_has_no_published_name(change: dict[str, Any]) -> None:
    fields = NETWORKS["RegNetX-400MF"].config().to_dict()
    assert named_like(RegNetConfig.from_dict(fields)) == "RegNetX-400MF"
    assert named_like(RegNetConfig.from_dict(fields, **change)) is None
