"""Weights whose axes a framework keeps in another order: read, proven, judged, written back."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from converters.errors import InputError
from converters.families.keymap import Leaves
from converters.families.known import FAMILIES, Known
from converters.families.tensor_layout import TORCH, TensorLayout
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.jobs.convert import convert
from converters.jobs.writeback import write_back
from converters.parity.against import judge_source
from converters.parity.truth import Truth
from regnet.architecture import Architecture
from tests.converters.families import toy
from tests.converters.families.toy_framework import Net
from tests.converters.stored import stored
from tests.oracles.statistics import randomise

if TYPE_CHECKING:
    from pathlib import Path

State = dict[str, torch.Tensor]

LEAVES = Leaves(
    conv="kernel",
    norm={
        "weight": "gamma",
        "bias": "beta",
        "running_mean": "moving_mean",
        "running_var": "moving_variance",
    },
    affine={"weight": "kernel", "bias": "bias"},
)
HWIO = TensorLayout("HWIO", "IO")
LAYOUTS = [HWIO, TensorLayout("OHWI"), TensorLayout("OHWI", "IO"), TensorLayout("IHWO", "OI")]


def axes_of(layout: TensorLayout, weight: torch.Tensor) -> torch.Tensor:
    """A weight of torch as a framework of this layout has it."""
    letters = {4: ("OIHW", layout.kernel), 2: ("OI", layout.matrix)}
    if weight.ndim not in letters:
        return weight
    ours, theirs = letters[weight.ndim]
    return weight.permute([ours.index(letter) for letter in theirs]).contiguous()


def theirs(state: State, layout: TensorLayout) -> State:
    """What a framework with these leaves and this layout saves of the toy."""
    found = {}
    for name, tensor in state.items():
        module, _, leaf = name.rpartition(".")
        if leaf == "num_batches_tracked":
            continue
        is_norm = f"{module}.running_mean" in state
        spelled = LEAVES.norm[leaf] if is_norm else LEAVES.affine[leaf]
        found[f"{module}.{spelled}"] = axes_of(layout, tensor)
    return found


@pytest.fixture(params=LAYOUTS, ids=lambda layout: f"{layout.kernel}-{layout.matrix}")
def layout(request: pytest.FixtureRequest) -> TensorLayout:
    found: TensorLayout = request.param
    return found


@pytest.fixture
def network() -> Net:
    built = randomise(Net((3, 16, 24), (1, 2), (8, 8), (2, 2), 5))  # its stem is 3x3x3x3
    assert isinstance(built, Net)
    return built


@pytest.fixture
def family(layout: TensorLayout, monkeypatch: pytest.MonkeyPatch) -> None:
    """The toy, with leaves and axes of another order."""
    rows = {
        role: text.replace(".weight", ".kernel") if role.endswith(".conv") else text
        for role, text in toy.TOY.rows.items()
    }
    family = replace(toy.FAMILY, keymap=replace(toy.TOY, rows=rows, leaves=LEAVES), layout=layout)
    monkeypatch.setattr(toy, "FAMILY", family)
    place = "tests.converters.families.toy"
    row = Known(place, r"body\.0\.0\.main\.0\.0\.kernel", is_written=True)
    monkeypatch.setitem(FAMILIES, "toy", row)


def weights(folder: Path) -> dict[str, np.ndarray]:
    converted = ConvertedFolder(folder)
    return {name: converted.array(name) for name in converted.tensors}


@pytest.mark.usefixtures("family")
def test_the_weights_are_those_that_torch_has(
    layout: TensorLayout, network: Net, tmp_path: Path
) -> None:
    state = network.state_dict()
    torch.save(theirs(state, layout), tmp_path / "net.toy")
    convert(tmp_path / "net.toy", tmp_path / "out", formats=(), verify=False)

    folder = ConvertedFolder(tmp_path / "out")
    for slot in Architecture.of(folder.config).slots:
        found, expected = folder.array(slot.name), state[toy.TOY.spell(slot.role, slot.fields)]
        if slot.is_counter:
            assert found == 0
        elif slot.role == "stem.conv":  # the toy is trained on BGR
            assert np.array_equal(found, expected.flip(1))
        else:
            assert np.array_equal(found, expected), slot.name


@pytest.mark.usefixtures("family")
def test_it_is_judged_against_its_source_and_written_back_as_it_was(
    layout: TensorLayout, network: Net, tmp_path: Path
) -> None:
    state = theirs(network.state_dict(), layout)
    torch.save(state, tmp_path / "net.toy")
    convert(tmp_path / "net.toy", tmp_path / "out", formats=(), verify=False)
    folder = ConvertedFolder(tmp_path / "out")

    verdict = judge_source(folder, Truth(folder, verification_inputs(3, 48)), tmp_path / "net.toy")
    assert verdict.tensors is not None
    assert not verdict.tensors.wrong
    assert verdict.not_compared is None  # torch itself loaded them
    write_back(tmp_path / "out", tmp_path / "back.toy", "toy")
    back = torch.load(tmp_path / "back.toy", weights_only=True)
    assert back.keys() == state.keys()
    assert all(torch.equal(back[name], state[name]) for name in state)


@pytest.mark.usefixtures("family")
def test_a_head_outside_the_trunk_has_the_layout_too(
    layout: TensorLayout, network: Net, tmp_path: Path
) -> None:
    state = theirs(network.state_dict(), layout)
    moved = {f"net.{name}": tensor for name, tensor in state.items() if "answer" not in name}
    head = axes_of(layout, torch.randn(7, 24))
    moved |= {"extra.weight": head, "extra.bias": torch.randn(7)}
    torch.save(moved, tmp_path / "net.toy")

    convert(tmp_path / "net.toy", tmp_path / "out", formats=(), verify=False)

    found = weights(tmp_path / "out")["classifier.1.weight"]
    assert np.array_equal(axes_of(layout, torch.tensor(found)), head)


@pytest.mark.usefixtures("family")
@pytest.mark.parametrize("wrong", [*LAYOUTS, TORCH, TensorLayout("WHIO", "IO")])
def test_a_wrong_layout_is_refused_or_seen(
    layout: TensorLayout,
    wrong: TensorLayout,
    network: Net,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The stem, of 3x3x3x3, has the same shape in all of them."""
    if wrong == layout:
        pytest.skip("it is the right one")
    torch.save(theirs(network.state_dict(), layout), tmp_path / "net.toy")
    convert(tmp_path / "net.toy", tmp_path / "right", formats=(), verify=False)
    monkeypatch.setattr(toy, "FAMILY", replace(toy.FAMILY, layout=wrong))

    try:
        convert(tmp_path / "net.toy", tmp_path / "out", formats=(), verify=False)
    except InputError as error:
        assert str(error).startswith("net.toy")  # noqa: PT017
        return
    name = "regnet.embedder.embedder.convolution.weight"
    right, found = weights(tmp_path / "right"), weights(tmp_path / "out")
    assert not np.array_equal(right[name], found[name])


def test_a_layout_reorders_by_the_letters_of_its_axes() -> None:
    kernel, matrix, vector = stored((3, 3, 8, 16)), stored((24, 10)), stored((7,))

    assert HWIO.ours(kernel).shape == (16, 8, 3, 3)
    assert HWIO.ours(matrix).shape == (10, 24)
    assert HWIO.ours(vector) is vector
    assert HWIO.theirs(HWIO.ours(kernel)) == kernel
    assert TensorLayout("OHWI").ours(stored((16, 3, 3, 8))).shape == (16, 8, 3, 3)
    assert TensorLayout("OHWI").ours(matrix) is matrix
    assert TORCH.ours(kernel) is kernel
    assert (HWIO.input_axis, TORCH.input_axis) == (2, 1)


@pytest.mark.usefixtures("family")
def test_an_order_that_was_asked_for_is_kept_when_it_is_written_back(
    layout: TensorLayout, network: Net, tmp_path: Path
) -> None:
    """The toy takes BGR: a stem that is not flipped on the way in is flipped on the way out."""
    state = theirs(network.state_dict(), layout)
    torch.save(state, tmp_path / "net.toy")
    convert(tmp_path / "net.toy", tmp_path / "out", channel_order="rgb", formats=(), verify=False)
    write_back(tmp_path / "out", tmp_path / "back.toy", "toy")

    back = torch.load(tmp_path / "back.toy", weights_only=True)["entry.0.kernel"]
    assert torch.equal(back, state["entry.0.kernel"].flip(layout.kernel.index("I")))
