"""What a tensor certificate finds in ONNX graphs, and in pointers into the weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from converters.parity.contents.tensors import certify
from tests.converters.formats.onnx_helpers import recast
from tests.converters.parity.contents.tampering import (
    BLOCK,
    KERNEL,
    ONNX_FORMS,
    STEM,
    artefact,
    certificate,
    change_bytes,
    change_onnx,
    initialiser,
    kernel_name,
    the_clause,
)
from tests.converters.parity.networks import export

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from converters.folder.folder import ConvertedFolder

    Array = NDArray[np.float32]


CONVOLVED = f"input 1 of {BLOCK}.layer.0.convolution"
CLASSIFIED = "input 2 of classifier.1"


def node(model: ModelProto, name: str) -> NodeProto:
    return next(node for node in model.graph.node if node.name == name)


def _swap_names(model: ModelProto, _: str) -> None:
    first, second = (
        tensor
        for tensor in model.graph.initializer
        if tensor.name.startswith((f"{BLOCK}.layer.0.", f"{BLOCK}.layer.3."))
        and list(tensor.dims) == [24, 24, 1, 1]
    )
    first.name, second.name = second.name, first.name


def _swap_inputs(model: ModelProto, _: str) -> None:
    first, second = (node(model, f"{BLOCK}.layer.{index}.convolution") for index in (0, 3))
    first.input[1], second.input[1] = second.input[1], first.input[1]


def _drop(model: ModelProto, name: str) -> None:
    model.graph.initializer.remove(initialiser(model, name))


def _repeat(model: ModelProto, name: str) -> None:
    model.graph.initializer.append(initialiser(model, name))


def _add_unknown(model: ModelProto, _: str) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "ballast"))


def _add_counter(model: ModelProto, _: str) -> None:
    counter = numpy_helper.from_array(np.array(7), f"{STEM}.normalization.num_batches_tracked")
    model.graph.initializer.append(counter)


def _rename(model: ModelProto, name: str) -> None:
    initialiser(model, name).name = "onnx::Conv_7"


def _reshape(model: ModelProto, name: str) -> None:
    initialiser(model, name).dims[:2] = [12, 48]


def _retype(model: ModelProto, name: str) -> None:
    initialiser(model, name).data_type = TensorProto.FLOAT16


def _make_input(model: ModelProto, name: str) -> None:
    info = helper.make_tensor_value_info(name, TensorProto.FLOAT, [24, 24, 1, 1])
    model.graph.input.append(info)


def _read_twice(model: ModelProto, name: str) -> None:
    node(model, "classifier.1").input[2] = name


def _hide_in_constant(model: ModelProto, name: str) -> None:
    tensor = initialiser(model, name)
    if not tensor.raw_data:
        tensor = numpy_helper.from_array(np.ones((24, 24, 1, 1), np.float32), name)
    model.graph.node.insert(0, helper.make_node("Constant", [], [name], "hidden", value=tensor))
    _drop(model, name)


def _hide_in_a_list(model: ModelProto, _: str) -> None:
    values = [0.5] * 24
    model.graph.node.insert(
        0, helper.make_node("Constant", [], ["list"], "hidden", value_floats=values)
    )


def _hide_in_a_function(model: ModelProto, _: str) -> None:
    model.functions.append(helper.make_function("d", "f", [], [], [], []))


def _hide_in_a_branch(model: ModelProto, _: str) -> None:
    branch = helper.make_graph([], "branch", [], [])
    model.graph.node.append(
        helper.make_node("If", ["a"], ["b"], "if", then_branch=branch, else_branch=branch)
    )


def _hide_in_a_sparse_one(model: ModelProto, _: str) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    indices = numpy_helper.from_array(np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [2]))


GRAPH_FAULTS: dict[str, tuple[Callable[[ModelProto, str], None], tuple[str, ...]]] = {
    "dropped": (_drop, ("NAME is missing",)),
    "held twice": (_repeat, ("NAME is held 2 times",)),
    "one that is unknown": (_add_unknown, ("ballast is no tensor that belongs there",)),
    "a counter": (
        _add_counter,
        (f"{STEM}.normalization.num_batches_tracked is no tensor that belongs there",),
    ),
    "another name": (
        _rename,
        ("onnx::Conv_7 is no tensor that belongs there", "NAME is missing"),
    ),
    "another shape": (_reshape, ("NAME has shape [12, 48, 1, 1] where [24, 24, 1, 1] belongs",)),
    "another type": (_retype, ("NAME is float16 where float32 belongs",)),
    "an input": (_make_input, ("NAME is an input as well, so that callers could replace it",)),
    "read twice": (
        _read_twice,
        (
            f"NAME is read as {CONVOLVED} and as {CLASSIFIED}, but should be as {CONVOLVED} alone",
            f"classifier.1.bias is read as nothing, but should be as {CLASSIFIED} alone",
        ),
    ),
    "in a constant": (
        _hide_in_constant,
        ("NAME is missing", "hidden is a constant of 576 values, which could be weights"),
    ),
    "in a list": (
        _hide_in_a_list,
        ("hidden is a constant of 24 values, which could be weights",),
    ),
    "in a function": (_hide_in_a_function, ("the file has functions, which nothing needs",)),
    "in a branch": (_hide_in_a_branch, ("if has a graph of its own, which nothing needs",)),
    "in a sparse one": (
        _hide_in_a_sparse_one,
        ("the file has sparse initialisers, which nothing needs",),
    ),
}


@ONNX_FORMS
@pytest.mark.parametrize("fault", GRAPH_FAULTS)
def test_a_fault_of_an_initialiser_is_named(form: str, fault: str, copy: ConvertedFolder) -> None:
    plant, clauses = GRAPH_FAULTS[fault]
    change_onnx(artefact(copy, form), lambda model: plant(model, kernel_name(form)))
    expected = {clause.replace("NAME", kernel_name(form)) for clause in clauses}
    assert set(certificate(copy, form).wrong) == expected


@ONNX_FORMS
@pytest.mark.parametrize("swap", [_swap_names, _swap_inputs], ids=["names", "inputs"])
def test_two_kernels_that_are_swapped_are_both_named(
    form: str, swap: Callable[[ModelProto, str], None], copy: ConvertedFolder
) -> None:
    change_onnx(artefact(copy, form), lambda model: swap(model, ""))
    wrong = certificate(copy, form).wrong
    assert {clause.split()[0] for clause in wrong} == {kernel_name(form, 0), kernel_name(form, 3)}


@pytest.mark.parametrize("epsilon", [2e-5, 1e-3])
def test_another_epsilon_in_a_single_norm_is_named(epsilon: float, copy: ConvertedFolder) -> None:
    def change(model: ModelProto) -> None:
        (attribute,) = node(model, f"{STEM}.normalization").attribute
        attribute.f = epsilon

    change_onnx(artefact(copy, "sharing"), change)
    assert the_clause(certificate(copy, "sharing")) == (
        f"{STEM}.normalization has an epsilon of {epsilon:g} where 1e-05 belongs"
    )


def test_a_kernel_that_was_cut_short_is_named(copy: ConvertedFolder) -> None:
    def cut(data: bytearray) -> None:
        del data[-1]

    name = kernel_name("self-contained")
    change_bytes(artefact(copy, "self-contained"), name, cut)
    assert the_clause(certificate(copy, "self-contained")) == (
        f"{name} has 2303 bytes, not those of its shape [24, 24, 1, 1]"
    )


def test_a_cast_to_less_than_float32_is_named(network: ConvertedFolder, tmp_path: Path) -> None:
    folder = recast(network, tmp_path / "recast", torch.float64)
    path = export(folder, "sharing")

    def change(model: ModelProto) -> None:
        cast = next(node for node in model.graph.node if node.input[0] == KERNEL)
        cast.attribute[0].i = TensorProto.FLOAT16

    change_onnx(path, change)
    clause = the_clause(certify(folder, "onnx", path))
    assert clause.startswith(f"{KERNEL} is read as input 0 of ")


def test_a_fold_without_its_bias_is_incomplete(copy: ConvertedFolder) -> None:
    change_onnx(artefact(copy, "self-contained"), lambda model: _drop(model, f"{STEM}.folded_bias"))
    assert the_clause(certificate(copy, "self-contained")) == f"{STEM}.folded_bias is missing"


def test_elements_may_lie_in_another_field_of_the_file(copy: ConvertedFolder) -> None:
    def change(model: ModelProto) -> None:
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor).ravel()
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values)

    change_onnx(artefact(copy, "self-contained"), change)
    assert certificate(copy, "self-contained").wrong == ()


@pytest.mark.parametrize(
    ("key", "value", "clause"),
    [
        ("offset", "64", " points at offset 64 where it lies at location model.safetensors, "),
        ("length", "4", " points at length 4 where "),
        ("offset", "-8", " points at offset -8 where "),
        ("location", "/etc/passwd", " points into '/etc/passwd', which is no weights file of the "),
        ("location", "../model.safetensors", " points into '../model.safetensors', which is no "),
        ("location", "config.json", " points into 'config.json', which is no weights file of the "),
    ],
)
def test_a_pointer_elsewhere_is_named(
    key: str, value: str, clause: str, copy: ConvertedFolder
) -> None:
    def change(model: ModelProto) -> None:
        tensor = initialiser(model, KERNEL)
        next(entry for entry in tensor.external_data if entry.key == key).value = value

    change_onnx(artefact(copy, "sharing"), change)
    assert the_clause(certificate(copy, "sharing")).startswith(KERNEL + clause)


def test_weights_behind_a_link_are_refused(copy: ConvertedFolder, tmp_path: Path) -> None:
    weights = copy.path / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    result = certificate(copy, "sharing")
    assert result.identical == 0
    assert all(
        " points into model.safetensors, which is a link" in clause for clause in result.wrong
    )


def test_a_sharing_file_of_another_place_is_told_so(copy: ConvertedFolder, tmp_path: Path) -> None:
    path = artefact(copy, "sharing").rename(tmp_path / "moved.onnx")
    result = certify(copy, "onnx", path)
    assert result.identical == 0
    assert "but the file does not lie beside it" in result.wrong[0]


@pytest.mark.parametrize("digests", ['{"model.safetensors": "00"}', "{}", "[]", None])
def test_a_sharing_file_of_other_weights_is_told_so(
    digests: str | None, copy: ConvertedFolder
) -> None:
    def change(model: ModelProto) -> None:
        index, entry = next(
            (index, entry)
            for index, entry in enumerate(model.metadata_props)
            if entry.key == "weights_sha256"
        )
        if digests is None:
            del model.metadata_props[index]
        else:
            entry.value = digests

    change_onnx(artefact(copy, "sharing"), change)
    assert the_clause(certificate(copy, "sharing")) == (
        "the sha256 that it states of model.safetensors is not the file's"
    )
