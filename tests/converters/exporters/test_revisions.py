"""What is written for a configuration changes with the exporter's revision, and only with it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import pytest

from converters.exporters import onnx, torchscript
from converters.exporters.onnx_form import GraphForm
from converters.exporters.onnx_graph import build_graph
from converters.exporters.onnx_preprocessing import with_preprocessing
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor
from tests.converters.exporters.onnx_helpers import SMALL
from tests.converters.exporters.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

CONFIGURATIONS = {
    "X with GELU": RegNetConfig(**SMALL | {"layer_type": "x", "hidden_act": "gelu_new"}),
    "Y": RegNetConfig(**SMALL),
}

GRAPHS = (
    "1",
    {
        "X with GELU": "0cbecb83dd24f03e7531f2d2d24c745aea066bbecbb2869405a5aa57af1a1f5c",
        "Y": "d7940024669b2c05179b40e0686f979b4afabfdaca7912f1d99a62a5708685a0",
    },
)
"""Revision of `converters.exporters.onnx`, and the sha256 of what it writes."""

FORMS = (
    "1",
    {
        "X with GELU": "1dde2b65d8496d0a0a671ddda78224d1580ffab58ab7c23d56916509d9d5f841",
        "Y": "c13974518f3e607199c2a171bbafb6a76a1f9437945bdbfdcb25dfaf68d0bb44",
    },
)
"""Likewise, of graphs in float16, of fixed size, and with preprocessing."""

PROGRAMS = (
    "1",
    {
        "X with GELU": "df37858dc58aff727ac037fa59c4aef19aff36eb18e5b6f25be70f82872aec4e",
        "Y": "2721862ab5e91081b8d385936f905222c36882d64422fcdb03101f720d23eb2e",
    },
)
"""Revision of `converters.exporters.torchscript`, and the sha256 of what it writes."""

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
    digest = _digest(graph.SerializeToString(deterministic=True) for graph in graphs)
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


def _digest(parts: Iterable[bytes]) -> str:
    """Of all parts and where they end."""
    return sha256(b"".join(sha256(part).digest() for part in parts)).hexdigest()
