"""ONNX files of other tools: graph and tensors proven against a folder, or why not."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from converters.folder.folder import ConvertedFolder
from converters.jobs.compare import compare
from converters.jobs.convert import convert
from converters.parity.contents.graph import read_graph
from converters.parity.contents.tensors import audited

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto

    from converters.parity.contents.tensors import TensorCertificate

RECORDED = Path(__file__).parents[3] / "recorded" / "onnx"
KINDS = ("x", "y", "odd")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The weights of a network that two exports were made of, from the one with batch norms."""
    path: Path = tmp_path_factory.mktemp("graphs") / "out"
    convert(RECORDED / "torch-plain-y.onnx", path, formats=(), verify=False)
    return path


def certified(folder: Path, path: Path) -> TensorCertificate:
    converted = ConvertedFolder(folder)
    return audited(converted, read_graph(converted, path))


def changed(edit: Callable[[ModelProto], None], name: str, folder: Path) -> Path:
    model = onnx.load(RECORDED / name)
    edit(model)
    onnx.save(model, folder / "changed.onnx")
    return folder / "changed.onnx"


@pytest.mark.parametrize(("name", "identical"), [("torch-plain-y", 122), ("timm-y", 22)])
def test_both_exports_hold_the_network_of_the_folder(
    name: str, identical: int, folder: Path
) -> None:
    proof = certified(folder, RECORDED / f"{name}.onnx")

    assert proof.wrong == ()
    assert proof.graph_compared
    assert (proof.identical, proof.recomputed) == (identical, 0 if identical > 100 else 40)


def test_compare_says_that_a_graph_is_proven(folder: Path) -> None:
    comparison = compare(folder, RECORDED / "timm-y.onnx")

    assert comparison.same
    assert comparison.weights.note == "graph proven"
    assert comparison.weights.recomputed == 40


def flip(model: ModelProto) -> None:
    """The lowest but two bit of the mantissa's upper half, of one weight."""
    tensor = next(t for t in model.graph.initializer if len(t.dims) == 4)
    array = numpy_helper.to_array(tensor).copy()
    array.view(np.uint32).reshape(-1)[5] ^= 1 << 9
    tensor.raw_data = array.tobytes()


@pytest.mark.parametrize("name", ["torch-plain-y", "timm-y"])
def test_one_changed_weight_is_found(name: str, folder: Path, tmp_path: Path) -> None:
    (wrong,) = certified(folder, changed(flip, f"{name}.onnx", tmp_path)).wrong

    assert "embedder.embedder." in wrong
    assert "in 1 of 864 values" in wrong


def exchange(model: ModelProto) -> None:
    """Two kernels of one shape change their places."""
    shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    convs = [node for node in model.graph.node if node.op_type == "Conv"]
    first = next(node for node in convs if shapes[node.input[1]] == (32, 32, 1, 1))
    second = [node for node in convs if shapes[node.input[1]] == (32, 32, 1, 1)][1]
    first.input[1], second.input[1] = second.input[1], first.input[1]


def test_exchanged_kernels_are_found_by_their_place(folder: Path, tmp_path: Path) -> None:
    wrong = certified(folder, changed(exchange, "torch-plain-y.onnx", tmp_path)).wrong

    assert len(wrong) == 2
    assert all("convolution.weight differs from the weights" in clause for clause in wrong)


@pytest.mark.parametrize(
    ("other", "fault"),
    [
        ("timm-x", "its graph has layer_type x where the folder has y"),
        ("timm-odd", "its graph is a trunk alone"),
        ("torchvision-odd", "its graph has depths [1, 1, 2, 3] where the folder has [1, 1, 1, 2]"),
        ("transformers-odd", "its graph has hidden_act silu where the folder has relu"),
    ],
)
def test_another_network_is_told_by_its_graph(other: str, fault: str, folder: Path) -> None:
    wrong = certified(folder, RECORDED / f"{other}.onnx").wrong

    assert any(fault in clause for clause in wrong)


def relu_twice(model: ModelProto) -> None:
    nodes = list(model.graph.node)
    at = next(i for i, node in enumerate(nodes) if node.op_type == "Relu")
    value = nodes[at].output[0]
    nodes[at].output[0] = "once"
    nodes.insert(at + 1, onnx.helper.make_node("Relu", ["once"], [value], name="again"))
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def test_a_graph_that_is_not_proven_is_judged_by_its_outputs(folder: Path, tmp_path: Path) -> None:
    """A second ReLU computes nothing, but that is not for a certificate to know."""
    comparison = compare(folder, changed(relu_twice, "timm-y.onnx", tmp_path))

    assert comparison.same
    assert not comparison.weights.decides
    note = comparison.weights.note or ""
    assert note.startswith("not compared, the graph is not proven: changed.onnx: its node Relu")
