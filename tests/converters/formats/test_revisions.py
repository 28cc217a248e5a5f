"""What is written for a configuration changes with the exporter's revision, and only with it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from converters.formats import torchscript
from converters.formats.coreml import package as coreml
from converters.formats.coreml.weights import places
from converters.formats.onnx import export as onnx
from converters.formats.onnx.form import GraphForm
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.preprocessing import with_preprocessing
from converters.formats.onnx.weights import folded_weights
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor
from tests.converters.formats.onnx_helpers import SMALL
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONFIGURATIONS = {
    "X with GELU": RegNetConfig(**SMALL | {"layer_type": "x", "hidden_act": "gelu_new"}),
    "Y": RegNetConfig(**SMALL),
}

GRAPHS = (
    "2",
    {
        "X with GELU": "0cbecb83dd24f03e7531f2d2d24c745aea066bbecbb2869405a5aa57af1a1f5c",
        "Y": "d7940024669b2c05179b40e0686f979b4afabfdaca7912f1d99a62a5708685a0",
    },
)
"""Revision of `converters.formats.onnx.export`, and the sha256 of what it writes."""

FORMS = (
    "2",
    {
        "X with GELU": "89ab610d493dc45bef0bfbabbf4f8a1cfdc5721be5515e05512767675477f8bc",
        "Y": "ed50acde1bb788a690be46005052c008b283f029eb66f4b8ff5931e3e9078f92",
    },
)
"""Likewise, of graphs in float16, of fixed size, with preprocessing, and of what is around them."""

PROGRAMS = (
    "2",
    {
        "X with GELU": "21dcddfba345ec2182d502e78e8a2b6d1c123869ecfebbc869cec9b2de4e2ab1",
        "Y": "f1c34ad104c3244c77f3c392d80e98508da9ec5a6100c1720b90095ffb8b3258",
    },
)
"""Revision of `converters.formats.torchscript`, and the sha256 of what it writes."""

PACKAGES = (
    "1",
    {
        "X with GELU": "0e449a6ca04a4d088e267419b39d9a7e755e257a5449365102e9c60f94e8cfc1",
        "Y": "e6e5c56351e4effcaa2383a14d40ef1cbd97e1906a6f81013b45ad69f9c8c5d5",
    },
)
"""Revision of `converters.formats.coreml.package`, and the sha256 of what it writes."""

ADVICE = "another {} is written: raise REVISION in {}, and record it here with the sha256 {}"


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_another_graph_has_another_revision(name: str) -> None:
    config = CONFIGURATIONS[name]
    graphs = (
        build_graph(config, classifier=classifier, fold_norms=folded, casts=casts)
        for classifier in (True, False)
        for folded, casts in ((True, ()), (False, ()), (False, ("classifier.1.weight",)))
    )
    digest = _digest(graph.SerializeToString(deterministic=True) for graph in graphs)
    advice = ADVICE.format("graph", onnx.__name__, digest)
    revision, digests = GRAPHS
    assert (onnx.REVISION, digest) == (revision, digests[name]), advice


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_another_form_of_a_graph_has_another_revision(name: str, tmp_path: Path) -> None:
    folder = random_folder(tmp_path, CONFIGURATIONS[name])
    RegNetImageProcessor(resize_mode="shortest_edge_then_crop").save_pretrained(tmp_path)
    forms = (
        GraphForm().in_float16(io=False),
        GraphForm(batch=1, height=64, width=96).in_float16(io=True),
        GraphForm(height=64, width=96),
    )
    graphs = [
        build_graph(folder.config, classifier=classifier, fold_norms=True, form=form)
        for classifier in (False, True)
        for form in forms
    ]
    graphs.append(with_preprocessing(folder, graphs[-1], forms[-1]))
    heads = [onnx.self_contained(folder, GraphForm(opset)).model for opset in (17, 18, 21)]
    digest = _digest(part.SerializeToString(deterministic=True) for part in (*graphs, *heads))
    advice = ADVICE.format("graph", onnx.__name__, digest)
    revision, digests = FORMS
    assert (onnx.REVISION, digest) == (revision, digests[name]), advice


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_another_program_has_another_revision(name: str, tmp_path: Path) -> None:
    folders = (
        random_folder(tmp_path / str(classifier), CONFIGURATIONS[name], classifier=classifier)
        for classifier in (True, False)
    )
    programs = (torchscript.program_entries(folder) for folder in folders)
    digest = _digest(
        part
        for program in programs
        for entry, data in program.items()
        for part in (entry.encode(), data)
    )
    advice = ADVICE.format("program", torchscript.__name__, digest)
    revision, digests = PROGRAMS
    assert (torchscript.REVISION, digest) == (revision, digests[name]), advice


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_another_package_has_another_revision(name: str, tmp_path: Path) -> None:
    parts: list[bytes] = []
    for classifier in (True, False):
        path = tmp_path / str(classifier)
        folder = random_folder(path, CONFIGURATIONS[name], classifier=classifier)
        weights = tuple(folded_weights(folder))
        forms = (GraphForm(), GraphForm(batch=1, height=32, width=48))
        for form in (*forms, GraphForm().in_float16(io=False)):
            model = coreml.specification(folder, form, places(weights))
            parts += (model, coreml.manifest(model).encode())
    digest = _digest(parts)
    advice = ADVICE.format("package", coreml.__name__, digest)
    revision, digests = PACKAGES
    assert (coreml.REVISION, digest) == (revision, digests[name]), advice


def _digest(parts: Iterable[bytes]) -> str:
    """Of all parts and where they end."""
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
