"""The list of operations against the model that is written by hand, bit for bit."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch

from converters.formats.operations import called, computed, tensors_of
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from regnet.architecture import PIXELS, Architecture, Conv, Norm, extents, folded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

NETWORKS = [
    pytest.param(fields, id=name)
    for name, fields in {
        "three stages": {},
        "one block": {"hidden_sizes": [16], "depths": [1]},
        "first stage at full resolution": {"downsample_in_first_stage": False},
        "first block without shortcut": {
            "downsample_in_first_stage": False,
            "embedding_size": 16,
        },
        "narrower than its groups": {"groups_width": 24},
        "a group for each channel": {"groups_width": 1},
        "one channel in": {"num_channels": 1},
        "gelu": {"hidden_act": "gelu"},
        "gelu_new": {"hidden_act": "gelu_new"},
        "selu": {"hidden_act": "selu"},
        "silu": {"hidden_act": "silu"},
        "no labels": {"num_labels": 0},
        "a group width for each stage": {"groups_width": [8, 4, 12]},
        "strides": {"strides": [1, 2, 1], "stem_strides": [1]},
        "deep stem": {"stem_sizes": [4, 8, 8], "stem_strides": [2, 1, 2]},
        "expansion of outputs": {"expansion": 2.0},
        "expansion of inputs": {"expansion": 3.0, "expansion_of": "input"},
        "squeeze of the bottleneck": {"expansion": 2.0, "se_of": "bottleneck", "se_divisor": 8},
        "squeeze": {"se_ratio": 0.5, "se_act": "silu"},
        "averaging shortcuts": {"shortcut": "avg"},
        "no shortcuts": {"shortcut": "none", "output_act": False},
        "preactivation": {"preactivation": True, "final_act": True},
        "preactivation, averaging": {"preactivation": True, "shortcut": "avg"},
        "preactivation, no shortcuts": {"preactivation": True, "shortcut": "none"},
        "head": {"head_size": 40, "final_act": True},
        "preactivation and head": {"preactivation": True, "head_size": 40},
        "epsilon": {"norm_eps": 1e-3},
        "group norm": {"norm": "group", "norm_group_size": 8, "head_size": 40},
        "EvoNorm": {"norm": "evonorm-s0a", "norm_group_size": 8, "norm_eps": 1e-3},
        "EvoNorm, preactivation": {
            "norm": "evonorm-s0a",
            "norm_group_size": 8,
            "preactivation": True,
        },
        "same padding": {"padding": "same", "stem_strides": [3]},
    }.items()
]
EACH = pytest.mark.parametrize("fields", NETWORKS)
LAYER_TYPES = pytest.mark.parametrize("layer_type", ["x", "y"])
CLASSIFIER = pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])


def small(layer_type: str, fields: Mapping[str, object]) -> RegNetConfig:
    shape: dict[str, Any] = {
        "embedding_size": 8,
        "hidden_sizes": [16, 24, 24],
        "depths": [2, 1, 2],
        "groups_width": 8,
        "num_labels": 5,
    }
    return RegNetConfig(**shape | {"layer_type": layer_type} | dict(fields))


def model_of(config: RegNetConfig, *, classifier: bool) -> torch.nn.Module:
    """A model whose batch norms change what they are given, each otherwise."""
    torch.manual_seed(20)
    model = RegNetForImageClassification(config) if classifier else RegNetModel(config)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.normal_(std=0.3)
    return model.eval()


def interpreted(
    architecture: Architecture, tensors: Mapping[str, Tensor], pixels: Tensor
) -> dict[str, Tensor]:
    """Every value of a network, by its name."""
    values = {PIXELS: pixels}
    for operation in architecture.operations:
        held = tensors_of(operation, tensors, pixels.dtype)
        read = [values[name] for name in operation.inputs]
        assert operation.output not in values
        values[operation.output] = computed(operation, read, held, called)
    return values


@EACH
@LAYER_TYPES
@CLASSIFIER
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_the_model_computes_what_the_list_says_in_every_module(
    fields: Mapping[str, object], layer_type: str, classifier: bool, dtype: torch.dtype
) -> None:
    config = small(layer_type, fields)
    model = model_of(config, classifier=classifier).to(dtype)
    architecture = Architecture.of(config, classifier=classifier)
    pixels = torch.randn(2, config.num_channels, 45, 38, dtype=dtype)
    made: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        module.register_forward_hook(lambda *call, name=name: made.update({name: call[2]}))

    with torch.inference_mode():
        returned = model(pixels)
        values = interpreted(architecture, model.state_dict(), pixels)

    assert all(torch.equal(values[name], returned[name]) for name in returned)
    leaves = {name for name, module in model.named_modules() if not list(module.children())}
    by_name = {op.name: values[op.output] for op in architecture.operations}
    identities = {name for name in leaves if name not in by_name}
    assert all(isinstance(model.get_submodule(name), torch.nn.Identity) for name in identities)
    assert all(torch.equal(by_name[name], made[name]) for name in leaves - identities)


@EACH
@LAYER_TYPES
@CLASSIFIER
def test_slots_are_the_state_dict(
    fields: Mapping[str, object], layer_type: str, classifier: bool
) -> None:
    config = small(layer_type, fields)
    model = model_of(config, classifier=classifier)
    architecture = Architecture.of(config, classifier=classifier)

    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    learned = {name for name, _ in model.named_parameters()}

    assert list(architecture.shapes.items()) == list(shapes.items())
    assert {slot.name for slot in architecture.slots if slot.is_learned} == learned
    assert len({(s.role, *sorted(s.fields.items())) for s in architecture.slots}) == len(shapes)


@LAYER_TYPES
def test_each_value_has_the_extent_that_the_list_says(layer_type: str) -> None:
    architecture = Architecture.of(small(layer_type, {}), classifier=False)
    model = model_of(small(layer_type, {}), classifier=False)

    with torch.inference_mode():
        values = interpreted(architecture, model.state_dict(), torch.randn(1, 3, 45, 38))

    for axis, pixels in ((2, 45), (3, 38)):
        found = {name: value.shape[axis] for name, value in values.items()}
        assert extents(architecture.operations, pixels) == found


@LAYER_TYPES
def test_a_convolution_takes_in_the_batch_norm_behind_it(layer_type: str) -> None:
    operations = Architecture.of(small(layer_type, {})).operations
    taken = folded(operations)

    norms = [op for op in operations if isinstance(op, Norm)]
    assert [op.norm for op in taken if isinstance(op, Conv) and op.norm] == norms
    assert [op.name for op in taken] == [op.name for op in operations if op not in norms]
    made = {PIXELS}
    for operation in taken:
        assert made.issuperset(operation.inputs)
        made.add(operation.output)
    assert operations[-1].output in made


def test_what_a_network_returns_keeps_its_name_where_a_batch_norm_made_it() -> None:
    config = small(
        "x", {"shortcut": "none", "output_act": False, "strides": [1, 2, 2], "depths": [2, 1, 1]}
    )
    operations = Architecture.of(config, classifier=False).operations

    taken = folded(operations)

    assert isinstance(operations[-2], Norm)
    assert (operations[-2].output, taken[-2].output) == ("last_hidden_state", "last_hidden_state")
    assert taken[-1].inputs == ("last_hidden_state",)
