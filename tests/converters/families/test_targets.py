"""What is written for any RegNet: names, shapes and order are those of the real frameworks.

Networks are drawn at random and built by the frameworks' own code from the configuration that would
be written, without memory for weights.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING, Any, cast
from unittest.mock import Mock, patch

import pytest
import timm
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pycls.models.anynet import AnyNet

from converters.errors import InputError
from converters.families import linear_rule
from converters.families.classy_vision import anynet
from converters.families.family import Network
from converters.families.known import target_named, written_back
from converters.families.linear_rule import rule_of
from converters.families.openmmlab import _config_text as mmpretrain_config
from converters.families.pycls import _cfg as pycls_cfg
from converters.families.source import BILINEAR, EvalTransform
from converters.families.timm import _made_with, entrypoint
from regnet import RegNetConfig
from regnet.architecture import Architecture
from regnet.design_space import NETWORKS, fit_widths_to_groups, stage_widths_and_depths
from tests.converters.stored import stored
from tests.oracles.loaders import mmpretrain_models, torchvision_network

if TYPE_CHECKING:
    from torch import nn

    from converters.checkpoint import Checkpoint

Layout = list[tuple[str, tuple[int, ...]]]

QUICK = settings(max_examples=25, deadline=None)


@st.composite
def any_stages(draw: st.DrawFn) -> RegNetConfig:
    """Draw a network whose stages need not follow any rule."""
    group_width = draw(st.integers(1, 24))
    widths = st.integers(3, 60).filter(lambda w: w % max(1, w // group_width) == 0)
    depths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    return RegNetConfig(
        embedding_size=draw(st.integers(3, 40)),
        hidden_sizes=draw(st.lists(widths, min_size=len(depths), max_size=len(depths))),
        depths=depths,
        groups_width=group_width,
        layer_type=draw(st.sampled_from(("x", "y"))),
        num_labels=draw(st.integers(1, 12)),
    )


@st.composite
def ruled(draw: st.DrawFn) -> RegNetConfig:
    """Draw a network of four stages that the paper's rule gives."""
    group_width = draw(st.sampled_from((1, 4, 8, 12, 16, 24, 40)))
    depth = draw(st.integers(4, 28))
    w_0 = 8 * draw(st.integers(1, 12))
    w_m = draw(st.integers(150, 300)) / 100
    steepness = draw(st.integers(70, 130)) / 100  # at 1, the last block is in the fourth stage
    w_a = round(steepness * w_0 * (w_m**3 - 1) / (depth - 1), 2)
    widths, depths = stage_widths_and_depths(depth, w_0, w_a, w_m)
    assume(len(depths) == 4)
    # Halfway between two multiples of 8, the last bits decide: no such rule is written.
    assume(all(abs(w_0 * w_m**power / 8 % 1 - 0.5) > 1e-3 for power in range(8)))
    return RegNetConfig(
        num_channels=draw(st.sampled_from((1, 3, 4))),
        embedding_size=draw(st.sampled_from((16, 32))),
        hidden_sizes=fit_widths_to_groups(widths, group_width),
        depths=depths,
        groups_width=group_width,
        layer_type=draw(st.sampled_from(("x", "y"))),
        num_labels=draw(st.integers(1, 12)),
    )


def network(framework: str, config: RegNetConfig, *, headless: bool = False) -> Network:
    """Give the network of a folder that exists in headers only."""
    shapes = Architecture.of(config, classifier=not headless).shapes
    return Network(
        target=target_named(framework),
        checkpoint=cast("Checkpoint", None),
        stored={name: stored(shape) for name, shape in shapes.items()},
        config=config,
        has_classifier=not headless,
        stated=EvalTransform(256, 224, BILINEAR),
        where="nowhere",
    )


def written(framework: str, config: RegNetConfig) -> Layout:
    tensors = network(framework, config).tensors
    return [(name, tensor.shape) for name, tensor in tensors.items()]


def layout(real: nn.Module) -> Layout:
    return [(name, tuple(tensor.shape)) for name, tensor in real.state_dict().items()]


@QUICK
@given(any_stages())
def test_torchvision_has_the_names_shapes_and_order_that_are_written(config: RegNetConfig) -> None:
    with torch.device("meta"):
        assert written("torchvision", config) == layout(torchvision_network(config))


@QUICK
@given(any_stages())
def test_pycls_has_the_names_shapes_and_order_that_are_written(config: RegNetConfig) -> None:
    cfg = pycls_cfg(network("pycls", config))
    stages = cfg["ANYNET"]

    with torch.device("meta"):
        real = AnyNet(
            stem_type="simple_stem_in",
            stem_w=stages["STEM_W"],
            block_type="res_bottleneck_block",
            ds=stages["DEPTHS"],
            ws=stages["WIDTHS"],
            ss=stages["STRIDES"],
            bms=stages["BOT_MULS"],
            gws=stages["GROUP_WS"],
            se_r=0.25 if stages["SE_ON"] else None,
            nc=cfg["MODEL"]["NUM_CLASSES"],
        )

    assert written("pycls", config) == layout(real)


@QUICK
@given(any_stages())
def test_classy_vision_has_the_names_shapes_and_order_that_are_written(
    config: RegNetConfig,
) -> None:
    models = pytest.importorskip("classy_vision.models")

    with torch.device("meta"):
        trunk = models.build_model(anynet(config))

    *trunk_layout, weight, bias = written("classy-vision", config)
    assert trunk_layout == layout(trunk)
    classes = config.num_labels
    assert (weight, bias) == (
        ("fc.weight", (classes, config.hidden_sizes[-1])),
        ("fc.bias", (classes,)),
    )


@QUICK
@given(any_stages())
def test_vissl_has_the_names_shapes_and_order_that_are_written(config: RegNetConfig) -> None:
    pytest.importorskip("vissl")
    from tests.oracles.vissl import Pooled, mlp, unfilled_trunk

    with torch.device("meta"):
        head = mlp(config.hidden_sizes[-1], config.num_labels)
        real = Pooled(unfilled_trunk(1, anynet(config)), [head])

    names = [name.split(".", 1)[1] for name in real.state_dict()]
    shapes = [tuple(tensor.shape) for tensor in real.state_dict().values()]
    assert written("vissl", config) == list(zip(names, shapes, strict=True))


@QUICK
@given(any_stages(), st.sampled_from((1, 3, 4)))
def test_pytorchcv_has_the_names_shapes_and_order_that_are_written(
    config: RegNetConfig, channels: int
) -> None:
    pytest.importorskip("pytorchcv")
    config = RegNetConfig(**config.to_dict() | {"num_channels": channels})
    assume(not list(target_named("pytorchcv")._obstacles(config, has_classifier=True)))
    source = Mock(config=config, has_classifier=True)

    with torch.device("meta"):
        real = target_named("pytorchcv").build(source, None).module

    assert written("pytorchcv", config) == layout(real)


def built_by_timm(config: RegNetConfig) -> nn.Module:
    name, arguments = _made_with(config)
    with torch.device("meta"):
        real: nn.Module = timm.create_model(name, num_classes=config.num_labels, **arguments)
    return real


@QUICK
@given(ruled())
def test_timm_has_the_names_shapes_and_order_that_are_written(config: RegNetConfig) -> None:
    assert written("timm", config) == layout(built_by_timm(config))


@QUICK
@given(ruled())
def test_mmpretrain_has_the_names_shapes_and_order_that_are_written(config: RegNetConfig) -> None:
    pytest.importorskip("mmengine")
    config = RegNetConfig(**config.to_dict() | {"layer_type": "x"})
    text = mmpretrain_config(network("mmpretrain", config)).splitlines()[0]
    model = ast.literal_eval(text.removeprefix("model = "))

    with torch.device("meta"):
        real = mmpretrain_models().build(model)

    assert [(name.removeprefix("backbone."), shape) for name, shape in layout(real)] == written(
        "mmpretrain", config
    )


TIMM = [name for name in timm.list_models("regnet[xy]_*") if not name.endswith("_sgn")]


@pytest.mark.parametrize("name", TIMM)
def test_each_expressible_network_of_timm_is_written_under_its_own_name(name: str) -> None:
    with torch.device("meta"):
        real: Any = timm.create_model(name)
    stages = [getattr(real, f"s{number}") for number in (1, 2, 3, 4)]
    config = RegNetConfig(
        hidden_sizes=[stage.b1.conv3.conv.out_channels for stage in stages],
        depths=[len(list(stage.children())) for stage in stages],
        groups_width=max(stage.b1.conv2.conv.weight.shape[1] for stage in stages),
        layer_type="y" if name.startswith("regnety") else "x",
        num_labels=1000,
    )

    assert entrypoint(config) == name
    assert written("timm", config) == layout(real)
    assert list(target_named("timm")._obstacles(config, has_classifier=True)) == []


def test_timm_has_thirty_networks_that_can_be_written() -> None:
    assert len(TIMM) == 30


@pytest.mark.parametrize("name", NETWORKS)
def test_a_rule_is_found_for_stages_alone_and_gives_the_same_stages(name: str) -> None:
    config = NETWORKS[name].config()

    with patch.object(linear_rule, "named_like", return_value=None):
        rule = rule_of(config)

    assert rule is not None
    widths, depths = stage_widths_and_depths(rule.depth, rule.w_0, rule.w_a, rule.w_m)
    assert depths == config.depths
    assert fit_widths_to_groups(widths, rule.group_width) == config.hidden_sizes


@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_network_keeps_its_published_rule(name: str) -> None:
    network, rule = NETWORKS[name], rule_of(NETWORKS[name].config())

    assert rule is not None
    assert (rule.depth, rule.w_0, rule.w_a, rule.w_m) == (
        network.depth,
        network.w_0,
        network.w_a,
        network.w_m,
    )


def test_no_rule_is_written_whose_widths_hang_on_the_last_bits() -> None:
    halfway = stage_widths_and_depths(5, 56, 143.32, 2.5)
    config = RegNetConfig(hidden_sizes=halfway[0], depths=halfway[1], groups_width=1)

    assert 56 * 2.5 / 8 == 17.5
    assert rule_of(config) is None


@pytest.mark.parametrize(
    ("widths", "depths", "group_width"),
    [
        ([64, 48, 32, 24], [1, 1, 1, 1], 8),  # growing backwards
        ([16, 24, 40, 64], [3, 1, 1, 1], 8),  # more blocks first than last
        ([20, 36], [1, 1], 16),  # one group of 20, two of 18
    ],
)
def test_no_rule_is_made_up_for_stages_that_none_gives(
    widths: list[int], depths: list[int], group_width: int
) -> None:
    config = RegNetConfig(hidden_sizes=widths, depths=depths, groups_width=group_width)

    assert rule_of(config) is None


@pytest.mark.parametrize("framework", written_back())
def test_every_target_says_what_stands_in_the_way(framework: str) -> None:
    config = RegNetConfig(hidden_act="selu", layer_type="y", num_labels=3)

    with pytest.raises(InputError, match=rf"^net\.pyth cannot be written for {framework}: "):
        target_named(framework).require_expressible(config, "net.pyth", has_classifier=True)
