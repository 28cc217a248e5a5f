"""The keymaps: real pycls names against real transformers names, for every published network."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pycls.core.builders as pycls_builders
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetForImageClassification as TheirClassifier

from converters.keymaps.keymap import Keymap, Pattern
from converters.keymaps.pycls import PYCLS
from converters.keymaps.reference import REFERENCE
from regnet.architecture import BASE_PREFIX, BATCH_NORM_LEAVES
from regnet.design_space import NETWORKS
from tests.oracles.pycls import published, settings

if TYPE_CHECKING:
    from converters.keymaps.keymap import Fields

Shapes = dict[str, tuple[int, ...]]

EVERY_NETWORK = pytest.mark.parametrize("name", NETWORKS)
BOTH = pytest.mark.parametrize("keymap", [PYCLS, REFERENCE], ids=["pycls", "reference"])
KEYMAPS = {"pycls": PYCLS, "reference": REFERENCE}


@cache
def pycls_shapes(name: str) -> Shapes:
    with torch.device("meta"), settings(published(name)):
        network = pycls_builders.build_model()
    return {key: tuple(tensor.shape) for key, tensor in network.state_dict().items()}


@cache
def transformers_shapes(name: str) -> Shapes:
    config = NETWORKS[name].config()
    fields = ("embedding_size", "hidden_sizes", "depths", "groups_width", "layer_type")
    theirs = TheirConfig(
        num_labels=config.num_labels, **{field: getattr(config, field) for field in fields}
    )
    with torch.device("meta"):
        network = TheirClassifier(theirs)
    return {
        key.removeprefix(BASE_PREFIX): tuple(tensor.shape)
        for key, tensor in network.state_dict().items()
    }


def translate(name: str, source: Keymap, target: Keymap, layer_type: str) -> str:
    parsed = source.parse(name)
    assert parsed is not None, f"{name} is not in the keymap of {source.framework}"
    role, fields = parsed
    return target.spell(role, fields | {"last": 3 if layer_type == "y" else 2})


@EVERY_NETWORK
def test_each_pycls_tensor_becomes_the_transformers_tensor_of_the_same_shape(name: str) -> None:
    layer_type = NETWORKS[name].layer_type
    translated = {
        translate(key, PYCLS, REFERENCE, layer_type): shape
        for key, shape in pycls_shapes(name).items()
    }

    assert translated == transformers_shapes(name)
    assert len(translated) == len(pycls_shapes(name))


@EVERY_NETWORK
def test_there_and_back_is_the_identity(name: str) -> None:
    layer_type = NETWORKS[name].layer_type

    for key in pycls_shapes(name):
        there = translate(key, PYCLS, REFERENCE, layer_type)
        assert translate(there, REFERENCE, PYCLS, layer_type) == key


@BOTH
def test_a_name_is_parsed_by_one_row_only(keymap: Keymap) -> None:
    shapes = pycls_shapes if keymap is PYCLS else transformers_shapes
    keys = [*shapes("RegNetX-200MF"), *shapes("RegNetY-200MF")]

    for key in keys:
        rows = [role for role, row in keymap.patterns.items() if row.match(key) is not None]
        assert len(rows) == 1, f"{key} fits {rows}"


def test_no_row_is_dead_and_both_keymaps_have_the_same_roles() -> None:
    parsed = [PYCLS.parse(key) for name in NETWORKS for key in pycls_shapes(name)]

    used = {entry[0] for entry in parsed if entry is not None}

    assert used == set(PYCLS.rows) == set(REFERENCE.rows)


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


def test_a_keymap_says_why_it_drops_a_tensor() -> None:
    keymap = Keymap("some", {"stem.conv": "stem.weight"}, {"aux.{affine}": "only for training"})

    assert keymap.reason_to_drop("aux.bias") == "only for training"
    assert keymap.reason_to_drop("aux.bias.0") is None
    assert keymap.reason_to_drop("stem.weight") is None


def test_a_role_that_a_framework_lacks_cannot_be_spelled() -> None:
    with pytest.raises(KeyError, match="attention pool"):
        PYCLS.spell("attention pool", {})


COUNTS = st.integers(0, 99_999)
FIELDS = st.fixed_dictionaries(
    {
        "stage": COUNTS,
        "block": COUNTS,
        "norm": st.sampled_from(BATCH_NORM_LEAVES),
        "affine": st.sampled_from(("weight", "bias")),
        "last": st.sampled_from((2, 3)),
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
