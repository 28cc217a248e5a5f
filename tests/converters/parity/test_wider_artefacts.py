"""Faults in what RegNetV, RegNetZ, group norms and Keras' padding add are caught in every kind.

By the numbers in all of them; where a graph or code can be compared, by the certificate too.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import onnx
import pytest
from onnx import helper

from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import GraphForm
from converters.formats.registry import FORMATS
from converters.parity.verify import verify_artefacts
from tests.converters.parity.faults import sets
from tests.converters.parity.networks import IMAGE_SIZE, Network, export, random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto, NodeProto

    from converters.parity.verdict import Verdict

    NetworkOf = Callable[[str], Network]

KINDS = {
    "onnx": ExportOptions(),
    "onnx, sharing": ExportOptions(share_weights=True),
    "torchscript": ExportOptions(),
    "openvino": ExportOptions(),
    "pt2": ExportOptions(),
    "coreml": ExportOptions(form=GraphForm(batch=1, height=IMAGE_SIZE, width=IMAGE_SIZE)),
}

CONFIGURATIONS = [
    ("Z of EvoNorm", {"norm_eps": 2e-3}),
    ("Z of EvoNorm", {"norm_group_size": 4}),
    ("all at once", {"norm_eps": 2e-5}),
    ("all at once", {"norm_group_size": 4}),
    ("all at once", {"padding": "symmetric"}),
    ("V", {"norm_eps": 1.1e-5}),
    ("V", {"padding": "same"}),
    ("three stems", {"se_act": "silu"}),
]


@pytest.fixture(scope="module")
def network_of(tmp_path_factory: pytest.TempPathFactory) -> NetworkOf:
    networks: dict[str, Network] = {}

    def build(name: str) -> Network:
        if name not in networks:
            path = tmp_path_factory.mktemp("network") / "folder"
            networks[name] = random_network(path, name)
        return networks[name]

    return build


def judged(network: Network, kind: str, path: Path) -> Verdict:
    return verify_artefacts(network.folder, network.truth, {kind: path}).verdicts[-1]


def assert_numbers_fail(verdict: Verdict) -> None:
    assert any(measurement.failure for measurement in verdict.measurements), verdict.reason


def _cases() -> list[Any]:
    return [
        pytest.param(name, fields, kind, marks=[pytest.mark.slow] * (kind in {"pt2", "coreml"}))
        for name, fields in CONFIGURATIONS
        for kind in KINDS
    ]


@pytest.mark.parametrize(("name", "fields", "kind"), _cases())
def test_an_artefact_of_another_configuration_is_caught(
    name: str, fields: dict[str, Any], kind: str, network_of: NetworkOf, tmp_path: Path
) -> None:
    network = network_of(name)
    wrong = ConvertedFolder(shutil.copytree(network.folder.path, tmp_path / "wrong"))
    for key, value in fields.items():
        setattr(wrong.config, key, value)
    wrong.config.save_pretrained(wrong.path)
    wrong = ConvertedFolder(wrong.path)
    form = FORMATS[kind.partition(",")[0]]
    if form.needs:
        pytest.importorskip(form.needs[0])
    form.export(wrong, wrong.path / form.file_name, KINDS[kind])

    verdict = judged(network, form.name, wrong.path / form.file_name)

    assert_numbers_fail(verdict)
    assert verdict.tensors
    if verdict.tensors.graph_compared:
        assert verdict.tensors.wrong


def _node(model: ModelProto, end: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name.endswith(end))


def _constant(model: ModelProto, name: str, **attributes: Any) -> None:
    node = _node(model, name)
    del node.attribute[:]
    node.attribute.extend(helper.make_attribute(*item) for item in attributes.items())


def _one_group(model: ModelProto) -> None:
    """One norm takes all of its channels for one group; its mean is shaped alike."""
    node = _node(model, "layer.1.normalization.grouped")
    shape = helper.make_node("Constant", [], ["one_group"], name="one_group", value_ints=[0, 1, -1])
    model.graph.node.insert(0, shape)
    before = node.input[1]
    module = node.name.removesuffix("grouped")
    for each in model.graph.node:
        if each.name.startswith(module):
            each.input[:] = ["one_group" if value == before else value for value in each.input]


GRAPH_FAULTS: dict[str, tuple[str, Callable[[ModelProto], None]]] = {
    "epsilon": ("Z of EvoNorm", lambda model: _constant(model, "epsilon", value_float=1.1e-3)),
    "groups": ("Z of EvoNorm", _one_group),
    "groups of a group norm": ("all at once", _one_group),
    "no v": (
        "Z of EvoNorm",
        lambda model: _node(model, ".sigmoid").input.__setitem__(
            0, _node(model, ".sloped").input[0]
        ),
    ),
    "no ceiling": (
        "averaged shortcut",
        lambda model: sets(ceil_mode=0)(_node(model, "shortcut.pooler")),
    ),
    "padding counted": (
        "averaged shortcut",
        lambda model: sets(ceil_mode=0, pads=[0, 0, 1, 1], count_include_pad=1)(
            _node(model, "shortcut.pooler")
        ),
    ),
    "padding on the other side": (
        "same padding",
        lambda model: sets(auto_pad="SAME_LOWER")(_node(model, "layer.1.convolution")),
    ),
    "epsilon of a norm that is not folded": (
        "V",
        lambda model: sets(epsilon=2e-5)(_node(model, "layer.3.normalization")),
    ),
}


@pytest.mark.parametrize("form", ["self-contained", "sharing"])
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_fault_in_a_graph_is_caught_by_numbers_and_by_the_certificate(
    fault: str, form: str, network_of: NetworkOf
) -> None:
    name, plant = GRAPH_FAULTS[fault]
    network = network_of(name)
    path = export(network.folder, form)
    model = onnx.load(path, load_external_data=False)
    plant(model)
    onnx.save(model, path)

    verdict = judged(network, "onnx", path)

    assert_numbers_fail(verdict)
    assert verdict.tensors
    assert verdict.tensors.wrong
