"""Recognition: real networks of many frameworks, and every RegNet that the reference can be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
import torchvision
from hypothesis import given, settings
from hypothesis import strategies as st
from pycls.models.anynet import AnyNet
from pycls.models.effnet import EffNet
from pycls.models.resnet import ResNet
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetForImageClassification as TheirClassifier
from transformers import RegNetModel as TheirModel

from converters.errors import InputError
from converters.families.known import FAMILIES, NOTHING
from converters.families.pycls import PYCLS
from converters.families.recognise import architecture_of, refusal
from converters.families.wrapping import all_tensors, find_state_dicts
from converters.weights.plan import make_plan
from regnet.architecture import Architecture
from regnet.config import RegNetConfig
from regnet.design_space import NETWORKS
from tests.converters.families.conversion import source_of_headers
from tests.converters.stored import headers, in_pycls_words, stored
from tests.oracles.pycls import published
from tests.oracles.pycls import settings as pycls_settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from converters.checkpoint import StoredTensor

Headers = dict[str, "StoredTensor"]


def anynet(**changes: Any) -> nn.Module:
    """Build a real pycls AnyNet of two stages (16 and 24 channels), without memory for weights."""
    arguments: dict[str, Any] = {
        "stem_type": "simple_stem_in",
        "stem_w": 12,
        "block_type": "res_bottleneck_block",
        "ds": [1, 2],
        "ws": [16, 24],
        "ss": [2, 2],
        "bms": [1.0, 1.0],
        "gws": [8, 8],
        "se_r": 0.25,
        "nc": 10,
    }
    with torch.device("meta"):
        network: nn.Module = AnyNet(**arguments | changes)
    return network


@st.composite
def regnets(draw: st.DrawFn) -> RegNetConfig:
    """Draw any RegNet of pycls; a stage's width need not be a multiple of the group width."""
    group_width = draw(st.integers(1, 24))
    per_group = st.integers(group_width, 2 * group_width)
    in_groups = st.builds(lambda count, size: count * size, st.integers(1, 6), per_group)
    width = st.one_of(in_groups, st.integers(3, group_width + 3)).filter(
        lambda w: w >= 3 and w % max(1, w // group_width) == 0
    )
    depths = draw(st.lists(st.integers(1, 3), min_size=1, max_size=5))
    return RegNetConfig(
        num_channels=draw(st.integers(1, 5)),
        embedding_size=draw(st.integers(3, 40)),
        hidden_sizes=draw(st.lists(width, min_size=len(depths), max_size=len(depths))),
        depths=depths,
        groups_width=group_width,
        layer_type=draw(st.sampled_from(("x", "y"))),
        downsample_in_first_stage=draw(st.booleans()),
        num_labels=draw(st.integers(0, 12)),
    )


def built_by_pycls(config: RegNetConfig) -> Headers:
    """Return what the real pycls saves of a network; its stem always takes three channels."""
    first = 2 if config.downsample_in_first_stage else 1
    widths = config.hidden_sizes
    network = anynet(
        stem_w=config.embedding_size,
        ds=config.depths,
        ws=widths,
        ss=[first] + [2] * (len(widths) - 1),
        bms=[1.0] * len(widths),
        gws=[w // max(1, w // config.groups_width) for w in widths],
        se_r=0.25 if config.layer_type == "y" else None,
        nc=max(config.num_labels, 1),
    )
    tensors = headers(network)
    tensors["stem.conv.weight"] = stored((config.embedding_size, config.num_channels, 3, 3))
    return {
        name: tensor
        for name, tensor in tensors.items()
        if config.num_labels or not name.startswith("head.")
    }


@settings(max_examples=60, deadline=None)
@given(regnets())
def test_every_regnet_is_read_off_the_shapes_that_the_real_pycls_gives_it(
    config: RegNetConfig,
) -> None:
    found = architecture_of(built_by_pycls(config), PYCLS, "a file")

    # Shapes do not tell strides, nor which of several group widths gives the same groups.
    read = RegNetConfig(**found, downsample_in_first_stage=config.downsample_in_first_stage)
    assert Architecture.of(read) == Architecture.of(config)


@settings(max_examples=60, deadline=None)
@given(regnets())
def test_the_real_pycls_has_the_names_and_shapes_that_the_keymap_says(config: RegNetConfig) -> None:
    shapes = {name: tensor.shape for name, tensor in built_by_pycls(config).items()}

    assert in_pycls_words(config) == shapes


@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_network_is_read_with_its_published_group_width(name: str) -> None:
    expected = NETWORKS[name].config()
    tensors = {key: stored(shape) for key, shape in in_pycls_words(expected).items()}

    assert RegNetConfig(**architecture_of(tensors, PYCLS, "a file")) == expected


IDENTITY_FIRST = RegNetConfig(
    embedding_size=16,
    hidden_sizes=[16, 24],
    depths=[2, 1],
    groups_width=8,
    layer_type="x",
    downsample_in_first_stage=False,
)
"""A trunk whose first block adds its input as it is."""


def spelled(framework: str, config: RegNetConfig) -> Headers:
    slots = Architecture.of(config, classifier=False).slots
    family = FAMILIES[framework].family
    spell, theirs = family.keymap.spell, family.layout.theirs
    return {
        spell(slot.role, slot.fields): theirs(stored(slot.shape))
        for slot in slots
        if not slot.is_counter
    }


BY_NAME = [name for name, known in FAMILIES.items() if known.tell_tale != NOTHING]


@pytest.mark.parametrize("framework", BY_NAME)
def test_a_first_block_without_projection_is_one_of_stride_1(framework: str) -> None:
    tensors = spelled(framework, IDENTITY_FIRST)

    source = source_of_headers(tensors)

    assert not source.config.downsample_in_first_stage
    assert "no projection" in {d.topic: d.reason for d in source.decisions}["first stage"]
    placed = {step.source_name for step in make_plan(source, "net").steps}
    assert placed - {None} == tensors.keys()


@pytest.mark.parametrize("framework", BY_NAME)
@pytest.mark.parametrize("part", ["shortcut.conv", "shortcut.norm"])
def test_half_a_projection_is_none_at_all(framework: str, part: str) -> None:
    strided = RegNetConfig.from_dict(IDENTITY_FIRST.to_dict() | {"downsample_in_first_stage": True})
    tensors = spelled(framework, strided)
    place = {"stage": 0, "block": 0, "norm": "weight"}
    del tensors[FAMILIES[framework].family.keymap.spell(part, place)]

    with pytest.raises(InputError, match=r" 1 missing \("):
        make_plan(source_of_headers(tensors), "net")


@pytest.mark.parametrize(
    "tree",
    [
        {
            "model_state": spelled("pycls", IDENTITY_FIRST),
            "cfg": "ANYNET: {STRIDES: [2, 2]}\nMODEL: {TYPE: anynet}\n",
        },
        {
            "input_args": {"config": {"model": {"strides": [2, 2]}}},
            "classy_state_dict": spelled("classy-vision", IDENTITY_FIRST),
        },
        {
            "meta": {"cfg": "model = dict(backbone=dict(type='RegNet', strides=(2, 2)))"},
            "state_dict": spelled("mmpretrain", IDENTITY_FIRST),
        },
    ],
    ids=["pycls", "classy-vision", "mmpretrain"],
)
def test_a_stated_stride_goes_before_a_projection_that_is_missing(tree: Headers) -> None:
    with pytest.raises(InputError, match=r" 5 missing \("):
        make_plan(source_of_headers(tree), "net")


def test_a_first_stage_narrower_than_the_group_width_is_one_group() -> None:
    with torch.device("meta"), pycls_settings(published("RegNetX-8.0GF")):
        from pycls.core.builders import build_model

        found = architecture_of(headers(build_model()), PYCLS, "a file")

    assert found["hidden_sizes"][0] == 80
    assert found["groups_width"] == 120


def assert_refused(tensors: Headers, words: str) -> None:
    """Check that a network is refused with one sentence about it; ``words`` is a pattern."""
    with pytest.raises(InputError, match=rf"^net\.pyth\b.*{words}.*\.$"):
        architecture_of(tensors, PYCLS, "net.pyth")


BLOCKS_OF_TWO: dict[str, Any] = {"bms": [], "gws": [], "se_r": None}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"stem_type": "res_stem_in"}, r"a stem of shape \(12, 3, 7, 7\)"),
        (
            {"bms": [1.0, 0.5], "gws": [8, 4]},
            "block 1 of stage 2 has a bottleneck of 12 .*width 24",
        ),
        ({"bms": [2.0, 2.0]}, "block 1 of stage 1 has a bottleneck of 32 "),
        ({"gws": [8, 12]}, r"group widths in each stage \(8, 12 at widths 16, 24\)"),
        ({"gws": [4, 12]}, r"group widths in each stage \(4, 12 "),
        ({"se_r": 0.5}, "block 1 of stage 1 squeezes to 6 .* a quarter of the block's input, 3"),
        (
            BLOCKS_OF_TWO | {"block_type": "res_basic_block"},
            "block 1 of stage 1 has no expand.conv",
        ),
    ],
)
def test_a_network_of_pycls_that_the_reference_cannot_be_is_refused(
    changes: dict[str, Any], words: str
) -> None:
    assert_refused(headers(anynet(**changes)), words)


def without(tensors: Headers, *parts: str) -> Headers:
    return {n: t for n, t in tensors.items() if not any(part in n for part in parts)}


def reshaped(tensors: Headers, name: str, *shape: int) -> Headers:
    assert name in tensors
    return tensors | {name: stored(shape)}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda net: without(net, "stem."), "has no stem where a RegNet has one 3x3 convolution"),
        (lambda net: without(net, "s1.", "s2."), "has no blocks"),
        (lambda net: without(net, "s1."), "stage 2 has a block 1 but not the one before it"),
        (lambda net: without(net, "s2.b1."), "stage 2 has a block 2 but not the one before it"),
        (lambda net: without(net, "s2.b1.f.b.w"), "block 1 of stage 2 has no grouped.conv"),
        (lambda net: without(net, "s2.b2.f.se"), "squeeze-and-excitation in 2 of 3 blocks"),
        (lambda net: without(net, "s1.b1.proj", "s1.b1.bn"), "without a projection, as a RegNetZ"),
        (lambda net: reshaped(net, "s1.b1.f.a.weight", 16), r"s1.b1.f.a.weight has shape \(16,\)"),
        (lambda net: reshaped(net, "s1.b1.f.b.weight", 16, 0, 3, 3), r"has shape \(16, 0, 3, 3\)"),
        (lambda net: reshaped(net, "head.fc.weight"), r"head.fc.weight has shape \(\)"),
    ],
)
def test_a_damaged_network_is_refused_by_name(
    damage: Callable[[Headers], Headers], words: str
) -> None:
    assert_refused(damage(headers(anynet())), words)


def test_a_resnet_of_pycls_has_the_names_of_a_regnet_but_another_stem() -> None:
    keys: dict[str, Any] = {"TRAIN__DATASET": "imagenet", "TEST__DATASET": "imagenet"}
    keys |= {"MODEL__DEPTH": 50, "RESNET__TRANS_FUN": "bottleneck_transform"}
    with torch.device("meta"), pycls_settings({}, **keys):
        tensors = headers(ResNet())

    assert [state.framework for state in find_state_dicts(tensors)] == ["pycls"]
    assert_refused(tensors, r"a stem of shape \(64, 3, 7, 7\)")


def timm_network(name: str) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = timm.create_model(name)
    return network


def torchvision_network(name: str) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = torchvision.models.get_model(name)
    return network


def theirs(kind: type) -> nn.Module:
    with torch.device("meta"):
        network: nn.Module = kind(TheirConfig(depths=[1, 1, 1, 1]))
    return network


def effnet() -> nn.Module:
    shape = {"ds": [1], "ws": [16], "exp_rs": [1], "ss": [1], "ks": [3]}
    with torch.device("meta"):
        network: nn.Module = EffNet(stem_w=32, se_r=0.25, head_w=64, nc=10, **shape)
    return network


def refused(tree: dict[str, Any], framework: str | None = "pycls") -> str:
    """Return the sentence for a checkpoint without the RegNet that was looked for."""
    found = [state for state in find_state_dicts(tree) if state.framework != framework]
    message = str(refusal(framework, found, all_tensors(tree), "net.pyth"))
    assert message.startswith("net.pyth ")
    assert message.endswith(".")
    return message


@pytest.mark.parametrize(
    ("build", "framework"),
    [
        (lambda: timm_network("regnety_002"), "timm"),
        (lambda: timm_network("regnetx_002"), "timm"),
        (torchvision.models.regnet_y_400mf, "torchvision"),
        (lambda: theirs(TheirClassifier), "transformers"),
        (lambda: theirs(TheirModel), "transformers"),
    ],
)
def test_a_regnet_of_another_framework_is_named(
    build: Callable[[], nn.Module], framework: str
) -> None:
    message = refused(headers(build()))

    assert message.startswith("net.pyth is not a pycls RegNet: ")
    assert f" saved by {framework}; convert it with `regnet convert`" in message


@pytest.mark.parametrize(
    ("build", "looks"),
    [
        (effnet, "an EfficientNet of pycls"),
        (lambda: timm_network("resnet18"), "a ResNet"),
        (lambda: timm_network("resnet50"), "a ResNet"),
        (lambda: torchvision_network("resnet18"), "a ResNet"),
        (lambda: timm_network("vit_tiny_patch16_224"), "a vision transformer"),
        (lambda: torchvision_network("vit_b_16"), "a vision transformer"),
        (lambda: timm_network("efficientnet_b0"), "an EfficientNet"),
        (lambda: torchvision_network("efficientnet_b0"), "an EfficientNet"),
        (lambda: timm_network("convnext_atto"), "a ConvNeXt"),
        (lambda: torchvision_network("convnext_tiny"), "a ConvNeXt"),
        (lambda: torchvision_network("densenet121"), "a DenseNet"),
        (lambda: torchvision_network("vgg11"), "a VGG"),
        (lambda: torch.nn.Linear(2, 2), "its first parameter is weight"),
    ],
)
@pytest.mark.parametrize("framework", ["pycls", None])
def test_another_network_is_named(
    build: Callable[[], nn.Module], looks: str, framework: str | None
) -> None:
    tree = {"state_dict": headers(build()), "epoch": 3}

    assert find_state_dicts(tree) == []
    assert f" {looks}" in refused(tree, framework)


@pytest.mark.parametrize(
    ("name", "framework"),
    [
        ("trunk._feature_blocks.res2.block1-0.f.c.weight", "vissl"),
        ("_feature_blocks.res2.block1-part0.block1-0.f.c.weight", "vissl"),
        ("trunk_output.block1.block1-0.f.c.weight", "classy-vision"),
    ],
)
def test_a_framework_that_is_not_installed_is_known_by_its_names(name: str, framework: str) -> None:
    found = find_state_dicts({name: stored((16, 16, 1, 1))})

    assert [state.framework for state in found] == [framework]


@pytest.mark.parametrize(
    ("stem", "expand", "found"),
    [
        ((32, 3, 3, 3), (48, 48, 1, 1), ["mmpretrain"]),
        ((16, 4, 3, 3), (24, 24, 1, 1), ["mmpretrain"]),  # other widths and input channels
        ((64, 3, 7, 7), (64, 64, 1, 1), []),  # a ResNet's stem
        ((64, 3, 3, 3), (256, 64, 1, 1), []),  # a ResNet's bottleneck
        (None, (48, 48, 1, 1), []),
    ],
)
def test_a_regnet_of_openmmlab_is_told_from_a_resnet_by_its_shapes(
    stem: tuple[int, ...] | None, expand: tuple[int, ...], found: list[str]
) -> None:
    tensors = {"backbone.layer1.0.conv3.weight": stored(expand)}
    if stem:
        tensors["backbone.conv1.weight"] = stored(stem)

    assert [state.framework for state in find_state_dicts(tensors)] == found


@pytest.mark.parametrize("tree", [{}, {"model_state": {}}, {"model_state": None, "epoch": 3}])
def test_a_checkpoint_without_tensors_is_refused(tree: dict[str, Any]) -> None:
    assert refused(tree).startswith("net.pyth holds no tensors by name; ")
