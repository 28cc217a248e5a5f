"""The ONNX exporter, judged by the onnx checker, ONNX Runtime, OpenVINO and the float64 oracle."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from transformers import RegNetConfig as TheirConfig
from transformers import RegNetForImageClassification as TheirClassifier

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.onnx.export import REVISION
from converters.formats.onnx.runtime import OnnxRuntime
from regnet.config import RegNetConfig
from tests.converters.formats.onnx_helpers import (
    ALLOWED_RATIO,
    SMALL,
    error_ratio,
    exported,
    images,
    initializers,
    openvino_runtime,
    recast,
    state_dict,
)
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from tests.converters.formats.onnx_helpers import Runtime

CHECKOUT = Path(__file__).parents[3]
NORM_LEAVES = ("weight", "bias", "running_mean", "running_var")

NETWORKS_UNDER_TEST: dict[str, dict[str, Any]] = {
    "x": {"layer_type": "x"},
    "y": {"layer_type": "y"},
    "deep": {"layer_type": "y", "depths": (2, 5, 7)},
    "gelu": {"layer_type": "x", "hidden_act": "gelu"},
    "gelu_new": {"layer_type": "y", "hidden_act": "gelu_new"},
    "selu": {"layer_type": "y", "hidden_act": "selu"},
    "silu": {"layer_type": "x", "hidden_act": "silu"},
    "full first stage": {"layer_type": "y", "downsample_in_first_stage": False},
    "same width": {"layer_type": "x", "embedding_size": 16, "downsample_in_first_stage": False},
    "grey": {"layer_type": "y", "num_channels": 1},
    "no labels": {"layer_type": "y", "num_labels": 0},
    "headless": {"layer_type": "y"},
}
FORMS = pytest.mark.parametrize("share", [False, True], ids=["self-contained", "sharing"])
CASES = pytest.mark.parametrize("case", NETWORKS_UNDER_TEST)


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], ConvertedFolder]:
    folders: dict[str, ConvertedFolder] = {}

    def build(case: str) -> ConvertedFolder:
        if case not in folders:
            config = RegNetConfig(**SMALL | NETWORKS_UNDER_TEST[case])
            path = tmp_path_factory.mktemp("folder")
            folders[case] = random_folder(path, config, classifier=case != "headless")
        return folders[case]

    return build


@FORMS
@CASES
def test_the_checker_finds_nothing_to_object_to(
    folder_of: Callable[[str], ConvertedFolder], case: str, share: bool
) -> None:
    onnx.checker.check_model(exported(folder_of(case), share=share), full_check=True)


@pytest.mark.parametrize("runtime", [OnnxRuntime, openvino_runtime])
@FORMS
@CASES
def test_runtimes_are_as_exact_as_pytorch(
    folder_of: Callable[[str], ConvertedFolder],
    case: str,
    share: bool,
    runtime: Callable[[Path], Runtime],
) -> None:
    folder = folder_of(case)
    assert error_ratio(folder, runtime(exported(folder, share=share))) <= ALLOWED_RATIO


def _swap_two_kernels(model: onnx.ModelProto) -> None:
    block = [t for t in model.graph.initializer if "stages.1.layers.1.layer" in t.name]
    first, second = [t for t in block if list(t.dims) == [24, 24, 1, 1]]
    first.name, second.name = second.name, first.name


def _drop_a_bias(model: onnx.ModelProto) -> None:
    model.graph.node[0].input.pop()


def _pad_on_one_side(model: onnx.ModelProto) -> None:
    pads = next(a for a in model.graph.node[0].attribute if a.name == "pads")
    pads.ints[:] = [0, 0, 2, 2]


@pytest.mark.parametrize("damage", [_swap_two_kernels, _drop_a_bias, _pad_on_one_side])
def test_a_damaged_file_is_not_as_exact(
    folder_of: Callable[[str], ConvertedFolder],
    tmp_path: Path,
    damage: Callable[[onnx.ModelProto], None],
) -> None:
    folder = folder_of("y")
    model = onnx.load(exported(folder, share=False))
    damage(model)
    onnx.save(model, tmp_path / "damaged.onnx")
    assert error_ratio(folder, OnnxRuntime(tmp_path / "damaged.onnx")) > 100


@FORMS
def test_another_epsilon_is_not_as_exact(
    folder_of: Callable[[str], ConvertedFolder], share: bool
) -> None:
    folder = folder_of("y")
    other = ConvertedFolder(folder.path)
    other.config.norm_eps = 2e-5
    assert error_ratio(folder, OnnxRuntime(exported(other, share=share))) > 10


def test_a_fold_is_the_float64_fold_rounded_once(
    folder_of: Callable[[str], ConvertedFolder],
) -> None:
    folder = folder_of("y")
    state = {name: array.astype(np.float64) for name, array in state_dict(folder).items()}
    written = initializers(exported(folder, share=False))
    kernels = [name for name in state if name.endswith(".convolution.weight")]
    for name in kernels:
        module = name.removesuffix(".convolution.weight")
        norm = {leaf: state[f"{module}.normalization.{leaf}"] for leaf in NORM_LEAVES}
        deviation = np.sqrt(norm["running_var"] + 1e-5)
        weight = np.einsum("oihw,o,o->oihw", state[name], norm["weight"], 1 / deviation)
        bias = norm["bias"] - norm["running_mean"] / deviation * norm["weight"]
        for folded, exact in (("weight", weight), ("bias", bias)):
            ours = written.pop(f"{module}.folded_{folded}")
            assert ours.dtype == np.float32
            # Half a unit in the last place is rounding; beyond it the float64s may differ.
            assert np.all(np.abs(ours - exact) <= 0.501 * np.spacing(np.abs(ours)))
    assert len(kernels) > 10
    assert {name for name in state if ".normalization." not in name} - set(kernels) == set(written)
    for name, array in written.items():
        assert array.tobytes() == state_dict(folder)[name].tobytes()


@FORMS
@pytest.mark.parametrize("layer_type", ["x", "y"])
def test_nodes_are_called_like_the_modules_of_transformers(
    tmp_path: Path, share: bool, layer_type: str
) -> None:
    fields = SMALL | {"layer_type": layer_type}
    path = exported(random_folder(tmp_path, RegNetConfig(**fields)), share=share)
    theirs = TheirClassifier(TheirConfig(**fields))
    modules = {
        name: type(module).__name__
        for name, module in theirs.named_modules()
        if not list(module.children()) and not isinstance(module, torch.nn.Identity)
    }
    if not share:
        modules = {name: kind for name, kind in modules.items() if kind != "BatchNorm2d"}
    nodes = {node.name: node.op_type for node in onnx.load(path).graph.node}
    own = {name for name in nodes if not name.endswith((".add", ".mul"))}
    assert own == set(modules)
    operators = {
        "Conv2d": "Conv",
        "BatchNorm2d": "BatchNormalization",
        "ReLU": "Relu",
        "Sigmoid": "Sigmoid",
        "AdaptiveAvgPool2d": "GlobalAveragePool",
        "Flatten": "Flatten",
        "Linear": "Gemm",
    }
    assert {name: operators[kind] for name, kind in modules.items()} == {n: nodes[n] for n in own}


@FORMS
def test_header_and_metadata_say_what_a_deployment_needs(tmp_path: Path, share: bool) -> None:
    labels = {0: "cat", 1: "größer Hund", 10: "c", **{index: f"n{index}" for index in range(2, 10)}}
    config = RegNetConfig(**SMALL | {"num_labels": None, "id2label": labels})
    folder = random_folder(tmp_path, config)
    preprocessing = {"size": {"shortest_edge": 64}, "image_mean": [0.5, 0.25, 0.125]}
    text = json.dumps(preprocessing)
    (tmp_path / "preprocessor_config.json").write_text(text, encoding="utf-8")
    model = onnx.load(exported(folder, share=share), load_external_data=False)

    assert (model.ir_version, model.producer_name, model.producer_version) == (
        8,
        "regnet-converters",
        REVISION,
    )
    assert [(opset.domain, opset.version) for opset in model.opset_import] == [("", 18)]
    metadata = {entry.key: entry.value for entry in model.metadata_props}
    assert list(metadata) == sorted(metadata)
    assert {int(k): v for k, v in json.loads(metadata["id2label"]).items()} == labels
    assert json.loads(metadata["preprocessing"]) == preprocessing
    assert metadata["model_type"] == "regnet"
    assert metadata["architecture"] == "RegNetForImageClassification"
    assert ("weights_sha256" in metadata) == share


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("y", {"logits": ["batch", 10]}),
        ("no labels", {"logits": ["batch", 40]}),
        (
            "headless",
            {
                "last_hidden_state": ["batch", 40, "feature_height", "feature_width"],
                "pooler_output": ["batch", 40, 1, 1],
            },
        ),
    ],
)
def test_inputs_and_outputs_have_names_and_symbolic_sizes(
    folder_of: Callable[[str], ConvertedFolder], case: str, expected: dict[str, list[object]]
) -> None:
    graph = onnx.load(exported(folder_of(case), share=False)).graph
    assert signature(graph.input) == {"pixel_values": ["batch", 3, "height", "width"]}
    assert signature(graph.output) == expected


def signature(values: Iterable[onnx.ValueInfoProto]) -> dict[str, list[object]]:
    assert all(v.type.tensor_type.elem_type == onnx.TensorProto.FLOAT for v in values)
    return {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in values
    }


@FORMS
def test_equal_folders_give_equal_bytes_and_no_path_is_inside(tmp_path: Path, share: bool) -> None:
    config = RegNetConfig(**SMALL)
    folders = [random_folder(tmp_path / name, config) for name in ("one", "two")]
    first, second = (exported(folder, share=share).read_bytes() for folder in folders)
    assert first == second == exported(folders[0], share=share).read_bytes()
    for trace in (str(CHECKOUT), str(tmp_path), str(Path.home()), sys.prefix):
        assert trace.encode() not in first


def test_the_streamed_file_has_every_field_once_and_none_unknown(
    folder_of: Callable[[str], ConvertedFolder],
) -> None:
    path = exported(folder_of("y"), share=False)
    assert len(onnx.load(path).SerializeToString()) == path.stat().st_size


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floats_are_cast_when_self_contained(
    folder_of: Callable[[str], ConvertedFolder], tmp_path: Path, dtype: torch.dtype
) -> None:
    folder = recast(folder_of("y"), tmp_path, dtype)
    assert error_ratio(folder, OnnxRuntime(exported(folder, share=False))) <= ALLOWED_RATIO


def test_integers_are_refused_before_a_file_is_begun(tmp_path: Path) -> None:
    folder = random_folder(tmp_path, RegNetConfig(**SMALL))
    name = "classifier.1.bias"
    weights = tmp_path / "model.safetensors"
    data = weights.read_bytes()
    entry = f'"{name}":{{"dtype":"F32"'.encode()
    assert entry in data
    weights.write_bytes(data.replace(entry, entry.replace(b"F32", b"I32")))
    with pytest.raises(InputError, match=rf"model.safetensors holds {name} as int32"):
        exported(folder, share=False)
    assert not list(tmp_path.glob("*.onnx"))


def test_the_runtime_says_what_it_is_and_repeats_itself(
    folder_of: Callable[[str], ConvertedFolder], capfd: pytest.CaptureFixture[str]
) -> None:
    folder = folder_of("y")
    path = exported(folder, share=False)
    pixels = next(images(folder))
    first, second = OnnxRuntime(path), OnnxRuntime(path)
    assert first.name.startswith("onnxruntime 1.")
    assert first.precision == "float32"
    assert first(pixels)["logits"].tobytes() == second(pixels)["logits"].tobytes()
    assert capfd.readouterr() == ("", "")
