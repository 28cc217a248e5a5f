"""Artefacts to be tampered with, and what their certificates say then."""

from __future__ import annotations

import warnings
import zipfile
from typing import TYPE_CHECKING, Any

import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto
from torch.nn.utils.fusion import fuse_conv_bn_weights

from converters.parity.contents.tensors import TensorCertificate, certify
from regnet.config import RegNetConfig
from tests.converters.formats.onnx_helpers import reference
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import _SMALL, FORMS, NETWORKS, export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder

ALL_FORMS = pytest.mark.parametrize("form", FORMS)
ONNX_FORMS = pytest.mark.parametrize("form", ["self-contained", "sharing"])
OWN_WEIGHTS = pytest.mark.parametrize("form", ["self-contained", "torchscript"])

STEM = "regnet.embedder.embedder"
BLOCK = "regnet.encoder.stages.1.layers.1"
"""One without a shortcut, whose two pointwise kernels are square and of equal shape."""

KERNEL = f"{BLOCK}.layer.0.convolution.weight"
"""The first of them, of 24 channels."""

NORM = ("weight", "bias", "running_mean", "running_var")


def small(path: Path, name: str, *, classifier: bool = True, **fields: Any) -> ConvertedFolder:
    config = RegNetConfig(**_SMALL | NETWORKS[name] | fields)
    return random_folder(path, config, classifier=classifier)


def with_artefacts(path: Path) -> ConvertedFolder:
    """A small RegNetY with an artefact of every form, see :func:`artefact`."""
    folder = small(path, "Y")
    for form in FORMS:
        export(folder, form).rename(artefact(folder, form))
    return folder


def artefact(folder: ConvertedFolder, form: str) -> Path:
    return folder.path / f"{form}{'.pt' if form == 'torchscript' else '.onnx'}"


def certificate(folder: ConvertedFolder, form: str) -> TensorCertificate:
    return certify(folder, FORMS[form][0], artefact(folder, form))


def the_clause(result: TensorCertificate) -> str:
    (clause,) = result.wrong
    assert result.failure == clause
    return clause


def kernel_name(form: str, layer: int = 0) -> str:
    leaf = "folded_weight" if form == "self-contained" else "convolution.weight"
    return f"{BLOCK}.layer.{layer}.{leaf}"


class Logits(torch.nn.Module):
    """The reference model with one output, as tracing wants it; of the same state dict."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.regnet: Any = model.regnet
        self.classifier: Any = model.classifier

    def forward(self, pixels: torch.Tensor) -> Any:
        return self.classifier(self.regnet(pixels).pooler_output)


def saved_by_torch(
    folder: ConvertedFolder, path: Path, change: Callable[[Any], Any] = lambda traced: traced
) -> Path:
    """Let torch trace the reference model and save what ``change`` makes of it."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # of the tracer, and that it is deprecated
        example = torch.zeros(2, folder.config.num_channels, 64, 64)
        traced = torch.jit.trace(Logits(reference(folder)).eval(), example)  # type: ignore[no-untyped-call]
        torch.jit.save(change(traced), path)
    return path


def refold(folder: ConvertedFolder, dtype: torch.dtype, epsilon: float) -> None:
    """Put the folds that torch makes in ``dtype`` into the self-contained file."""
    state = {name: value.to(dtype) for name, value in reference(folder).state_dict().items()}
    path = artefact(folder, "self-contained")
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        module, _, leaf = tensor.name.rpartition(".")
        if leaf.startswith("folded"):
            norm = {key: state[f"{module}.normalization.{key}"] for key in NORM}
            weight, bias = fuse_conv_bn_weights(
                state[f"{module}.convolution.weight"],
                None,
                norm["running_mean"],
                norm["running_var"],
                epsilon,
                norm["weight"],
                norm["bias"],
            )
            folded = weight if leaf == "folded_weight" else bias
            tensor.raw_data = folded.detach().to(torch.float32).numpy().tobytes()
    onnx.save(model, path)


def initialiser(model: ModelProto, name: str) -> TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def change_onnx(path: Path, change: Callable[[ModelProto], None]) -> None:
    model = onnx.load(path, load_external_data=False)
    change(model)
    onnx.save(model, path)


def change_bytes(path: Path, name: str, change: Callable[[bytearray], None]) -> None:
    """Change the elements of a tensor of an ONNX file or of a TorchScript archive."""
    if path.suffix == ".onnx":

        def change_initialiser(model: ModelProto) -> None:
            tensor = initialiser(model, name)
            data = bytearray(tensor.raw_data)
            change(data)
            tensor.raw_data = bytes(data)

        change_onnx(path, change_initialiser)
    else:

        def change_entry(entries: dict[str, bytes]) -> None:
            data = bytearray(entries[f"regnet/data/{name}"])
            change(data)
            entries[f"regnet/data/{name}"] = bytes(data)

        change_zip(path, change_entry)


def change_zip(path: Path, change: Callable[[dict[str, bytes]], None]) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)


def held_names(folder: ConvertedFolder, form: str) -> list[str]:
    if form == "torchscript":
        return list(folder.tensors)
    model = onnx.load(artefact(folder, form), load_external_data=False)
    return [tensor.name for tensor in model.graph.initializer]
