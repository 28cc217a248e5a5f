"""Programs of torch.export as sources: of four frameworks, in every form that torch gives them."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch.export import Dim, ExportedProgram

from converters.checkpoint import open_checkpoint
from converters.errors import InputError
from converters.families.graph_network import network_of
from converters.families.options import SourceOptions
from converters.jobs.compare import compare
from converters.jobs.convert import convert
from converters.weights.inspection import inspected
from tests.converters.checkpoint.programs import changed, saved_as_2_5, saved_as_2_8
from tests.converters.loading import Loaded, load
from tests.oracles import pycls as in_pycls
from tests.oracles import timm as in_timm
from tests.oracles import torchvision as in_torchvision
from tests.oracles import transformers as in_transformers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.checkpoint.graph import Graph, Node

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")

LIMIT = 1e-5
"""Largest difference in float32, in units of the largest output."""

BATCH = ({0: Dim("batch")},)
ANY = ({0: Dim.AUTO, 2: Dim.AUTO, 3: Dim.AUTO},)


def odd() -> Any:
    fields: dict[str, Any] = {"hidden_act": "gelu", "num_labels": 7, "num_channels": 4}
    return in_transformers.twin(
        in_transformers.classifier(downsample_in_first_stage=False, **fields)
    )


NETWORKS: dict[str, Callable[[], Any]] = {
    "timm-x": lambda: in_timm.build(attention=False, num_classes=5),
    "torchvision-y": in_torchvision.build,
    "pycls-y": lambda: in_pycls.build(in_pycls.TINY, classes=3),
    "transformers-odd": odd,
}
OPTIONS: dict[str, dict[str, Any]] = {
    "timm-x": {"dynamic_shapes": ANY},
    "torchvision-y": {"dynamic_shapes": BATCH, "strict": True},
    "pycls-y": {"dynamic_shapes": BATCH},
    "transformers-odd": {},
}


@cache
def network(name: str) -> Any:
    return NETWORKS[name]().eval()


def pixels(name: str) -> torch.Tensor:
    steps = torch.arange(2 * 4 * 64 * 64, dtype=torch.float64)
    whole = (2 * torch.sin(steps * steps * 0.37)).float().reshape(2, 4, 64, 64)
    return whole[:, : 4 if name.endswith("odd") else 3]


@cache
def program(name: str) -> ExportedProgram:
    return torch.export.export(network(name), (pixels(name),), **OPTIONS[name])


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Files of torch.export.save, each made once."""
    folder = tmp_path_factory.mktemp("programs")

    def save(name: str, *, decomposed: bool = False) -> Path:
        path = folder / f"{name}-{decomposed}.pt2"
        if not path.exists():
            whole = program(name)
            torch.export.save(whole.run_decompositions() if decomposed else whole, path)
        return path

    return save


@torch.inference_mode()
def outputs(model: Any, name: str) -> np.ndarray:
    found = model(pixels(name))
    logits: np.ndarray = (found if isinstance(found, torch.Tensor) else found.logits).numpy()
    return logits


def digests(tensors: dict[str, torch.Tensor]) -> list[str]:
    return sorted(
        sha256(tensor.detach().numpy().tobytes()).hexdigest() for tensor in tensors.values()
    )


def require_equal(loaded: Loaded, name: str) -> None:
    assert digests(loaded.network.state_dict()) == digests(network(name).state_dict())
    theirs = outputs(network(name), name)
    difference = np.abs(outputs(loaded.network, name) - theirs).max() / np.abs(theirs).max()
    assert difference < LIMIT


DECOMPOSED = ("torchvision-y", "transformers-odd")


@pytest.mark.parametrize(
    ("name", "decomposed"),
    [*((name, False) for name in NETWORKS), *((name, True) for name in DECOMPOSED)],
)
def test_every_weight_of_a_program_is_the_framework_s(
    name: str, decomposed: bool, saved: Callable[..., Path], tmp_path: Path
) -> None:
    loaded = load(saved(name, decomposed=decomposed), tmp_path)

    assert loaded.source.framework == "pt2"
    assert loaded.inspection.container == "pt2"
    assert loaded.decision("graph").startswith("proven, ")
    require_equal(loaded, name)


@pytest.mark.parametrize("save", [saved_as_2_5, saved_as_2_8])
def test_older_layouts_are_read_as_torch_reads_them(
    save: Callable[[ExportedProgram, Path], Path], tmp_path: Path
) -> None:
    path = save(program("timm-x"), tmp_path / "old.pt2")

    theirs = torch.export.load(path).state_dict
    assert digests(dict(theirs)) == digests(network("timm-x").state_dict())
    require_equal(load(path, tmp_path / "out"), "timm-x")


def test_a_converted_folder_s_own_program_is_a_source(
    saved: Callable[[str], Path], tmp_path: Path
) -> None:
    """What was converted from a program is exported as one, and that is converted again."""
    names = tuple(f"class {index}" for index in range(network("timm-x").num_classes))
    convert(saved("timm-x"), tmp_path / "out", formats=("pt2",), labels=names, verify=False)

    loaded = load(tmp_path / "out" / "model.pt2", tmp_path / "again")

    require_equal(loaded, "timm-x")
    assert loaded.source.labels == names
    topics = {made.topic: made.reason for made in loaded.source.decisions}
    assert topics["evaluation transform"] == "the .pt2 file's own metadata"


# Attributes.


@cache
def graph_of(path: Path) -> Graph:
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.graph is not None
        return checkpoint.graph


def with_attribute(graph: Graph, node: Node, **attributes: Any) -> Graph:
    other = replace(node, attributes={**node.attributes, **attributes})
    return replace(graph, nodes=tuple(other if n is node else n for n in graph.nodes))


WRONG: dict[str, dict[str, Any]] = {
    "conv2d": {"stride": (3, 3), "padding": (2, 2), "dilation": (2, 2), "groups": 11},
    "convolution": {
        "stride": (3, 3),
        "padding": (2, 2),
        "dilation": (2, 2),
        "groups": 11,
        "transposed": True,
        "output_padding": (1, 1),
    },
    "batch_norm": {"eps": 1e-3, "training": True},
    "_native_batch_norm_legit_no_training": {"eps": 1e-3},
    "adaptive_avg_pool2d": {"output_size": (2, 2)},
    "mean": {"dim": (2,), "keepdim": "the value x", "dtype": "float16"},
    "add": {"alpha": 2},
    "addmm": {"alpha": 2, "beta": 0.5},
    "flatten": {"start_dim": 0, "end_dim": 1},
    "view": {"size": (1, 2, 3)},
    "permute": {"dims": (0, 1)},
    "gelu": {"approximate": "sigmoid"},
    "relu": {"inplace": True},
    "sigmoid": {"hard": True},
}


REFUSED = r"^model\.pt2: (its node aten\.\w+ '.*' |lacks the shortcut that a RegNet of its)"


@pytest.mark.parametrize("decomposed", [False, True], ids=["as traced", "decomposed"])
@pytest.mark.parametrize("name", DECOMPOSED)
def test_every_attribute_of_every_node_is_looked_at(
    name: str, decomposed: bool, saved: Callable[..., Path]
) -> None:
    graph = graph_of(saved(name, decomposed=decomposed))
    network_of(graph, "model.pt2")
    changes, stem = 0, next(node for node in graph.nodes if node.op.startswith("conv"))
    for node in graph.nodes:
        for attribute, value in WRONG.get(node.op, {}).items():
            if (node, attribute) == (stem, "stride"):
                continue  # a stem of another stride is an AnyNet's
            wrong = with_attribute(graph, node, **{attribute: value})
            with pytest.raises(InputError, match=REFUSED):
                network_of(wrong, "model.pt2")
            changes += 1
    assert changes > 100


SELU = {"alpha": 1.6732632423543772, "scale": 1.0507009873554805}


def test_selu_is_read_as_it_is_decomposed(saved: Callable[..., Path]) -> None:
    graph = graph_of(saved("timm-x"))

    def with_elu(**attributes: Any) -> Graph:
        nodes = (replace(n, op="elu", attributes=attributes) for n in graph.nodes if n.op == "relu")
        others = {node.outputs: node for node in nodes}
        return replace(graph, nodes=tuple(others.get(n.outputs, n) for n in graph.nodes))

    assert network_of(with_elu(**SELU), "model.pt2").config.hidden_act == "selu"
    for attributes in ({}, {**SELU, "alpha": 1.0}, {**SELU, "scale": 1.0}):
        with pytest.raises(InputError, match=r"its node aten\.elu '.*'"):
            network_of(with_elu(**attributes), "model.pt2")


def node_of(graph: Any, target: str, index: int = 0) -> Any:
    nodes = [n for n in graph["graph_module"]["graph"]["nodes"] if f".{target}." in n["target"]]
    return nodes[index]


def argument(graph: Any, target: str, name: str, **value: Any) -> None:
    for given in node_of(graph, target)["inputs"]:
        if given["name"] == name:
            given["arg"] = value


def reads_what_was_overwritten(graph: Any) -> None:
    """The sum of a block takes a value that `relu_` has written over."""
    relu = node_of(graph, "relu_")["inputs"][0]["arg"]["as_tensor"]["name"]
    argument(graph, "add", "other", as_tensor={"name": relu})


EDITS: list[tuple[Callable[[Any], object], str]] = [
    (
        lambda g: argument(g, "conv2d", "stride", as_ints=[2, 1]),
        r"aten.conv2d 'conv2d' has strides 2, 1",
    ),
    (lambda g: argument(g, "conv2d", "padding", as_ints=[0, 0]), r"has padding 0, 0 where 1, 1"),
    (lambda g: argument(g, "conv2d", "stride", as_tensor={"name": "x"}), r"has stride the value x"),
    (
        lambda g: argument(g, "batch_norm", "eps", as_float=1e-3),
        r"has epsilon 0.001 where 1e-05 bel",
    ),
    (lambda g: argument(g, "batch_norm", "training", as_bool=True), r"has training True where"),
    (lambda g: argument(g, "linear", "bias", as_none=True), r"is a classifier without a bias"),
    (lambda g: node_of(g, "relu").update(target="torch.ops.aten.tanh.default"), r"activation"),
    (lambda g: node_of(g, "sigmoid").update(target="torch.ops.aten.hardsigmoid.default"), r"hards"),
    (lambda g: node_of(g, "sigmoid").update(target="torch.ops.mine.sigmoid.default"), r"mine.sigm"),
    (reads_what_was_overwritten, r"reads '.*', which aten.relu '.*' has overwritten"),
]


@pytest.mark.parametrize(("edit", "message"), EDITS)
def test_what_is_no_regnet_is_refused_by_its_node(
    edit: Callable[[Any], object], message: str, saved: Callable[[str], Path], tmp_path: Path
) -> None:
    path = changed(saved("torchvision-y"), tmp_path / "wrong.pt2", edit)

    with (
        pytest.raises(InputError, match=rf"^wrong\.pt2: its node .*{message}"),
        inspected(path, SourceOptions()),
    ):
        pass


def exchange(graph: Any) -> None:
    """Two kernels of one shape change their places, whatever they are called."""
    values = graph["graph_module"]["graph"]["tensor_values"]
    kernels = [
        node["inputs"][1]["arg"]["as_tensor"]
        for node in graph["graph_module"]["graph"]["nodes"]
        if ".conv2d." in node["target"]
    ]
    shapes = [str(values[kernel["name"]]["sizes"]) for kernel in kernels]
    first, second = next(
        (a, b) for a in range(9) for b in range(a + 1, len(kernels)) if shapes[a] == shapes[b]
    )
    one, other = kernels[first]["name"], kernels[second]["name"]
    kernels[first]["name"], kernels[second]["name"] = other, one


def test_weights_are_placed_by_the_graph(saved: Callable[[str], Path], tmp_path: Path) -> None:
    path = changed(saved("torchvision-y"), tmp_path / "exchanged.pt2", exchange)

    loaded, whole = load(path, tmp_path / "a"), load(saved("torchvision-y"), tmp_path / "b")
    differ = [
        name
        for name, tensor in whole.network.state_dict().items()
        if not torch.equal(tensor, loaded.network.state_dict()[name])
    ]
    assert len(differ) == 2
    theirs = torch.export.load(path).module()(pixels("torchvision-y")).detach().numpy()
    ours = outputs(loaded.network, "torchvision-y")
    assert np.abs(ours - theirs).max() / np.abs(theirs).max() < LIMIT


def test_compare_takes_programs(saved: Callable[..., Path]) -> None:
    comparison = compare(saved("torchvision-y"), saved("torchvision-y", decomposed=True))

    assert comparison.same
    assert comparison.weights.identical == 142
    assert comparison.weights.note == "graph proven"
