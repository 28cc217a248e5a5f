"""ONNX files of many exporters as sources, and graphs that are no RegNet."""

from __future__ import annotations

import json
import math
from copy import deepcopy
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import helper, numpy_helper
from safetensors.torch import load_file

from converters.errors import InputError
from converters.families.graph_network import neutral
from converters.families.known import FAMILIES
from converters.families.options import SourceOptions
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from regnet import RegNetConfig
from regnet.wider import NORM_EPS
from tests.converters.loading import Loaded, load
from tests.oracles import timm as in_timm
from tests.oracles import torchvision as in_torchvision
from tests.oracles import transformers as in_transformers

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnx import ModelProto, NodeProto
    from torch import nn

RECORDED = Path(__file__).parents[2] / "recorded" / "onnx"
FACTS: dict[str, Any] = json.loads((RECORDED / "facts.json").read_text("utf-8"))

LIMIT = 1e-5
"""Largest difference in float32, in units of the largest output."""

FOLD_ULPS = 24
"""How many units in the last place an exporter's fold in float32 may be off."""


def images() -> torch.Tensor:
    """Those that the recorded outputs belong to."""
    steps = torch.arange(2 * 3 * 64 * 64, dtype=torch.float64)
    return (2 * torch.sin(steps * steps * 0.37)).float().reshape(2, 3, 64, 64)


@torch.inference_mode()
def output_of(network: nn.Module, pixels: torch.Tensor) -> np.ndarray:
    found = network(pixels)
    output: np.ndarray = (
        found.logits if hasattr(found, "logits") else found.pooler_output.flatten(1)
    ).numpy()
    return output


def difference(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


# Recorded files: exporters that are not installed beside the project.


@pytest.mark.parametrize("name", FACTS)
def test_a_recorded_graph_computes_what_its_framework_computed(name: str, tmp_path: Path) -> None:
    loaded = load(RECORDED / f"{name}.onnx", tmp_path)

    assert loaded.source.framework == "onnx"
    assert loaded.decision("graph").startswith("proven, ")
    theirs = np.array(FACTS[name]["output"], np.float32)
    assert difference(output_of(loaded.network, images()), theirs) < LIMIT


@pytest.mark.parametrize("name", [name for name in FACTS if name.startswith("torch-plain")])
def test_where_nothing_was_folded_every_weight_is_the_framework_s(
    name: str, tmp_path: Path
) -> None:
    loaded = load(RECORDED / f"{name}.onnx", tmp_path)

    assert digests(loaded) == sorted(
        digest for key, digest in FACTS[name]["sha256"].items() if not key.endswith("tracked")
    )
    assert "batch norms" not in {decision.topic for decision in loaded.source.decisions}


def digests(loaded: Loaded) -> list[str]:
    return sorted(
        sha256(tensor.numpy().tobytes()).hexdigest()
        for name, tensor in loaded.network.state_dict().items()
        if not name.endswith("tracked")
    )


# Exporters that are.

NETWORKS: dict[str, Callable[[], Any]] = {
    "timm-x": lambda: in_timm.build(attention=False, num_classes=5),
    "torchvision-y": in_torchvision.build,
    "transformers-odd": lambda: in_transformers.twin(
        in_transformers.classifier(
            hidden_act="gelu", num_labels=7, downsample_in_first_stage=False, num_channels=4
        )
    ),
}

FOLDED = pytest.mark.parametrize("folded", [True, False], ids=["folded", "as trained"])


@cache
def network(name: str) -> Any:
    return NETWORKS[name]().eval()


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, bool], Path]:
    """Files of torch's older exporter, which optimum calls as well; each is made once."""
    folder = tmp_path_factory.mktemp("exports")

    def exported(name: str, folded: bool) -> Path:
        path = folder / f"{name}-{folded}.onnx"
        if not path.exists():
            modes = torch.onnx.TrainingMode
            torch.onnx.export(
                network(name),
                (pixels_of(name),),
                path,
                dynamo=False,
                training=modes.EVAL if folded else modes.PRESERVE,
                do_constant_folding=folded,
                dynamic_axes={"pixels": {0: "batch", 2: "height", 3: "width"}},
                input_names=["pixels"],
            )
        return path

    return exported


def pixels_of(name: str) -> torch.Tensor:
    channels = next(iter(network(name).parameters())).shape[1]
    return torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(1))


@FOLDED
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.filterwarnings("ignore")
def test_an_export_comes_back_as_the_network_it_was_made_from(
    name: str, folded: bool, exports: Callable[[str, bool], Path], tmp_path: Path
) -> None:
    loaded = load(exports(name, folded), tmp_path)

    with torch.inference_mode():
        theirs = network(name)(pixels_of(name))
    theirs = getattr(theirs, "logits", theirs).numpy()
    assert difference(output_of(loaded.network, pixels_of(name)), theirs) < LIMIT
    if folded:
        require_folds(loaded.network.state_dict(), network(name).state_dict())
    else:
        kept = [t for n, t in network(name).state_dict().items() if not n.endswith("tracked")]
        assert digests(loaded) == sorted(sha256(t.numpy().tobytes()).hexdigest() for t in kept)


def require_folds(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Each of our kernels is one of theirs with its batch norm in it, within float32's rounding."""
    folds = [
        fold(theirs, kernel)
        for kernel, tensor in theirs.items()
        if tensor.ndim == 4 and f"{kernel.removesuffix('weight')}bias" not in theirs
    ]
    found = [
        (tensor.double().numpy(), ours[name.replace("convolution.weight", "normalization.bias")])
        for name, tensor in ours.items()
        if name.endswith("convolution.weight")
    ]
    assert len(found) == len(folds)
    for kernel, bias in found:
        assert any(
            kernel.shape == other.shape
            and np.allclose(kernel, other, rtol=FOLD_ULPS * 2.0**-24, atol=0)
            and np.allclose(bias.double().numpy(), shift, rtol=1e-5, atol=1e-6)
            for other, shift in folds
        )


def fold(tensors: dict[str, torch.Tensor], kernel: str) -> tuple[np.ndarray, np.ndarray]:
    """A kernel with the batch norm behind it, whose tensors follow in the state dict."""
    names = list(tensors)
    at = names.index(kernel)
    weight, bias, mean, variance = (
        tensors[name].double().numpy() for name in names[at + 1 : at + 5]
    )
    slope = weight / np.sqrt(variance + NORM_EPS)
    folded = tensors[kernel].double().numpy() * slope.reshape(-1, 1, 1, 1)
    return folded, bias - mean * slope


def test_a_folded_batch_norm_comes_back_as_one_that_adds_a_bias(tmp_path: Path) -> None:
    loaded = load(RECORDED / "timm-y.onnx", tmp_path)

    norm = loaded.network.regnet.embedder.embedder.normalization
    assert (norm.weight == 1).all()
    assert (norm.running_mean == 0).all()
    assert (norm.running_var == np.float32(1 - NORM_EPS)).all()
    assert loaded.decision("batch norms").startswith("20 are in their convolutions (")
    # In float32 as in float64, what it multiplies with rounds to 1.
    assert np.float32(neutral(NORM_EPS)["running_var"]) + np.float32(NORM_EPS) == 1
    scale = 1 / math.sqrt(float(np.float32(neutral(NORM_EPS)["running_var"])) + NORM_EPS)
    assert abs(scale - 1) < 2.0**-25


# Our own files.


@pytest.mark.parametrize("share", [False, True], ids=["self-contained", "sharing"])
def test_our_own_file_gives_the_folder_it_came_from(share: bool, tmp_path: Path) -> None:
    model = in_transformers.classifier(num_labels=3)
    model.config = RegNetConfig.from_dict(
        model.config.to_dict() | {"id2label": {0: "ant", 1: "bee", 2: "cat"}, "label2id": None}
    )
    model.save_pretrained(tmp_path / "net")
    first, second = tmp_path / "first", tmp_path / "second"
    convert(tmp_path / "net", first, formats=["onnx"], share_weights=share, verify=False)

    done = convert(first / "model.onnx", second, formats=["onnx"], verify=False)

    assert done.inspection.source.labels == ("ant", "bee", "cat")
    for name in (
        ["preprocessor_config.json"] if share else ["preprocessor_config.json", "model.onnx"]
    ):
        assert (first / name).read_bytes() == (second / name).read_bytes()
    if share:
        stored, back = (load_file(folder / "model.safetensors") for folder in (first, second))
        kept = [name for name in stored if not name.endswith("tracked")]
        assert all(torch.equal(stored[name], back[name]) for name in kept)
    ours, again = (RegNetConfig.from_pretrained(folder).to_dict() for folder in (first, second))
    assert ours == again


# Spellings.


def edited(path: Path, edit: Callable[[ModelProto], None], name: str, **kept: Any) -> Path:
    """A copy of a recorded file with a change."""
    model = onnx.load(RECORDED / f"{name}.onnx")
    edit(model)
    onnx.save(model, path / "edited.onnx", **kept)
    return path / "edited.onnx"


def node_of(model: ModelProto, op: str, index: int = 0) -> NodeProto:
    found: NodeProto = [node for node in model.graph.node if node.op_type == op][index]
    return found


def replaced(model: ModelProto, node: NodeProto, *others: NodeProto) -> None:
    nodes = list(model.graph.node)
    at = next(i for i, each in enumerate(nodes) if each is node or each == node)
    nodes[at : at + 1] = others
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def constant(model: ModelProto, name: str, value: Any, dtype: Any = np.int64) -> str:
    array = np.array(value, dtype)
    model.graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def tensor_of(model: ModelProto, name: str) -> np.ndarray:
    found = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    array: np.ndarray = numpy_helper.to_array(found)
    return array


def as_matmul(model: ModelProto) -> None:
    gemm = node_of(model, "Gemm")
    value, weight, bias = gemm.input
    weight = constant(model, "turned", tensor_of(model, weight).T, np.float32)
    matmul = helper.make_node("MatMul", [value, weight], ["product"], name="product")
    add = helper.make_node("Add", [bias, "product"], list(gemm.output), name="bias")
    replaced(model, gemm, matmul, add)


def as_untransposed_gemm(model: ModelProto) -> None:
    gemm = node_of(model, "Gemm")
    value, weight, bias = gemm.input
    weight = constant(model, "turned", tensor_of(model, weight).T, np.float32)
    replaced(model, gemm, helper.make_node("Gemm", [value, weight, bias], list(gemm.output)))


def with_a_transpose(model: ModelProto) -> None:
    gemm = node_of(model, "Gemm")
    value, weight, bias = gemm.input
    weight = constant(model, "turned", tensor_of(model, weight).T, np.float32)
    turn = helper.make_node("Transpose", [weight], ["back"], perm=[1, 0])
    other = helper.make_node("Gemm", [value, "back", bias], list(gemm.output), transB=1)
    replaced(model, gemm, turn, other)


def pooled(model: ModelProto, *nodes: NodeProto) -> None:
    """Put others in the place of the last pooling and what follows it."""
    gemm = node_of(model, "Gemm")
    by_output = {node.output[0]: node for node in model.graph.node}
    flatten = by_output[gemm.input[0]]
    pool = by_output[flatten.input[0]]
    nodes[0].input[0], nodes[-1].output[0] = pool.input[0], flatten.output[0]
    replaced(model, flatten)
    replaced(model, pool, *nodes)


def with_flatten(model: ModelProto) -> None:
    pooled(
        model,
        helper.make_node("GlobalAveragePool", [""], ["p"]),
        helper.make_node("Flatten", ["p"], [""], axis=1),
    )


def with_squeeze(model: ModelProto) -> None:
    axes = constant(model, "axes", [2, 3])
    pooled(
        model,
        helper.make_node("GlobalAveragePool", [""], ["p"]),
        helper.make_node("Squeeze", ["p", axes], [""]),
    )


def with_mean(model: ModelProto) -> None:
    axes = constant(model, "axes", [-1, -2])
    pooled(model, helper.make_node("ReduceMean", ["", axes], [""], keepdims=0))


def with_shapes(model: ModelProto) -> None:
    zero, one = constant(model, "zero", 0), constant(model, "ones", [0])
    rest = constant(model, "rest", [-1])
    pooled(
        model,
        helper.make_node("GlobalAveragePool", [""], ["p"]),
        helper.make_node("Shape", ["p"], ["s"]),
        helper.make_node("Gather", ["s", zero], ["n"], axis=0),
        helper.make_node("Unsqueeze", ["n", one], ["u"]),
        helper.make_node("Concat", ["u", rest], ["shape"], axis=0),
        helper.make_node("Reshape", ["p", "shape"], [""]),
    )


def with_dropout(model: ModelProto) -> None:
    gemm = node_of(model, "Gemm")
    ratio = constant(model, "ratio", 0.5, np.float32)
    drop = helper.make_node("Dropout", [gemm.input[0], ratio], ["dropped"])
    same = helper.make_node("Identity", ["dropped"], ["same"])
    other = deepcopy(gemm)
    other.input[0] = "same"
    replaced(model, gemm, drop, same, other)


def with_other_names(model: ModelProto) -> None:
    """No name says anything, and initialisers stand in another order."""
    names = {name for node in model.graph.node for name in (*node.input, *node.output) if name}
    names |= {value.name for value in (*model.graph.input, *model.graph.output)}
    to = {name: f"v{index}" for index, name in enumerate(sorted(names, reverse=True))} | {"": ""}
    for node in model.graph.node:
        node.name = ""
        node.input[:] = [to[name] for name in node.input]
        node.output[:] = [to[name] for name in node.output]
    for each in (*model.graph.initializer, *model.graph.input, *model.graph.output):
        each.name = to.get(each.name, each.name)
    tensors = sorted(model.graph.initializer, key=lambda tensor: tensor.name)
    del model.graph.initializer[:]
    model.graph.initializer.extend(tensors)


def as_floats(model: ModelProto) -> None:
    """Numbers of protobuf's own instead of bytes."""
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            array = numpy_helper.to_array(tensor)
            other = helper.make_tensor(tensor.name, 1, array.shape, array.ravel().tolist())
            tensor.CopyFrom(other)


def as_constants(model: ModelProto) -> None:
    nodes = [
        helper.make_node("Constant", [], [tensor.name], value=tensor)
        for tensor in model.graph.initializer
    ] + list(model.graph.node)
    for part in (model.graph.initializer, model.graph.node):
        del part[:]
    model.graph.node.extend(nodes)


SPELLINGS = [
    as_matmul,
    as_untransposed_gemm,
    with_a_transpose,
    with_flatten,
    with_squeeze,
    with_mean,
    with_shapes,
    with_dropout,
    with_other_names,
    as_floats,
    as_constants,
]


@pytest.mark.parametrize("edit", SPELLINGS, ids=lambda edit: edit.__name__)
def test_a_network_is_read_however_it_is_spelled(
    edit: Callable[[ModelProto], None], tmp_path: Path
) -> None:
    path = edited(tmp_path, edit, "timm-y")
    onnx.checker.check_model(path)

    loaded = load(path, tmp_path / "out")

    whole = load(RECORDED / "timm-y.onnx", tmp_path / "whole")
    assert digests(loaded) == digests(whole)
    assert difference(output_of(loaded.network, images()), run(path)) < LIMIT


def run(path: Path) -> np.ndarray:
    session = onnxruntime.InferenceSession(path)
    output: np.ndarray = session.run(None, {session.get_inputs()[0].name: images().numpy()})[0]
    return output


def test_data_beside_the_file_is_read(tmp_path: Path) -> None:
    path = edited(
        tmp_path,
        lambda _: None,
        "timm-x",
        save_as_external_data=True,
        location="weights.data",
        size_threshold=0,
    )
    loaded = load(path, tmp_path / "out")

    assert digests(loaded) == digests(load(RECORDED / "timm-x.onnx", tmp_path / "whole"))
    assert {file.name for file in loaded.inspection.files} == {"edited.onnx", "weights.data"}


# What is no RegNet.


def attribute(op: str, index: int, name: str, value: Any) -> Callable[[ModelProto], None]:
    def edit(model: ModelProto) -> None:
        node = node_of(model, op, index)
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend([*kept, helper.make_attribute(name, value)])

    edit.__name__ = f"{op} {index} {name} {value}"
    return edit


def without(op: str, index: int, name: str) -> Callable[[ModelProto], None]:
    def edit(model: ModelProto) -> None:
        node = node_of(model, op, index)
        kept = [each for each in node.attribute if each.name != name]
        del node.attribute[:]
        node.attribute.extend(kept)

    edit.__name__ = f"{op} {index} without {name}"
    return edit


def operator(op: str, index: int, other: str) -> Callable[[ModelProto], None]:
    def edit(model: ModelProto) -> None:
        node_of(model, op, index).op_type = other

    edit.__name__ = f"{op} {index} as {other}"
    return edit


def behind(op: str, index: int, *kind: str) -> Callable[[ModelProto], None]:
    """One more node that everything reads instead of what it reads."""

    def edit(model: ModelProto) -> None:
        node = node_of(model, op, index)
        value = node.output[0]
        node.output[0] = "before"
        inputs = [*["before"] * (2 if kind[0] in {"Add", "Mul"} else 1)]
        more = helper.make_node(kind[0], inputs, [value], name="more")
        replaced(model, node, deepcopy(node), more)

    edit.__name__ = f"{kind[0]} behind {op} {index}"
    return edit


def in_front(model: ModelProto) -> None:
    """Pixels are divided by 255 first."""
    scale = constant(model, "scale", 255.0, np.float32)
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["scaled" if name == image else name for name in node.input]
    nodes = [helper.make_node("Div", [image, scale], ["scaled"], name="front"), *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def read_twice(model: ModelProto) -> None:
    """A second output, of something inside."""
    inside = node_of(model, "Conv", 3).output[0]
    model.graph.output.append(helper.make_tensor_value_info(inside, 1, None))


def gate_of_another(model: ModelProto) -> None:
    """The gates of two blocks of one width, exchanged."""
    first, second = node_of(model, "Mul", -2), node_of(model, "Mul", -1)
    gates = [
        next(i for i, name in enumerate(node.input) if "sigmoid" in name)
        for node in (first, second)
    ]
    second.input[gates[1]] = first.input[gates[0]]


def added_to_another(model: ModelProto) -> None:
    """The sum of a block takes the value before the one before it."""
    last = node_of(model, "Add", -1)
    before = node_of(model, "Add", -2)
    relu = next(node for node in model.graph.node if node.input[0] == before.output[0])
    last.input[:] = [before.output[0] if name == relu.output[0] else name for name in last.input]


def of_one_channel(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1


def softmax(model: ModelProto) -> None:
    last = model.graph.output[0].name
    node = helper.make_node("Softmax", [last], ["classes"], name="softmax")
    model.graph.node.append(node)
    model.graph.output[0].name = "classes"


def in_float16(model: ModelProto) -> None:
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["half" if name == image else name for name in node.input]
    cast = helper.make_node("Cast", [image], ["half"], name="cast", to=onnx.TensorProto.FLOAT16)
    nodes = [cast, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


PLAIN, FOLDED_FILE = "torch-plain-y", "timm-y"

WRONG: list[tuple[str, Callable[[ModelProto], None], str]] = [
    (FOLDED_FILE, attribute("Conv", 2, "strides", [1, 1]), r"node Conv '.*' has stride 2 where"),
    (FOLDED_FILE, attribute("Conv", 3, "strides", [1, 2]), r"node Conv '.*' has strides 1, 2"),
    (FOLDED_FILE, attribute("Conv", 0, "pads", [0, 0, 1, 1]), r"has pads 0, 0, 1, 1 where 1, 1"),
    (FOLDED_FILE, attribute("Conv", 0, "pads", [0, 0, 0, 0]), r"has pads 0, 0, 0, 0 where 1, 1"),
    (FOLDED_FILE, without("Conv", 0, "pads"), r"has no pads where 1 zeros belong"),
    (FOLDED_FILE, attribute("Conv", 0, "auto_pad", "SAME_UPPER"), r"has auto_pad SAME_UPPER"),
    (FOLDED_FILE, attribute("Conv", 0, "dilations", [2, 2]), r"has dilations 2, 2"),
    (FOLDED_FILE, attribute("Conv", -1, "group", 2), r"node Conv '.*' has group 2 where"),
    (FOLDED_FILE, attribute("Conv", -1, "odd", 2), r"has the attribute odd, which is not known"),
    (FOLDED_FILE, attribute("Gemm", 0, "alpha", 0.5), r"node Gemm '.*' has alpha 0.5 where 1"),
    (FOLDED_FILE, attribute("Gemm", 0, "transA", 1), r"node Gemm '.*' has transA 1 where 0"),
    (PLAIN, attribute("BatchNormalization", 2, "epsilon", 1e-3), r"has epsilon 0.001 where 1e-05"),
    (PLAIN, attribute("BatchNormalization", 2, "training_mode", 1), r"has training_mode 1 where"),
    (FOLDED_FILE, behind("Relu", 0, "Relu"), r"'more' ends in no activation"),
    (FOLDED_FILE, behind("Relu", -1, "Sigmoid"), r"'more' ends in no activation"),
    (FOLDED_FILE, behind("Conv", -1, "Relu"), r"node Relu 'more' stands where"),
    (FOLDED_FILE, behind("Conv", 2, "Add"), r"ends in no activation"),
    (FOLDED_FILE, behind("Add", -1, "Relu"), r"'.*' ends in no activation"),
    (FOLDED_FILE, operator("Relu", 2, "Tanh"), r"ends in no activation"),
    (FOLDED_FILE, operator("Relu", 0, "LeakyRelu"), r"LeakyRelu '.*' is of a kind that no RegNet"),
    (FOLDED_FILE, operator("Relu", 0, "Selu"), r"computes selu, and a RegNet has one"),
    (FOLDED_FILE, operator("Sigmoid", 0, "HardSigmoid"), r"HardSigmoid '.*' is of a kind"),
    (FOLDED_FILE, operator("Sigmoid", 0, "Relu"), r"computes relu in squeeze-and-excitation"),
    (FOLDED_FILE, operator("Add", 0, "Mul"), r"node Mul '.*' stands where an activation or"),
    (FOLDED_FILE, in_front, r"node Div 'front' ends in no activation"),
    (FOLDED_FILE, in_float16, r"node Cast 'cast' computes in another type than float32"),
    (FOLDED_FILE, read_twice, r"node Conv '.*' makes an output, but is no end of a RegNet"),
    (FOLDED_FILE, gate_of_another, r"(has no place in|stands where|no RegNet|is followed by)"),
    (FOLDED_FILE, added_to_another, r"node Add '.*'"),
    (FOLDED_FILE, softmax, r"node Softmax 'softmax' is of a kind that no RegNet has"),
    (FOLDED_FILE, of_one_channel, r"node Conv '.*' reads 3 channels where the images have 1"),
]


@pytest.mark.parametrize(
    ("name", "edit", "message"), WRONG, ids=[edit.__name__ for _, edit, _ in WRONG]
)
def test_what_is_no_regnet_is_refused_by_its_node(
    name: str, edit: Callable[[ModelProto], None], message: str, tmp_path: Path
) -> None:
    path = edited(tmp_path, edit, name)

    with (
        pytest.raises(InputError, match=message) as caught,
        inspected(path, SourceOptions()),
    ):
        pass
    assert str(caught.value).startswith("edited.onnx")


def test_every_attribute_of_every_convolution_is_looked_at(tmp_path: Path) -> None:
    """No stride, pad or group can be another one without a refusal."""
    whole = onnx.load(RECORDED / f"{PLAIN}.onnx")
    count = sum(node.op_type == "Conv" for node in whole.graph.node)
    for index in range(count):
        for name in ("strides", "pads", "group", "dilations"):
            stated = {
                a.name: helper.get_attribute_value(a)
                for a in node_of(whole, "Conv", index).attribute
            }
            value = stated.get(
                name, {"strides": [1, 1], "dilations": [1, 1], "group": 1}.get(name, [0] * 4)
            )
            if (index, name) == (0, "strides"):
                continue  # a stem of another stride is an AnyNet's
            other = value + 1 if isinstance(value, int) else [number + 1 for number in value]
            path = edited(tmp_path, attribute("Conv", index, name, other), PLAIN)
            with pytest.raises(InputError, match="node Conv"), inspected(path, SourceOptions()):
                pass


def test_two_kernels_exchanged_change_what_comes_out(tmp_path: Path) -> None:
    """Which is a RegNet as well, but another one."""

    def exchange(model: ModelProto) -> None:
        convs = [node for node in model.graph.node if node.op_type == "Conv"]
        shapes = [tensor_of(model, conv.input[1]).shape for conv in convs]
        first, second = next(
            (a, b)
            for a in range(len(convs))
            for b in range(a + 1, len(convs))
            if shapes[a] == shapes[b]
        )
        one, other = convs[first].input[1], convs[second].input[1]
        convs[first].input[1], convs[second].input[1] = other, one

    path = edited(tmp_path, exchange, FOLDED_FILE)
    changed = load(path, tmp_path / "out")

    whole = load(RECORDED / f"{FOLDED_FILE}.onnx", tmp_path / "whole")
    assert digests(changed) == digests(whole)
    assert difference(output_of(changed.network, images()), run(path)) < LIMIT
    outputs = (output_of(loaded.network, images()) for loaded in (changed, whole))
    assert difference(*outputs) > 100 * LIMIT


def test_a_checkpoint_is_not_read_as_onnx(tmp_path: Path) -> None:
    in_transformers.classifier().save_pretrained(tmp_path)

    with (
        pytest.raises(InputError, match=r"is not a onnx RegNet"),
        inspected(tmp_path, SourceOptions("onnx")),
    ):
        pass


def test_onnx_is_in_the_list() -> None:
    assert FAMILIES["onnx"].family.keymap.framework == "onnx"
