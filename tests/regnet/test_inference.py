"""Inference in PyTorch: norms folded, channels last, compiled, in autocast; beside transformers."""

from __future__ import annotations

import copy
import pickle
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.weights import folded_weights
from regnet import RegNetForImageClassification, RegNetModel
from regnet.architecture import Architecture, Conv, folded
from regnet.files.safetensors_file import WEIGHTS_NAME
from tests.oracles.transformers import classifier, identical, images, trunk, twin
from tests.regnet.test_architecture import NETWORKS, model_of, small

if TYPE_CHECKING:
    from pathlib import Path

HALVES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
LAYER_TYPES = pytest.mark.parametrize("layer_type", ["x", "y"])

FIRST_OF_A_BLOCK = re.compile(r"layers\.\d+\.normalization$")
"""What stays, though a convolution may be in front: that gives a hidden state."""

AS_FAR = 4
"""Times as far from float64 as transformers' float32 is, a fold may lie: it rounds elsewhere."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    classifier().save_pretrained(tmp_path / "a")
    return tmp_path / "a"


def values(output: Any) -> torch.Tensor:
    """All numbers of an output, in float64."""
    parts = [each if isinstance(each, tuple) else (each,) for each in output.to_tuple()]
    return torch.cat([value.double().flatten() for part in parts for value in part])


def error(ours: Any, truth: Any) -> float:
    """The root of the mean square of the differences."""
    return float((values(ours) - values(truth)).square().mean().sqrt())


def batch_norms(model: nn.Module) -> set[str]:
    return {name for name, part in model.named_modules() if isinstance(part, nn.BatchNorm2d)}


def pickled(model: Any) -> Any:
    return pickle.loads(pickle.dumps(model))  # noqa: S301 -- what was pickled here


@torch.no_grad()
@LAYER_TYPES
@pytest.mark.parametrize("build", [classifier, trunk])
def test_folded_outputs_are_as_near_to_float64_as_those_of_transformers(
    build: Any, layer_type: str, tmp_path: Path
) -> None:
    model = build(layer_type=layer_type)
    model.save_pretrained(tmp_path)
    ours = type(model).from_pretrained(tmp_path, fold=True)
    assert not batch_norms(ours)
    truth = twin(model).double()(images(4).double())
    assert 0 < error(ours(images(4)), truth) <= AS_FAR * error(twin(model)(images(4)), truth)


def test_folded_weights_are_those_of_the_onnx_file(folder: Path) -> None:
    state = RegNetForImageClassification.from_pretrained(folder, fold=True).state_dict()
    exported = {weight.name: weight for weight in folded_weights(ConvertedFolder(folder))}
    assert len(state) == len(exported)
    for (name, tensor), (written, weight) in zip(state.items(), exported.items(), strict=True):
        assert written.rpartition(".")[0] == name.rpartition(".")[0].removesuffix(".convolution")
        assert tensor.numpy().tobytes() == weight.compute().astype("float32").tobytes(), name


@torch.no_grad()
@pytest.mark.parametrize("fields", NETWORKS)
def test_wider_networks_compute_the_same_with_what_can_be_folded(
    fields: dict[str, Any], tmp_path: Path
) -> None:
    config = small("y", fields)
    model_of(config, classifier=True).save_pretrained(tmp_path)
    pixels = images(channels=config.num_channels).double()
    plain, ours = (
        RegNetForImageClassification.from_pretrained(tmp_path, dtype="float64", fold=fold)
        for fold in (False, True)
    )
    taken = {
        op.norm.name
        for op in folded(Architecture.of(config).operations)
        if isinstance(op, Conv) and op.norm and not FIRST_OF_A_BLOCK.search(op.norm.name)
    }
    assert batch_norms(plain) - batch_norms(ours) == taken
    truth = plain(pixels, output_hidden_states=True)
    assert error(ours(pixels, output_hidden_states=True), truth) <= 1e-12 * float(
        values(truth).abs().max()
    )


@pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy, pickled])
def test_a_folded_model_is_neither_trained_nor_saved(
    copied: Any, folder: Path, tmp_path: Path
) -> None:
    model = copied(RegNetForImageClassification.from_pretrained(folder, fold=True))
    assert not any(module.training for module in model.eval().modules())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    for part in (model, model.regnet):
        with pytest.raises(TypeError, match=r"^This model's .* cannot be trained; .* fold=True\.$"):
            part.train()
        with pytest.raises(TypeError, match=r"^This model's .* cannot be saved; .* fold=True\.$"):
            part.save_pretrained(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    assert RegNetForImageClassification.from_pretrained(folder).train().training


@HALVES
def test_a_fold_is_rounded_once(dtype: torch.dtype, folder: Path) -> None:
    exact, ours = (
        RegNetForImageClassification.from_pretrained(folder, dtype=each, fold=True).state_dict()
        for each in (torch.float64, dtype)
    )
    assert identical({name: tensor.to(dtype) for name, tensor in exact.items()}, ours)


def test_weights_in_half_stay_so_and_a_trunk_comes_out_of_a_classifier(tmp_path: Path) -> None:
    classifier().half().save_pretrained(tmp_path)
    model = RegNetModel.from_pretrained(tmp_path, fold=True)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float16}


def test_a_fold_that_the_dtype_cannot_hold_is_refused(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS_NAME)
    tensors["regnet.embedder.embedder.normalization.bias"] += 1e5
    save_file(tensors, folder / WEIGHTS_NAME)
    with pytest.raises(ValueError, match=r"convolution.bias is too large for torch.float16 .*\.$"):
        RegNetForImageClassification.from_pretrained(folder, dtype="float16", fold=True)
    RegNetForImageClassification.from_pretrained(folder, dtype="bfloat16", fold=True)


@torch.no_grad()
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"norm": "evonorm-s0a", "norm_group_size": 8, "padding": "same"},
        {"norm": "group", "norm_group_size": 8, "shortcut": "avg"},
    ],
    ids=["batch", "evonorm", "group"],
)
def test_channels_last_stays_so_and_gives_the_same_numbers(fields: dict[str, Any]) -> None:
    model = model_of(small("y", fields), classifier=True)
    truth = copy.deepcopy(model).double()(images().double(), output_hidden_states=True)
    plain = error(model(images(), output_hidden_states=True), truth)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    output: Any = model(images().to(memory_format=torch.channels_last), output_hidden_states=True)
    assert error(output, truth) <= AS_FAR * plain
    for state in output.hidden_states:
        assert state.is_contiguous(memory_format=torch.channels_last)


def compiled(model: Any) -> Any:
    """The model as one graph: where that is not possible, running it raises."""
    torch.compiler.reset()
    return torch.compile(model, fullgraph=True, backend="eager")


@torch.no_grad()
@pytest.mark.parametrize(
    ("kind", "fold", "asked"),
    [
        (RegNetForImageClassification, False, {"output_hidden_states": True}),
        (RegNetModel, True, {"return_dict": False}),
    ],
)
def test_a_model_is_compiled_in_one_graph(
    kind: Any, fold: bool, asked: dict[str, Any], folder: Path
) -> None:
    model = kind.from_pretrained(folder, fold=fold)
    expected, output = model(images(), **asked), compiled(model)(images(), **asked)
    assert type(output) is type(expected)
    assert identical(output, expected)


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("fields", NETWORKS)
def test_a_wider_network_is_compiled_in_one_graph(fields: dict[str, Any]) -> None:
    model = model_of(small("y", fields), classifier=True)
    pixels = images(channels=model.config.num_channels)
    assert identical(compiled(model)(pixels), model(pixels))


@pytest.mark.slow
def test_a_model_is_trained_in_one_graph() -> None:
    model = classifier(num_labels=3).train()
    loss = compiled(model)(images(), labels=torch.tensor([2, 0])).loss
    loss.backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@torch.no_grad()
@HALVES
@LAYER_TYPES
def test_autocast_gives_what_it_gives_in_transformers(layer_type: str, dtype: torch.dtype) -> None:
    model = classifier(layer_type=layer_type)
    with torch.autocast("cpu", dtype=dtype):
        ours, theirs = model(images()), twin(model)(images())
    assert ours.logits.dtype == dtype
    assert identical(ours, theirs)


@torch.no_grad()
@HALVES
def test_autocast_of_a_folded_model_is_as_near_as_that_of_a_plain_one(
    dtype: torch.dtype, folder: Path
) -> None:
    plain, ours = (
        RegNetForImageClassification.from_pretrained(folder, fold=fold) for fold in (False, True)
    )
    truth = plain(images(), output_hidden_states=True)
    with torch.autocast("cpu", dtype=dtype):
        folded_error, plain_error = (
            error(model(images(), output_hidden_states=True), truth) for model in (ours, plain)
        )
    assert folded_error <= AS_FAR * plain_error
