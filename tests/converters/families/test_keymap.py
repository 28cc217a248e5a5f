"""The keymaps: real names against real transformers names, for every published network."""

from __future__ import annotations

import json
from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetForImageClassification as TheirClassifier

from converters.families.classy_vision import CLASSY_VISION
from converters.families.keymap import REFERENCE, Keymap, Leaves, keymap
from converters.families.mlx_image import MLX_IMAGE
from converters.families.openmmlab import OPENMMLAB
from converters.families.pycls import PYCLS
from converters.families.pytorchcv import PYTORCHCV
from converters.families.recognise import architecture_of
from converters.families.timm import TIMM
from converters.families.torchvision import TORCHVISION
from regnet.architecture import BASE_PREFIX, BATCH_NORM_LEAVES
from tests.converters.stored import headers, stored
from tests.oracles.published import published_names, published_network

if TYPE_CHECKING:
    from converters.families.keymap import Fields, Pattern

Shapes = dict[str, tuple[int, ...]]

CASES = [
    pytest.param(framework, name, id=f"{framework}-{name}")
    for framework, names in published_names().items()
    for name in names
]
EVERY_NETWORK = pytest.mark.parametrize(("framework", "name"), CASES)
KEYMAPS = {
    "pycls": PYCLS,
    "timm": TIMM,
    "torchvision": TORCHVISION,
    "mmpretrain": OPENMMLAB,
    "classy-vision": CLASSY_VISION,
    "pytorchcv": PYTORCHCV,
    "reference": REFERENCE,
}


@cache
def real_shapes(framework: str, name: str) -> Shapes:
    """Names and shapes that a real network has, without the level that its head adds."""
    return {
        key.removeprefix("backbone."): tensor.shape
        for key, tensor in headers(published_network(framework, name)).items()
    }


@cache
def transformers_shapes(framework: str, name: str) -> Shapes:
    """What transformers calls the tensors of the same network."""
    tensors = {key: stored(shape) for key, shape in real_shapes(framework, name).items()}
    return shapes_of(json.dumps(architecture_of(tensors, KEYMAPS[framework], "a file")))


@cache
def shapes_of(architecture: str) -> Shapes:
    """Names and shapes of transformers' network, built once for all frameworks that have it.

    Args:
        architecture: The fields of its configuration, in JSON.
    """
    with torch.device("meta"):
        network = TheirClassifier(TheirConfig(**json.loads(architecture)))
    return {key.removeprefix(BASE_PREFIX): tensor.shape for key, tensor in headers(network).items()}


def translate(name: str, source: Keymap, target: Keymap, layer_type: str) -> str:
    parsed = source.parse(name)
    assert parsed is not None, f"{name} is not in the keymap of {source.framework}"
    role, fields = parsed
    return target.spell(role, fields | {"last": 3 if layer_type == "y" else 2})


def layer_type_of(framework: str, name: str) -> str:
    has_attention = any(".attention." in key for key in transformers_shapes(framework, name))
    return "y" if has_attention else "x"


@EVERY_NETWORK
def test_each_real_tensor_becomes_the_transformers_tensor_of_the_same_shape(
    framework: str, name: str
) -> None:
    layer_type = layer_type_of(framework, name)
    translated = {
        translate(key, KEYMAPS[framework], REFERENCE, layer_type): shape
        for key, shape in real_shapes(framework, name).items()
    }

    assert translated == transformers_shapes(framework, name)
    assert len(translated) == len(real_shapes(framework, name))


@EVERY_NETWORK
def test_there_and_back_is_the_identity(framework: str, name: str) -> None:
    keymap, layer_type = KEYMAPS[framework], layer_type_of(framework, name)

    for key in real_shapes(framework, name):
        there = translate(key, keymap, REFERENCE, layer_type)
        assert translate(there, REFERENCE, keymap, layer_type) == key


@EVERY_NETWORK
def test_a_name_is_parsed_by_one_row_only(framework: str, name: str) -> None:
    both = [
        (KEYMAPS[framework], real_shapes(framework, name)),
        (REFERENCE, transformers_shapes(framework, name)),
    ]

    for table, keys in both:
        for key in keys:
            rows = [role for role, row in table.patterns.items() if row.match(key) is not None]
            assert len(rows) == 1, f"{key} fits {rows}"


def test_no_published_network_is_forgotten() -> None:
    counts = {"pycls": 24, "timm": 30, "torchvision": 15, "mmpretrain": 8, "classy-vision": 17}
    counts |= {"pytorchcv": 24}

    found = {framework: len(names) for framework, names in published_names().items()}

    assert found == {framework: counts[framework] for framework in found}


@pytest.mark.parametrize("framework", published_names())
def test_no_row_is_dead(framework: str) -> None:
    keymap = KEYMAPS[framework]
    names = published_names()[framework]
    parsed = [keymap.parse(key) for name in names for key in real_shapes(framework, name)]

    used = {entry[0] for entry in parsed if entry is not None}

    heads_stand_apart = {"classifier"} if framework == "classy-vision" else set()
    of_wider_networks = {"head.conv", "head.norm"} & set(keymap.rows)
    assert used | heads_stand_apart | of_wider_networks == set(keymap.rows)
    assert set(keymap.rows) <= set(REFERENCE.rows)


@pytest.mark.parametrize(
    "name",
    [
        "s0.b1.f.a.weight",
        "s1.b0.f.a.weight",
        "s-1.b1.f.a.weight",
        "s01.b1.f.a.weight",
        "s1.b01.f.a.weight",
        "s1.b1.f.a.weight ",
        " s1.b1.f.a.weight",
        "s1.b1.f.a.weight\n",
        "s1.b1.f.a.weights",
        "s1.b1.f.a.bias",
        "s1.b1xf.a.weight",
        "s1.b1.f.a_bn.num_batches",
        "s1.b1.f.se.f_ex.1.weight",
        "s1\u0661.b1.f.a.weight",  # an Arabic one, which int() would read
        pytest.param("s" + "1" * 5000 + ".b1.f.a.weight", id="more digits than int() reads"),
        "S1.b1.f.a.weight",
        "head.fc.running_mean",
        "xstem.conv.weight",
        "",
    ],
)
def test_a_name_that_is_nearly_right_is_no_name_of_pycls(name: str) -> None:
    assert PYCLS.parse(name) is None


@pytest.mark.parametrize(
    "name",
    [
        "encoder.stages.00.layers.0.layer.0.convolution.weight",
        "encoder.stages.0.layers.-1.layer.0.convolution.weight",
        "encoder.stages.0.layers.0.layer.4.convolution.weight",
        "encoder.stages.0.layers.0.layer.3.convolution.bias",
        "regnet.embedder.embedder.convolution.weight",
        "classifier.0.weight",
        "classifier.1.weight\n",
    ],
)
def test_a_name_that_is_nearly_right_is_no_name_of_the_reference(name: str) -> None:
    assert REFERENCE.parse(name) is None


def test_a_role_that_a_framework_lacks_cannot_be_spelled() -> None:
    with pytest.raises(KeyError, match="attention pool"):
        PYCLS.spell("attention pool", {})


OF_KERAS = keymap(
    "keras",
    "stage{stage}.block{block}",
    stem=("stem_conv", "stem_bn"),
    shortcut=("skip", "skip_bn"),
    reduce=("conv1", "bn1"),
    grouped=("conv2", "bn2"),
    expand=("conv3", "bn3"),
    attention=("squeeze", "excite"),
    classifier="head",
    leaves=Leaves(
        conv="kernel:0",
        norm={
            "weight": "gamma",
            "bias": "beta",
            "running_mean": "moving_mean",
            "running_var": "moving_variance",
        },
        affine={"weight": "kernel:0", "bias": "bias:0"},
    ),
)
"""Leaves as TensorFlow has them."""


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("stem_conv.kernel:0", "embedder.embedder.convolution.weight"),
        ("stem_bn.gamma", "embedder.embedder.normalization.weight"),
        ("stem_bn.beta", "embedder.embedder.normalization.bias"),
        ("stem_bn.moving_mean", "embedder.embedder.normalization.running_mean"),
        ("stem_bn.moving_variance", "embedder.embedder.normalization.running_var"),
        ("stage1.block2.squeeze.bias:0", "encoder.stages.1.layers.2.layer.2.attention.0.bias"),
        ("head.kernel:0", "classifier.1.weight"),
        ("head.bias:0", "classifier.1.bias"),
    ],
)
def test_a_framework_s_own_leaves_are_read_and_spelled(theirs: str, ours: str) -> None:
    assert translate(theirs, OF_KERAS, REFERENCE, "y") == ours
    assert translate(ours, REFERENCE, OF_KERAS, "y") == theirs


@pytest.mark.parametrize(
    "name",
    ["stem_conv.weight", "stem_conv.kernel", "stem_bn.weight", "stem_bn.kernel:0", "head.beta"],
)
def test_leaves_of_another_framework_are_no_names(name: str) -> None:
    assert OF_KERAS.parse(name) is None


@pytest.mark.parametrize("table", [OF_KERAS, MLX_IMAGE])
def test_a_framework_without_counters_has_no_name_that_is_read_as_one(table: Keymap) -> None:
    name = table.spell("stem.norm", {"norm": "num_batches_tracked"})

    assert not table.leaves.count_batches
    assert TIMM.leaves.count_batches
    assert table.parse(name) is None


COUNTS = st.integers(0, 99_999)
FIELDS = st.fixed_dictionaries(
    {
        "stage": COUNTS,
        "block": COUNTS,
        "norm": st.sampled_from(BATCH_NORM_LEAVES),
        "affine": st.sampled_from(("weight", "bias")),
        "last": st.sampled_from((2, 3)),
        "index": COUNTS,
    }
)
ROWS = st.sampled_from(
    [(framework, role) for framework, keymap in KEYMAPS.items() for role in keymap.rows]
)


def row(place: tuple[str, str]) -> Pattern:
    framework, role = place
    return KEYMAPS[framework].patterns[role]


@given(ROWS, FIELDS)
def test_a_pattern_reads_what_it_wrote(place: tuple[str, str], fields: Fields) -> None:
    pattern = row(place)
    used = {name: value for name, value in fields.items() if f"{{{name}" in pattern.text}

    assert pattern.match(pattern.render(fields)) == used


@given(ROWS, FIELDS, st.data())
def test_a_pattern_accepts_nothing_that_it_would_not_write(
    place: tuple[str, str], fields: Fields, data: st.DataObject
) -> None:
    pattern = row(place)
    name = pattern.render(fields)
    position = data.draw(st.integers(0, len(name)))
    removed = data.draw(st.integers(0, 2))
    typed = data.draw(st.text(st.characters(categories=["Nd", "Ll", "Po", "Cc", "Pd"]), max_size=2))
    mistyped = name[:position] + typed + name[position + removed :]

    matched = pattern.match(mistyped)

    assert matched is None or pattern.render(matched) == mistyped
