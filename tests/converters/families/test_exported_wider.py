"""Exports of what is called RegNet and transformers does not have, read back by their graphs."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file

from converters.checkpoint import open_checkpoint
from converters.errors import InputError
from converters.families.graph_network import network_of
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.jobs.compare import compare
from converters.jobs.convert import convert
from converters.parity.contents.found import prove
from converters.parity.verdict import PROVEN
from regnet import RegNetConfig
from tests.converters.families.test_onnx import difference, output_of
from tests.converters.loading import load
from tests.converters.parity.networks import WIDER, random_network
from tests.oracles import timm_wider

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from torch import nn

    from converters.checkpoint.graph import Graph, Node

pytestmark = pytest.mark.filterwarnings("ignore")

JIT: Any = torch.jit  # without types

OWN = {
    "onnx, sharing": ExportOptions(share_weights=True),
    "torchscript": ExportOptions(),
    "pt2": ExportOptions(),
}
"""Forms that fold nothing."""

OWN_QUICK = {
    ("V, averaged shortcut", "onnx, sharing"),
    ("Z of EvoNorm", "onnx, sharing"),
    ("Z of EvoNorm", "torchscript"),
    ("group norm", "torchscript"),
    ("same padding", "onnx, sharing"),
    ("same padding", "torchscript"),
    ("three stems", "onnx, sharing"),
}


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Any]:
    """Converted folders, each made once."""
    return cache(lambda name: random_network(tmp_path_factory.mktemp("n") / "net", name).folder)


def cases() -> list[Any]:
    return [
        pytest.param(name, form, marks=[pytest.mark.slow] * ((name, form) not in OWN_QUICK))
        for name in WIDER
        for form in OWN
    ]


@pytest.mark.parametrize(("name", "form"), cases())
def test_our_own_file_gives_the_folder_it_came_from(
    name: str, form: str, folder_of: Callable[[str], Any], tmp_path: Path
) -> None:
    folder = folder_of(name)
    kind = FORMATS[form.partition(",")[0]]
    path = folder.path / kind.file_name
    kind.export(folder, path, OWN[form])

    loaded = load(path, tmp_path)

    assert network_fields(loaded.source.config) == network_fields(folder.config)
    stored = load_file(folder.path / "model.safetensors")
    back = loaded.network.state_dict()
    assert stored.keys() == back.keys()
    counters = {name for name in stored if name.endswith("tracked")}
    kept = stored.keys() - counters if form.startswith("onnx") else stored.keys()
    assert all(torch.equal(stored[name], back[name]) for name in kept)


def network_fields(config: RegNetConfig) -> dict[str, Any]:
    """What a configuration says of the network, and nothing of its weights."""
    return {k: v for k, v in config.to_dict().items() if k not in {"architectures", "dtype"}}


# Those of timm.


def _onnx(network: nn.Module, pixels: torch.Tensor, path: Path, *, folds: bool) -> None:
    modes = torch.onnx.TrainingMode
    torch.onnx.export(
        network,
        (pixels,),
        path,
        dynamo=False,
        training=modes.EVAL if folds else modes.PRESERVE,
        do_constant_folding=folds,
        dynamic_axes={"x": {0: "batch", 2: "height", 3: "width"}},
        input_names=["x"],
    )


def _program(network: nn.Module, pixels: torch.Tensor, path: Path, *, decomposes: bool) -> None:
    sizes = ({0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO},)
    program = torch.export.export(network, (pixels,), dynamic_shapes=None if decomposes else sizes)
    torch.export.save(program.run_decompositions() if decomposes else program, path)


EXPORTERS: dict[str, Callable[[Any, torch.Tensor, Path], object]] = {
    "folded.onnx": lambda n, x, path: _onnx(n, x, path, folds=True),
    "plain.onnx": lambda n, x, path: _onnx(n, x, path, folds=False),
    "traced.pt": lambda n, x, path: JIT.save(JIT.trace(n, x), path),
    "scripted.pt": lambda n, _, path: JIT.save(JIT.script(n), path),
    "frozen.pt": lambda n, _, path: JIT.save(JIT.freeze(JIT.script(n)), path),
    "program.pt2": lambda n, x, path: _program(n, x, path, decomposes=False),
    "decomposed.pt2": lambda n, x, path: _program(n, x, path, decomposes=True),
}
FOLDING = {"folded.onnx", "frozen.pt"}
QUICK = {
    ("V, averaged shortcut", "folded.onnx"),
    ("Z", "plain.onnx"),
    ("Z of EvoNorm", "plain.onnx"),
    ("Z of EvoNorm", "scripted.pt"),
}

PIXELS = torch.randn(2, 3, 61, 64, generator=torch.Generator().manual_seed(1))


@cache
def network(kind: str) -> Any:
    return timm_wider.build(kind)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """Files of the real exporters, each made once."""
    root = tmp_path_factory.mktemp("exports")

    @cache
    def export(kind: str, exporter: str) -> Path:
        path = root / f"{kind} {exporter}"
        with torch.no_grad():
            EXPORTERS[exporter](timm_wider.build(kind), PIXELS, path)
        return path

    return export


@pytest.mark.parametrize(
    ("kind", "exporter"),
    [
        pytest.param(kind, exporter, marks=[pytest.mark.slow] * ((kind, exporter) not in QUICK))
        for kind in timm_wider.KINDS
        for exporter in EXPORTERS
    ],
)
def test_an_export_of_timm_comes_back_as_its_network(
    kind: str, exporter: str, exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    loaded = load(exported(kind, exporter), tmp_path)

    assert loaded.decision("graph").startswith("proven, ")
    with torch.inference_mode():
        theirs = network(kind)(PIXELS).numpy()
    assert difference(output_of(loaded.network, PIXELS), theirs) < 1e-5
    if exporter not in FOLDING:
        both = (
            sorted(t.numpy().tobytes() for name, t in each.items() if not name.endswith("tracked"))
            for each in (loaded.network.state_dict(), network(kind).state_dict())
        )
        assert next(both) == next(both)


FOREIGN = [
    ("Z of EvoNorm", "plain.onnx", "onnx"),
    pytest.param("Y of group norm", "traced.pt", "torchscript", marks=pytest.mark.slow),
    pytest.param("V, averaged shortcut", "folded.onnx", "onnx", marks=pytest.mark.slow),
    pytest.param("Z of EvoNorm", "program.pt2", "pt2", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("kind", "exporter", "format_name"), FOREIGN)
def test_another_exporter_s_artefact_is_proven(
    kind: str,
    exporter: str,
    format_name: str,
    exported: Callable[[str, str], Path],
    tmp_path: Path,
) -> None:
    torch.save(network(kind).state_dict(), tmp_path / "net.pth")
    convert(tmp_path / "net.pth", tmp_path / "out", formats=(), verify=False)
    folder = ConvertedFolder(tmp_path / "out")

    proof = prove(folder, format_name, exported(kind, exporter))

    assert proof.graph == PROVEN
    assert proof.tensors is not None
    assert not proof.tensors.wrong
    folder.config.se_act = "selu"
    proof = prove(folder, format_name, exported(kind, exporter))
    assert proof.tensors is not None
    assert any("its graph has se_act" in fault for fault in proof.tensors.wrong)


@pytest.mark.slow
def test_compare_proves_an_export_against_its_checkpoint(
    exported: Callable[[str, str], Path], tmp_path: Path
) -> None:
    kind = "Z of EvoNorm"
    torch.save(network(kind).state_dict(), tmp_path / "net.pth")
    comparison = compare(tmp_path / "net.pth", exported(kind, "scripted.pt"))

    assert comparison.same
    assert comparison.weights.note == "graph proven"
    assert comparison.weights.identical == len(network(kind).state_dict())


# One thing that is otherwise.


@pytest.fixture(scope="module")
def graph_of(folder_of: Callable[[str], Any]) -> Callable[[str, str], Graph]:
    """What our own files of a network hold, or those of a network that differs a little."""

    @cache
    def read(name: str, form: str) -> Graph:
        folder, kind = folder_of(name), FORMATS[form.partition(",")[0]]
        path = folder.path / kind.file_name
        kind.export(folder, path, OWN[form])
        with open_checkpoint(path) as checkpoint:
            assert checkpoint.graph is not None
            return checkpoint.graph

    return read


def changed(graph: Graph, op: str, index: int, **attributes: Any) -> Graph:
    """The same with other attributes of one node of a kind."""
    node = [each for each in graph.nodes if each.op == op][index]
    return rewritten(graph, replace(node, attributes={**node.attributes, **attributes}))


def rewritten(graph: Graph, *nodes: Node) -> Graph:
    """The same with other nodes that make the same values."""
    others = {node.outputs: node for node in nodes}
    return replace(graph, nodes=tuple(others.get(node.outputs, node) for node in graph.nodes))


ONNX, SCRIPT = "onnx, sharing", "torchscript"

WRONG: list[tuple[str, str, str, int, dict[str, Any], str]] = [
    ("averaged shortcut", ONNX, "AveragePool", 0, {"ceil_mode": 0}, "other means than those"),
    ("averaged shortcut", ONNX, "AveragePool", 0, {"ceil_mode": 2}, "has ceil_mode 2"),
    ("averaged shortcut", ONNX, "AveragePool", 0, {"count_include_pad": 1}, "count_include_pad 1"),
    ("averaged shortcut", ONNX, "AveragePool", 0, {"kernel_shape": (3, 3)}, "kernel_shape 3, 3"),
    ("averaged shortcut", ONNX, "AveragePool", 0, {"strides": (1, 1)}, "has stride 1 where"),
    ("averaged shortcut", ONNX, "AveragePool", 0, {"pads": (0, 0, 1, 1)}, "has pads 0, 0, 1, 1"),
    ("averaged shortcut", ONNX, "BatchNormalization", 3, {"epsilon": 1e-5}, "epsilon 1e-05 where"),
    ("same padding", ONNX, "Conv", 0, {"auto_pad": "SAME_LOWER"}, "has no pads where"),
    ("same padding", ONNX, "Conv", 0, {"auto_pad": "NOTSET", "pads": (1,) * 4}, "has padding"),
    ("Z of EvoNorm", ONNX, "GlobalAveragePool", 0, {"axis": 1}, "the attribute axis"),
    ("uneven groups", ONNX, "Conv", 3, {"group": 1}, "has group 1 where"),
    ("averaged shortcut", SCRIPT, "avg_pool2d", 0, {"ceil_mode": False}, "other means than those"),
    (
        "averaged shortcut",
        SCRIPT,
        "avg_pool2d",
        0,
        {"count_include_pad": 1},
        "count_include_pad",
    ),
    ("averaged shortcut", SCRIPT, "avg_pool2d", 0, {"kernel_size": (3, 3)}, "of 3, 3 pixels"),
    ("averaged shortcut", SCRIPT, "avg_pool2d", 0, {"divisor_override": 3}, "divisor_override 3"),
    ("averaged shortcut", SCRIPT, "batch_norm", 0, {"eps": 1e-5}, "epsilon 1e-05 where 0.001"),
    ("group norm", SCRIPT, "group_norm", 0, {"num_groups": 2}, "has groups 2 where"),
    ("group norm", SCRIPT, "group_norm", 0, {"num_groups": 3}, "has 3 groups"),
    ("group norm", SCRIPT, "group_norm", 4, {"eps": 1e-6}, "epsilon 1e-06 where 1e-05"),
    ("same padding", SCRIPT, "constant_pad_nd", 0, {"value": 1.0}, "pads images with something"),
    ("same padding", SCRIPT, "constant_pad_nd", 0, {"pad": (1, 1, 1, 1)}, "has padding"),
    ("same padding", SCRIPT, "constant_pad_nd", 0, {"pad": (0, 1, 0, 1)}, "has padding"),
    ("same padding", SCRIPT, "floordiv", 0, {"b": 3}, "has padding"),
    ("Z of EvoNorm", SCRIPT, "var", 0, {"unbiased": True}, "is no biased variance"),
    ("Z of EvoNorm", SCRIPT, "var", 0, {"dim": (3, 4)}, "variance over the axes 3, 4"),
    ("Z of EvoNorm", SCRIPT, "add", 0, {"other": 1e-2}, "epsilon 0.01 where 0.001"),
    ("Z of EvoNorm", SCRIPT, "sqrt", 0, {"inplace": True}, "the attribute inplace"),
]


@pytest.mark.parametrize("case", WRONG, ids=str)
def test_one_attribute_that_is_otherwise_is_refused_by_its_node(
    case: tuple[str, str, str, int, dict[str, Any], str], graph_of: Callable[[str, str], Graph]
) -> None:
    name, form, op, index, attributes, message = case
    graph = graph_of(name, form)
    network_of(graph, "model")

    with pytest.raises(InputError, match=rf"^model: its node .*{message}"):
        network_of(changed(graph, op, index, **attributes), "model")


def in_other_groups(graph: Graph) -> Graph:
    """One EvoNorm takes all of its channels for one group."""
    node = [each for each in graph.nodes if each.outputs[0].endswith(".grouped")][-1]
    shape = next(each for each in graph.nodes if node.inputs[1] in each.outputs)
    other = replace(shape, outputs=("one group",), attributes={"value_ints": (0, 1, -1)})
    moved = rewritten(graph, replace(node, inputs=(node.inputs[0], "one group")))
    return replace(moved, nodes=(other, *moved.nodes))


def activated_before_its_norm(graph: Graph) -> Graph:
    """The second layer of a block has its norm behind the activation."""
    norm = [each for each in graph.nodes if each.op == "batch_norm"][1]
    act = next(each for each in graph.nodes if norm.outputs[0] in each.inputs)
    first = replace(act, inputs=norm.inputs[:1], outputs=norm.outputs)
    second = replace(norm, inputs=(norm.outputs[0], *norm.inputs[1:]), outputs=act.outputs)
    return rewritten(graph, first, second)


def gated_by_another(graph: Graph) -> Graph:
    """One squeeze-and-excitation has another activation than all others."""
    first = next(each for each in graph.nodes if each.op == "adaptive_avg_pool2d")
    conv = next(each for each in graph.nodes if first.outputs[0] in each.inputs)
    act = next(each for each in graph.nodes if conv.outputs[0] in each.inputs)
    return rewritten(graph, replace(act, op="selu"))


def without_a_shortcut(graph: Graph) -> Graph:
    """One block is not added to what it reads."""
    added = next(each for each in graph.nodes if each.op == "add" and len(each.inputs) == 2)
    kept, _ = added.inputs
    nodes = [each for each in graph.nodes if each is not added]
    moved = [
        replace(each, inputs=tuple(kept if i == added.outputs[0] else i for i in each.inputs))
        for each in nodes
    ]
    return replace(graph, nodes=tuple(moved))


STRUCTURES = [
    ("Z of EvoNorm", ONNX, in_other_groups, "has groups 1 where .* has 6"),
    ("V", SCRIPT, activated_before_its_norm, "its node "),
    ("V", SCRIPT, gated_by_another, "has activation selu where .*attention.1 .* has silu"),
    ("V", SCRIPT, without_a_shortcut, "its node "),
]


@pytest.mark.parametrize(("name", "form", "edit", "message"), STRUCTURES)
def test_another_structure_is_refused_by_its_node(
    name: str,
    form: str,
    edit: Callable[[Graph], Graph],
    message: str,
    graph_of: Callable[[str, str], Graph],
) -> None:
    with pytest.raises(InputError, match=rf"^model: .*{message}"):
        network_of(edit(graph_of(name, form)), "model")


def test_a_network_of_another_epsilon_and_stem_is_another_network(
    graph_of: Callable[[str, str], Graph],
) -> None:
    graph = graph_of("Y", SCRIPT)
    for node in [each for each in graph.nodes if each.op == "batch_norm"]:
        graph = rewritten(graph, replace(node, attributes={**node.attributes, "eps": 1e-3}))

    config = network_of(changed(graph, "conv2d", 0, stride=(1, 1)), "model").config

    assert config.wider_fields() == {"norm_eps": 1e-3, "stem_strides": [1]}
    assert isinstance(config, RegNetConfig)
