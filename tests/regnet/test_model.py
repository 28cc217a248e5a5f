"""The models against transformers': every output, loss and hidden state, bit for bit."""

from __future__ import annotations

import copy
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import regnet
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from regnet.architecture import Architecture
from regnet.design_space import complexity
from tests.oracles.transformers import classifier, identical, images, trunk, twin

if TYPE_CHECKING:
    from collections.abc import Callable

NETWORKS = [
    pytest.param(fields, id=name)
    for name, fields in {
        "four stages": {},
        "one stage": {"hidden_sizes": [24], "depths": [2]},
        "two stages": {"hidden_sizes": [16, 32], "depths": [3, 1]},
        "three stages": {"hidden_sizes": [16, 32, 40], "depths": [1, 1, 2]},
        "five stages": {"hidden_sizes": [8, 16, 24, 32, 40], "depths": [1, 1, 2, 1, 1]},
        "first stage at full resolution": {"downsample_in_first_stage": False},
        "first block without shortcut": {
            "downsample_in_first_stage": False,
            "hidden_sizes": [16, 24, 24],
            "depths": [2, 1, 2],
        },
        "narrower than its groups": {"groups_width": 24, "hidden_sizes": [16, 24, 48, 72]},
        "squeezes halfway between integers": {
            "embedding_size": 18,
            "hidden_sizes": [8, 26, 8, 8],
            "groups_width": 26,
        },
        "one channel in": {"num_channels": 1},
        "gelu": {"hidden_act": "gelu"},
        "gelu_new": {"hidden_act": "gelu_new"},
        "selu": {"hidden_act": "selu"},
        "silu": {"hidden_act": "silu"},
        "no labels": {"num_labels": 0},
    }.items()
]
LAYER_TYPES = pytest.mark.parametrize("layer_type", ["x", "y"])
TRAINING = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])


@TRAINING
@LAYER_TYPES
@pytest.mark.parametrize("fields", NETWORKS)
@pytest.mark.parametrize("build", [trunk, classifier])
def test_every_output_equals_that_of_transformers(
    build: Callable[..., Any], fields: dict[str, Any], layer_type: str, training: bool
) -> None:
    ours = build(layer_type=layer_type, **fields).train(training)
    theirs = twin(ours)
    pixels = images(channels=ours.config.num_channels)
    assert identical(
        ours(pixels, output_hidden_states=True), theirs(pixels, output_hidden_states=True)
    )
    assert identical(ours.state_dict(), theirs.state_dict())


@TRAINING
@LAYER_TYPES
@pytest.mark.parametrize(("height", "width"), [(67, 45), (33, 224), (97, 96), (40, 40)])
def test_odd_sizes_equal_transformers(
    height: int, width: int, layer_type: str, training: bool
) -> None:
    ours = trunk(layer_type=layer_type).train(training)
    pixels = images(3, height, width)
    assert identical(ours(pixels), twin(ours)(pixels))


@LAYER_TYPES
def test_double_precision_equals_transformers(layer_type: str) -> None:
    ours = classifier(layer_type=layer_type)
    theirs = twin(ours).double()
    pixels = images().double()
    assert identical(ours.double()(pixels), theirs(pixels))


def test_shapes_are_the_documented_ones() -> None:
    output = trunk()(images(2, 64, 96), output_hidden_states=True)
    assert output.last_hidden_state.shape == (2, 48, 2, 3)
    assert output.pooler_output.shape == (2, 48, 1, 1)
    assert [tuple(state.shape[1:]) for state in output.hidden_states] == [
        (16, 32, 48),
        (16, 16, 24),
        (24, 8, 12),
        (40, 4, 6),
        (48, 2, 3),
    ]
    assert torch.equal(output.hidden_states[-1], output.last_hidden_state)


def test_without_labels_the_logits_are_the_pooled_features() -> None:
    model = classifier(num_labels=0)
    assert torch.equal(model(images()).logits, model.regnet(images()).pooler_output.flatten(1))
    assert not [name for name in model.state_dict() if name.startswith("classifier")]


READINGS: dict[str, Callable[[Any], Any]] = {
    "attributes": lambda output: [output.loss, output.logits, output.hidden_states],
    "keys": lambda output: [output["logits"], output["hidden_states"]],
    "index": lambda output: [output[0], output[1], output[-1]],
    "slice": lambda output: [*output[:2], *output[1:]],
    "tuple": lambda output: output.to_tuple(),
    "values": lambda output: list(output.values()),
}


@pytest.mark.parametrize("labels", [None, torch.tensor([0, 1])], ids=["no loss", "loss"])
@pytest.mark.parametrize("read", READINGS.values(), ids=READINGS.keys())
def test_outputs_are_read_as_those_of_transformers(
    read: Callable[[Any], Any], labels: torch.Tensor | None
) -> None:
    ours = classifier()
    ask = {"labels": labels, "output_hidden_states": True}
    mine, other = (read(model(images(), **ask)) for model in (ours, twin(ours)))
    assert [value is None for value in mine] == [value is None for value in other]
    assert identical(
        [value for value in mine if value is not None],
        [value for value in other if value is not None],
    )


def test_what_is_none_is_no_key_but_an_attribute() -> None:
    output = classifier()(images())
    assert list(output) == list(output.keys()) == ["logits"]
    assert len(output) == 1
    assert "logits" in output
    assert "loss" not in output
    assert output.loss is None
    assert output.hidden_states is None
    with pytest.raises(KeyError, match="loss"):
        output["loss"]
    with pytest.raises(IndexError):
        output[1]


@pytest.mark.parametrize("hidden", [False, True], ids=["no hidden states", "hidden states"])
@pytest.mark.parametrize("where", ["argument", "configuration"])
@pytest.mark.parametrize("build", [trunk, classifier])
def test_outputs_are_plain_tuples_on_request(
    build: Callable[..., Any], where: str, hidden: bool
) -> None:
    ask = {"return_dict": False, "output_hidden_states": hidden}
    ours = build(**(ask if where == "configuration" else {}))
    arguments = ask if where == "argument" else {}
    output = ours(images(), **arguments)
    assert type(output) is tuple
    assert identical(output, twin(ours)(images(), **arguments))


def test_arguments_win_over_the_configuration() -> None:
    ours = classifier(return_dict=False, output_hidden_states=True)
    output = ours(images(), return_dict=True, output_hidden_states=False)
    assert list(output.keys()) == ["logits"]


INDICES = torch.tensor([2, 0])
LOSSES = [
    pytest.param(1, None, torch.tensor([0.3, -1.0]), id="regression by default"),
    pytest.param(1, None, torch.tensor([[0.3], [-1.0]]), id="regression with a column"),
    pytest.param(3, "regression", torch.tensor([[0.3, 1, 2], [-1, 0, 1]]), id="three targets"),
    pytest.param(3, None, INDICES, id="single label by default"),
    pytest.param(3, "single_label_classification", INDICES, id="single label"),
    pytest.param(3, None, torch.tensor([2, -100]), id="an ignored label"),
    pytest.param(3, None, torch.tensor([[1.0, 0, 1], [0, 0, 1]]), id="multi-label by default"),
    pytest.param(
        3, "multi_label_classification", torch.tensor([[1.0, 0, 1], [0, 0, 1]]), id="multi-label"
    ),
]


@pytest.mark.parametrize(("num_labels", "problem_type", "labels"), LOSSES)
def test_losses_equal_those_of_transformers_and_leave_the_configuration_alone(
    num_labels: int, problem_type: str | None, labels: torch.Tensor
) -> None:
    ours = classifier(num_labels=num_labels, problem_type=problem_type)
    before = copy.deepcopy(ours.config)
    output = ours(images(), labels=labels)
    assert identical(output, twin(ours)(images(), labels=labels))
    assert output.loss.shape == ()
    assert ours.config == before


def test_labels_of_32_bits_give_the_loss_of_64() -> None:
    model = classifier(num_labels=3)
    assert torch.equal(
        model(images(), labels=INDICES.int()).loss, model(images(), labels=INDICES).loss
    )


@pytest.mark.parametrize("build", [trunk, classifier])
def test_another_number_of_channels_is_refused(build: Callable[..., Any]) -> None:
    with pytest.raises(ValueError, match=r"1 channels .* num_channels=3"):
        build()(images(channels=1))


@st.composite
def configurations(draw: st.DrawFn) -> RegNetConfig:
    """Small networks of every shape that can be built."""
    group = draw(st.sampled_from([1, 3, 8]))
    stages = draw(st.integers(1, 5))
    multiples = st.lists(st.integers(1, 6), min_size=stages, max_size=stages)
    return RegNetConfig(
        num_channels=draw(st.integers(1, 4)),
        embedding_size=draw(st.integers(3, 40)),
        hidden_sizes=[max(3, group * multiple) for multiple in draw(multiples)],
        depths=draw(st.lists(st.integers(1, 3), min_size=stages, max_size=stages)),
        groups_width=group,
        layer_type=draw(st.sampled_from(["x", "y"])),
        downsample_in_first_stage=draw(st.booleans()),
        num_labels=draw(st.integers(0, 5)),
    )


@settings(deadline=None, max_examples=40)
@given(config=configurations())
def test_the_architecture_names_and_counts_the_tensors_of_the_model(config: RegNetConfig) -> None:
    with torch.device("meta"):
        model = RegNetForImageClassification(config)
    for module, with_classifier in ((model, True), (model.regnet, False)):
        state = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
        shapes = Architecture.of(config, classifier=with_classifier).shapes
        assert list(shapes.items()) == list(state.items())
    learned = sum(parameter.numel() for parameter in model.parameters())
    assert complexity(config).parameters == learned


def test_importing_the_package_and_describing_a_network_import_no_torch() -> None:
    code = (
        "import sys, regnet, regnet.files.safetensors_file\n"
        "from regnet.design_space import NETWORKS, complexity\n"
        "complexity(NETWORKS['RegNetY-4.0GF'].config())\n"
        "assert not {'torch', 'numpy', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_package_has_no_other_names() -> None:
    assert regnet.RegNetModel is RegNetModel
    with pytest.raises(AttributeError, match="RegNetTensorFlow"):
        _ = regnet.RegNetTensorFlow
