"""Training: fresh weights as the paper's code draws them, then the right gradients and steps."""

from __future__ import annotations

from typing import Any, NamedTuple

import pytest
import torch
from pycls.core.builders import build_model
from torch import nn

from regnet import RegNetForImageClassification
from regnet.design_space import NamedNetwork
from tests.oracles import pycls
from tests.oracles.transformers import classifier, identical, images, twin

LAYER_TYPES = pytest.mark.parametrize("layer_type", ["x", "y"])
ACTIVATIONS = pytest.mark.parametrize("hidden_act", ["relu", "gelu", "gelu_new", "selu", "silu"])
LABELS = torch.tensor([0, 1, 2, 0])
WIDE = NamedNetwork("RegNetY-wide", depth=4, w_0=32, w_a=8.0, w_m=1.6, group_width=16)


class Leaf(NamedTuple):
    """A layer with parameters: ours and pycls' in the same place."""

    ours: Any
    theirs: Any


@pytest.fixture(scope="module")
def fresh_leaves() -> list[Leaf]:
    torch.manual_seed(0)
    regnet = {"DEPTH": WIDE.depth, "W0": WIDE.w_0, "WA": WIDE.w_a, "WM": WIDE.w_m, "SE_ON": True}
    with pycls.settings(regnet | {"GROUP_W": WIDE.group_width}, classes=50):
        theirs = build_model()
    ours = RegNetForImageClassification(WIDE.config(num_labels=50))
    kinds = (nn.Conv2d, nn.BatchNorm2d, nn.Linear)
    return [
        Leaf(*pair)
        for pair in zip(
            (module for module in ours.modules() if isinstance(module, kinds)),
            (module for module in theirs.modules() if isinstance(module, kinds)),
            strict=True,
        )
    ]


def test_fresh_kernels_have_the_spread_of_those_of_pycls(fresh_leaves: list[Leaf]) -> None:
    grouped = 0
    for ours, theirs in fresh_leaves:
        if isinstance(ours, nn.BatchNorm2d):
            continue
        mine, other = ours.weight.detach(), theirs.weight.detach()
        assert mine.shape == other.shape
        # Standard errors of a deviation and a mean; the seed is fixed, so this passes or fails.
        tolerance = 4.5 / mine.numel() ** 0.5
        assert abs(float(mine.std() / other.std()) - 1) < tolerance
        assert abs(float(mine.mean())) < tolerance * float(other.std())
        grouped += getattr(ours, "groups", 1) > 1
    assert grouped


def test_fresh_batch_norms_and_the_bias_of_the_classifier_equal_those_of_pycls(
    fresh_leaves: list[Leaf],
) -> None:
    for ours, theirs in fresh_leaves:
        if not isinstance(ours, nn.Conv2d):
            kept = ["bias"] if isinstance(ours, nn.Linear) else list(theirs.state_dict())
            assert all(identical(getattr(ours, name), getattr(theirs, name)) for name in kept)
            assert (ours.training, getattr(ours, "eps", 0)) == (True, getattr(theirs, "eps", 0))


def test_fresh_biases_of_squeeze_and_excitation_have_the_range_of_those_of_pycls(
    fresh_leaves: list[Leaf],
) -> None:
    biased = [leaf for leaf in fresh_leaves if isinstance(leaf.ours, nn.Conv2d)]
    biased = [leaf for leaf in biased if leaf.theirs.bias is not None]
    assert biased
    for ours, theirs in biased:
        bound = theirs.weight[0].numel() ** -0.5
        for layer in (ours, theirs):
            assert bound / 2 < float(layer.bias.detach().abs().max()) <= bound


@ACTIVATIONS
@LAYER_TYPES
def test_gradients_reach_every_parameter_and_equal_those_of_transformers(
    layer_type: str, hidden_act: str
) -> None:
    ours = classifier(layer_type=layer_type, hidden_act=hidden_act, num_labels=3).train()
    theirs = twin(ours)
    for model in (ours, theirs):
        model(images(4), labels=LABELS).loss.backward()
    expected = dict(theirs.named_parameters())
    for name, parameter in ours.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
        assert identical(parameter.grad, expected[name].grad), name


@pytest.mark.parametrize("hidden_act", ["gelu", "gelu_new", "selu", "silu"])
def test_gradients_are_the_slopes_of_the_loss(hidden_act: str) -> None:
    model = classifier(hidden_act=hidden_act, num_labels=3, hidden_sizes=[8], depths=[1]).double()
    pixels = images(1, 8, 8).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: model(x, labels=LABELS[:1]).loss, pixels)


@LAYER_TYPES
def test_steps_on_one_batch_lower_the_loss(layer_type: str) -> None:
    torch.manual_seed(0)
    model = RegNetForImageClassification(classifier(layer_type=layer_type, num_labels=3).config)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    losses = []
    for _ in range(8):
        loss = model(images(4), labels=LABELS).loss
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.2 * losses[0]


def test_training_updates_the_running_statistics_and_their_counter() -> None:
    model = classifier().train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    model(images(4))
    for name, buffer in model.named_buffers():
        if name.endswith("num_batches_tracked"):
            assert buffer == before[name] + 1
        else:
            assert not torch.equal(buffer, before[name]), name


def test_evaluation_changes_nothing_and_does_not_depend_on_the_batch() -> None:
    model = classifier().eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    pixels = images(4)
    first = model(pixels).logits
    assert identical(model.state_dict(), before)
    assert torch.equal(model(pixels).logits, first)
    torch.testing.assert_close(model(pixels[:1]).logits, first[:1], rtol=1e-5, atol=1e-6)


def test_a_fresh_model_trains_and_a_switched_one_does_in_every_layer() -> None:
    model = RegNetForImageClassification(classifier().config)
    assert all(module.training for module in model.modules())
    assert not any(module.training for module in model.eval().modules())
