"""Weights that a file holds in parts are what torch computes of those when the network runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from converters.errors import InputError
from converters.families.options import SourceOptions
from converters.families.reparametrised import Reparametrised, computed
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.jobs.convert import convert
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from converters.weights.inspection import inspected
from regnet import RegNetForImageClassification
from tests.converters.stored import stored
from tests.oracles import timm, torchvision

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.checkpoint.values import StoredTensor

BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "torchvision": lambda: torchvision.build(classes=10),
    "timm": lambda: timm.build(num_classes=10),
}


def layers(network: nn.Module, *kinds: type[nn.Module]) -> list[Any]:
    return [module for module in network.modules() if isinstance(module, kinds)]


def pruned(network: nn.Module) -> None:
    for module in layers(network, nn.Conv2d, nn.Linear):
        prune.l1_unstructured(module, "weight", 0.3)  # type: ignore[no-untyped-call]
    prune.random_unstructured(layers(network, nn.Linear)[0], "bias", 0.3)  # type: ignore[no-untyped-call]


def old_weight_norm(network: nn.Module) -> None:
    for module in layers(network, nn.Conv2d, nn.Linear):
        nn.utils.weight_norm(module)


def weight_norm(network: nn.Module) -> None:
    for module in layers(network, nn.Conv2d, nn.Linear):
        parametrizations.weight_norm(module)


def other_axes(network: nn.Module) -> None:
    parametrizations.weight_norm(layers(network, nn.Linear)[0], dim=1)
    parametrizations.weight_norm(layers(network, nn.Conv2d)[0], dim=None)  # type: ignore[arg-type]
    nn.utils.weight_norm(layers(network, nn.Conv2d)[1], dim=None)  # type: ignore[arg-type]


def in_float64(network: nn.Module, kind: str) -> nn.Module:
    """The network with ordinary weights, computed by torch itself in float64."""
    network.double()
    for module in layers(network, nn.Conv2d, nn.Linear):
        if parametrize.is_parametrized(module):
            parametrize.remove_parametrizations(module, "weight")
        elif kind == "pruned":
            prune.remove(module, "weight")  # type: ignore[no-untyped-call]
        elif hasattr(module, "weight_g"):
            nn.utils.remove_weight_norm(module)
    if kind == "pruned":
        prune.remove(layers(network, nn.Linear)[0], "bias")  # type: ignore[no-untyped-call]
    return network


CHANGES = {f.__name__: f for f in (pruned, old_weight_norm, weight_norm, other_axes)}


def trained(network: nn.Module) -> None:
    """Lengths and directions that are not those of the weight that they were made of."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("weight_g", "original0")):
                parameter.mul_(1.37)


@pytest.mark.filterwarnings("ignore:.*weight_norm:FutureWarning", "ignore:.*deprecated")
@pytest.mark.parametrize("kind", CHANGES)
@pytest.mark.parametrize("framework", BUILDERS)
def test_weights_are_those_that_torch_computes(framework: str, kind: str, tmp_path: Path) -> None:
    network = BUILDERS[framework]()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    CHANGES[kind](network)
    trained(network)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    assert network.state_dict().keys() != before.keys()

    convert(tmp_path / "net.pth", tmp_path / "out", formats=(), verify=False)

    plain = in_float64(network, kind).float().state_dict()
    assert plain.keys() == before.keys()
    assert not torch.equal(
        plain["stem.0.weight" if framework == "torchvision" else "stem.conv.weight"],
        before["stem.0.weight" if framework == "torchvision" else "stem.conv.weight"],
    )
    torch.save(plain, tmp_path / "plain.pth")
    convert(tmp_path / "plain.pth", tmp_path / "plain", formats=(), verify=False)
    ours = RegNetForImageClassification.from_pretrained(tmp_path / "out").state_dict()
    theirs = RegNetForImageClassification.from_pretrained(tmp_path / "plain").state_dict()
    for name, tensor in theirs.items():
        if kind == "pruned":
            assert torch.equal(ours[name], tensor), name
        else:  # both round float64 to float32, from sums in another order
            torch.testing.assert_close(ours[name], tensor, rtol=1.2e-7, atol=0, msg=name)


@pytest.mark.parametrize("kind", ["pruned", "weight_norm"])
def test_what_is_computed_is_said_and_planned(kind: str, tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    CHANGES[kind](network)
    torch.save({"model": network.state_dict()}, tmp_path / "net.pth")

    with inspected(tmp_path / "net.pth", SourceOptions()) as (_, inspection):
        topic = {"pruned": "pruning", "weight_norm": "weight norm"}[kind]
        (said,) = (d for d in inspection.source.decisions if d.topic == topic)
        steps = [step for step in inspection.plan.steps if step.fold is not None]

    assert said.value == f"{len(steps)} weights"
    assert {step.action for step in steps} == {
        {"pruned": "apply mask", "weight_norm": "fold weight norm"}[kind]
    }
    assert not [d for d in inspection.source.decisions if d.topic == "dtype"]


def test_a_flipped_stem_is_computed_and_flipped(tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    plain = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    pruned(network)
    torch.save(network.state_dict(), tmp_path / "net.pth")

    convert(tmp_path / "net.pth", tmp_path / "out", formats=(), verify=False, channel_order="bgr")

    ours = RegNetForImageClassification.from_pretrained(tmp_path / "out").state_dict()
    stem = network.state_dict()["stem.0.weight_orig"] * network.state_dict()["stem.0.weight_mask"]
    assert torch.equal(ours["regnet.embedder.embedder.convolution.weight"], stem.flip(1))
    assert plain["stem.0.weight"].shape == stem.shape


# What only looks like parts.

WEIGHT, MASK = stored((8, 3, 3, 3)), stored((8, 3, 3, 3))
G, V = stored((8, 1, 1, 1)), stored((8, 3, 3, 3))

LEFT: dict[str, dict[str, Any]] = {
    "no mask": {"a.weight_orig": WEIGHT},
    "a mask of another shape": {"a.weight_orig": WEIGHT, "a.weight_mask": stored((8, 3))},
    "a mask that is no tensor": {"a.weight_orig": WEIGHT, "a.weight_mask": 3},
    "the weight as well": {"a.weight_orig": WEIGHT, "a.weight_mask": MASK, "a.weight": WEIGHT},
    "spectral norm": {"a.weight_orig": WEIGHT, "a.weight_u": stored((8,)), "a.weight_v": V},
    "a length of other axes": {"a.weight_g": stored((7, 1, 1, 1)), "a.weight_v": V},
    "a length of fewer axes": {"a.weight_g": stored((8,)), "a.weight_v": V},
    "another parametrization": {"a.parametrizations.weight.original": WEIGHT},
    "half a parametrization": {"a.parametrizations.weight.original0": G},
}


@pytest.mark.parametrize("kind", LEFT)
def test_what_is_no_pair_is_left_as_it_is(kind: str) -> None:
    assert computed(LEFT[kind]) == LEFT[kind]


@pytest.mark.parametrize(
    ("parts", "name"),
    [
        ({"m.a.weight_orig": WEIGHT, "m.a.weight_mask": MASK}, "m.a.weight"),
        ({"weight_g": G, "weight_v": V}, "weight"),
        (
            {
                "m.parametrizations.weight.original0": G,
                "m.parametrizations.weight.original1": V,
            },
            "m.weight",
        ),
    ],
)
def test_a_weight_stands_where_its_first_part_stood(
    parts: dict[str, StoredTensor], name: str
) -> None:
    found = computed({"before": WEIGHT, **parts, "behind": MASK})

    assert list(found) == ["before", name, "behind"]
    weight = found[name]
    assert isinstance(weight, Reparametrised)
    assert (weight.shape, weight.dtype, weight.runs) == ((8, 3, 3, 3), "float32", None)
    assert weight.parts == tuple(parts.values())


def test_axes_are_permuted_in_all_parts() -> None:
    found = computed({"weight_g": G, "weight_v": V})["weight"]
    moved = found.permuted((1, 2, 3, 0))
    assert moved.shape == (3, 3, 3, 8)
    assert isinstance(moved, Reparametrised)
    assert [tensor.shape for tensor in moved.inputs] == [(1, 1, 1, 8), (3, 3, 3, 8)]
    values = {G: np.arange(8.0).reshape(8, 1, 1, 1), V: np.arange(216.0).reshape(8, 3, 3, 3) + 1}
    whole = found.apply(found, values.__getitem__)
    turned = {t: values[s].transpose(1, 2, 3, 0) for s, t in zip((G, V), moved.inputs, strict=True)}
    assert np.allclose(moved.apply(moved, turned.__getitem__), whole.transpose(1, 2, 3, 0))


@pytest.mark.parametrize("kind", ["spectral", "orthogonal"])
def test_another_parametrisation_is_refused(kind: str, tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    change: Any = {
        "spectral": parametrizations.spectral_norm,
        "orthogonal": parametrizations.orthogonal,
    }[kind]
    change(layers(network, nn.Linear)[0])
    torch.save(network.state_dict(), tmp_path / "net.pth")

    with (
        pytest.raises(InputError, match="parametriz"),
        inspected(tmp_path / "net.pth", SourceOptions()),
    ):
        pass


@pytest.mark.parametrize("kind", ["pruned", "weight_norm"])
def test_a_folder_is_judged_by_weights_in_parts(kind: str, tmp_path: Path) -> None:
    network = torchvision.build(classes=10)
    CHANGES[kind](network)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "out", formats=(), verify=False)
    folder = ConvertedFolder(tmp_path / "out")

    verdict = judge_source(folder, Truth(folder, verification_inputs(3, 48)), tmp_path / "net.pth")

    assert verdict.passed, verdict
    assert verdict.tensors is not None
    assert not verdict.tensors.wrong
    assert verdict.tensors.recomputed
