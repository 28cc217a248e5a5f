"""ONNX in int8: right on pictures that it never saw, proven, and the same every time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from converters import predict
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import PHOTOGRAPHS, photographs, verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.onnx.calibration import measured
from converters.formats.onnx.form import GraphForm
from converters.formats.onnx.graph import build_graph
from converters.formats.onnx.int8 import details, export_int8
from converters.formats.onnx.int8_graph import Grid, Int8Plan, in_integers, layer_names
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.openvino import OpenVinoInt8Runtime
from converters.formats.registry import FORMATS
from converters.jobs.export import export
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth, run
from converters.parity.verdict import judge
from regnet.architecture import BASE_PREFIX
from regnet.config import RegNetConfig
from tests.converters.demo import sample_images
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.networks import random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from onnx import ModelProto

INT8 = FORMATS["onnx-int8"].file_name
STEM = f"{BASE_PREFIX}embedder.embedder.folded_weight"


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A hundred; the first half is calibrated on, the second is not."""
    return [path for path, _ in sample_images(tmp_path_factory.mktemp("pictures"), 100)]


@pytest.fixture(scope="module")
def artefact(
    demo_folder: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("int8") / "model_quantized.onnx"
    export_int8(ConvertedFolder(demo_folder), path, ExportOptions(calibration_images=pictures[:50]))
    return path


@pytest.fixture(scope="module")
def truth(demo_folder: Path, pictures: list[Path]) -> Truth:
    folder = ConvertedFolder(demo_folder)
    inputs = verification_inputs(folder.config.num_channels, folder.image_size)
    return Truth(folder, inputs | {PHOTOGRAPHS: photographs(folder, pictures[50:])})


def failures(truth: Truth, path: Path, precision: str = "int8") -> list[str]:
    """What is wrong with the numbers that come out."""
    runtime = OnnxRuntime(path)
    assert runtime.precision == precision
    outputs = run(runtime, truth.inputs_for(precision))
    measured = judge(outputs, truth.units(precision), truth.oracle, precision)
    return [m.failure for m in measured if m.failure]


def test_verification_passes_and_records_how_it_was_quantised(
    folder: Path, pictures: list[Path]
) -> None:
    report = export(folder, ["onnx-int8"], calibration_images=pictures)
    assert report
    verdict = report.verdicts[-1]
    assert (verdict.artefact, verdict.precision, verdict.passed) == (INT8, "int8", True)
    assert verdict.tensors
    assert verdict.tensors.recomputed == 92
    record = json.loads((folder / "conversion.json").read_text())["files"][INT8]
    assert record["quantisation"] == {
        "calibration_images": 100,
        "agreement": 1.0,
        "top1_loss": 0.0,
        "float_layers": [],
    }


def test_it_keeps_the_classes_of_pictures_that_it_was_not_calibrated_on(
    artefact: Path, truth: Truth
) -> None:
    assert not failures(truth, artefact)
    logits = OnnxRuntime(artefact)(truth.inputs[PHOTOGRAPHS])["logits"]
    best = truth.oracle[PHOTOGRAPHS]["logits"].argmax(axis=1)
    assert (logits.argmax(axis=1) == best).mean() >= 0.98


def test_openvino_runs_it_and_is_judged_in_int8s_unit(artefact: Path, truth: Truth) -> None:
    pytest.importorskip("openvino")
    runtime = OpenVinoInt8Runtime(artefact)
    outputs = run(runtime, truth.inputs_for("int8"))
    judged = judge(outputs, truth.units("int8"), truth.oracle, runtime.precision)
    assert runtime.precision == "int8"
    assert not [m.failure for m in judged if m.failure]
    shifted = {name: {"logits": 1.3 * out["logits"]} for name, out in outputs.items()}
    assert all(m.failure for m in judge(shifted, truth.units("int8"), truth.oracle, "int8"))


def test_every_layer_is_computed_in_integers(artefact: Path, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(artefact, options, providers=["CPUExecutionProvider"])
    operators = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    assert {"QLinearConv", "QLinearAdd", "QLinearMul", "QGemm"} <= set(operators)
    assert not {"Conv", "Gemm", "Add", "Mul", "Relu"} & set(operators)


def test_it_is_a_third_of_the_size(artefact: Path, demo_folder: Path) -> None:
    onnx.checker.check_model(artefact, full_check=True)
    assert artefact.stat().st_size < (demo_folder / "model.onnx").stat().st_size * 0.37


def test_two_exports_give_the_same_bytes(
    artefact: Path, demo_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    export_int8(
        ConvertedFolder(demo_folder),
        tmp_path / "b.onnx",
        ExportOptions(calibration_images=pictures[:50]),
    )
    assert (tmp_path / "b.onnx").read_bytes() == artefact.read_bytes()


def test_sizes_can_be_fixed_and_the_opset_chosen(
    demo_folder: Path, pictures: list[Path], tmp_path: Path
) -> None:
    folder, path = ConvertedFolder(demo_folder), tmp_path / "model.onnx"
    form = GraphForm(opset=21, batch=1, height=folder.image_size, width=folder.image_size)
    export_int8(folder, path, ExportOptions(form=form, calibration_images=pictures[:5]))
    assert OnnxRuntime(path).sizes == (1, folder.image_size, folder.image_size)
    assert certify(folder, "onnx-int8", path).failure is None


@pytest.fixture(scope="module")
def symmetric(
    demo_folder: Path, pictures: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("symmetric") / "model_quantized.onnx"
    options = ExportOptions(calibration_images=pictures[:50], symmetric=True)
    export_int8(ConvertedFolder(demo_folder), path, options)
    return path


def test_the_symmetric_form_is_what_tensorrt_takes(symmetric: Path) -> None:
    """Its parser refuses zero points other than 0, uint8, and integers that are not int8."""
    model = onnx.load(symmetric)
    onnx.checker.check_model(model, full_check=True)
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    kinds = {"QuantizeLinear", "DequantizeLinear"}
    zeros = [arrays[node.input[2]] for node in model.graph.node if node.op_type in kinds]
    assert len(zeros) > 60
    assert all(zero.dtype == np.int8 and not zero.any() for zero in zeros)
    integers = {array.dtype for array in arrays.values() if array.dtype.kind in "iu"}
    assert integers == {np.dtype(np.int8)}


def test_the_symmetric_form_is_proven_and_right(
    symmetric: Path, demo_folder: Path, truth: Truth
) -> None:
    assert not failures(truth, symmetric, "symmetric int8")
    certificate = certify(ConvertedFolder(demo_folder), "onnx-int8", symmetric)
    assert certificate.failure is None
    logits = OnnxRuntime(symmetric)(truth.inputs[PHOTOGRAPHS])["logits"]
    best = truth.oracle[PHOTOGRAPHS]["logits"].argmax(axis=1)
    assert (logits.argmax(axis=1) == best).mean() >= 0.98


def test_a_zero_that_is_not_in_the_middle_is_found(
    symmetric: Path, demo_folder: Path, tmp_path: Path
) -> None:
    model = onnx.load(symmetric)
    name = f"{BASE_PREFIX}encoder.stages.0.layers.0.layer.1.activation.zero_point"
    tensor(model, name).CopyFrom(numpy_helper.from_array(np.array(1, np.int8), name))
    onnx.save(model, tmp_path / "wrong.onnx")
    wrong = certify(ConvertedFolder(demo_folder), "onnx-int8", tmp_path / "wrong.onnx").wrong
    assert "layer.1.activation has a zero that is not step 0" in "\n".join(wrong)


@pytest.mark.parametrize("asked", [False, True])
def test_a_form_that_is_stated_wrongly_is_found(
    artefact: Path, symmetric: Path, demo_folder: Path, tmp_path: Path, asked: bool
) -> None:
    """An ordinary file would be held to the coarser steps of a symmetric one."""
    model = onnx.load(symmetric if asked else artefact)
    stated = next(entry for entry in model.metadata_props if entry.key == "precision")
    stated.value = "int8" if asked else "symmetric int8"
    onnx.save(model, tmp_path / "wrong.onnx")
    assert certify(ConvertedFolder(demo_folder), "onnx-int8", tmp_path / "wrong.onnx").wrong


def tensor(model: ModelProto, name: str) -> onnx.TensorProto:
    return next(tensor for tensor in model.graph.initializer if tensor.name == name)


def scale_doubled(model: ModelProto) -> None:
    layer = f"{BASE_PREFIX}encoder.stages.1.layers.0.layer.0.folded_weight.int8.scale"
    scale = tensor(model, layer)
    scale.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(scale) * 2, scale.name))


def activation_scale_doubled(model: ModelProto) -> None:
    taken_for(model, "classifier.0", 1, lambda scale: scale * 2)


def zero_point_shifted(model: ModelProto) -> None:
    taken_for(model, "pixel_values", 2, lambda zero_point: zero_point + np.uint8(8))


def taken_for(model: ModelProto, value: str, position: int, change: Callable[[Any], Any]) -> None:
    """Activations go onto one grid and come back from another."""
    node = next(node for node in model.graph.node if node.name == f"{value}.float32")
    number = numpy_helper.to_array(tensor(model, node.input[position]))
    model.graph.initializer.append(numpy_helper.from_array(np.array(change(number)), "other"))
    node.input[position] = "other"


def zero_point_behind_relu_shifted(model: ModelProto) -> None:
    """Of both: all numbers stay what they are, but there is a grid of 255 steps left."""
    name = f"{BASE_PREFIX}encoder.stages.0.layers.0.layer.1.activation.zero_point"
    tensor(model, name).CopyFrom(numpy_helper.from_array(np.array(1, np.uint8), name))


def stem_channels_swapped(model: ModelProto) -> None:
    stem = tensor(model, f"{STEM}.int8")
    swapped = np.ascontiguousarray(numpy_helper.to_array(stem)[:, ::-1])
    stem.CopyFrom(numpy_helper.from_array(swapped, stem.name))


BY_NUMBERS = [scale_doubled, activation_scale_doubled, zero_point_shifted, stem_channels_swapped]
"""Mistakes whose numbers alone must give them away."""


@pytest.mark.parametrize("mistake", BY_NUMBERS, ids=lambda mistake: mistake.__name__)
def test_wrong_artefacts_fail_by_their_numbers(
    artefact: Path, truth: Truth, tmp_path: Path, mistake: Callable[[ModelProto], None]
) -> None:
    model = onnx.load(artefact)
    mistake(model)
    onnx.save(model, tmp_path / "wrong.onnx")
    assert failures(truth, tmp_path / "wrong.onnx")


def one_weight_off_by_one(model: ModelProto) -> None:
    weight = tensor(model, f"{STEM}.int8")
    steps = numpy_helper.to_array(weight).copy()
    steps.flat[7] += 1 if steps.flat[7] < 127 else -1
    weight.CopyFrom(numpy_helper.from_array(steps, weight.name))


def one_bias_off_by_two(model: ModelProto) -> None:
    bias = tensor(model, "classifier.1.bias.int32")
    steps = numpy_helper.to_array(bias).copy()
    steps[3] += 2
    bias.CopyFrom(numpy_helper.from_array(steps, bias.name))


def stated_to_be_in_float(model: ModelProto) -> None:
    stated = next(entry for entry in model.metadata_props if entry.key == "quantisation")
    fields = json.loads(stated.value) | {"float_layers": ["classifier.1"]}
    stated.value = json.dumps(fields)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (scale_doubled, "layer.0.folded_weight is not the nearest"),
        (stem_channels_swapped, "folded_weight is not the nearest"),
        (one_weight_off_by_one, "in 1 of "),
        (one_bias_off_by_two, "classifier.1.bias is not the nearest"),
        (zero_point_behind_relu_shifted, "layer.1.activation has a zero that is not step 0"),
        (zero_point_shifted, "pixel_values.float32 is not what is written"),
        (activation_scale_doubled, "classifier.0.float32 is not what is written"),
        (stated_to_be_in_float, "is not what is written"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_certificates_name_what_is_wrong(
    artefact: Path,
    demo_folder: Path,
    tmp_path: Path,
    mistake: Callable[[ModelProto], None],
    words: str,
) -> None:
    model = onnx.load(artefact)
    mistake(model)
    onnx.save(model, tmp_path / "wrong.onnx")
    certificate = certify(ConvertedFolder(demo_folder), "onnx-int8", tmp_path / "wrong.onnx")
    assert words in "\n".join(certificate.wrong)


def test_sensitive_layers_stay_in_float(
    demo_folder: Path, pictures: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer's grid is made useless, by a range that one value in a million has."""
    folder, spoilt = ConvertedFolder(demo_folder), "classifier.0"

    def spoil(*arguments: Any) -> tuple[Any, dict[str, tuple[float, float]]]:
        outputs, ranges = measured(*arguments)
        return outputs, ranges | ({spoilt: (0.0, 1e3)} if spoilt in ranges else {})

    monkeypatch.setattr("converters.formats.onnx.quantised.measured", spoil)
    export_int8(folder, tmp_path / "model.onnx", ExportOptions(calibration_images=pictures[:50]))
    quantisation = details(tmp_path / "model.onnx")["quantisation"]
    assert quantisation["float_layers"][0] == "classifier.1"
    assert len(quantisation["float_layers"]) == 3
    assert quantisation["top1_loss"] <= 0.005
    assert certify(folder, "onnx-int8", tmp_path / "model.onnx").failure is None


@pytest.mark.parametrize("layer_type", ["x", "y"])
@pytest.mark.parametrize("activation", ["relu", "silu", "gelu"])
def test_trunks_and_other_activations_pass(
    tmp_path: Path, layer_type: str, activation: str, pictures: list[Path]
) -> None:
    config = RegNetConfig(
        layer_type=layer_type,
        hidden_act=activation,
        embedding_size=16,
        hidden_sizes=[24, 48],
        depths=[1, 2],
        groups_width=8,
        num_labels=10,
    )
    folder = random_folder(tmp_path / "out", config, classifier=False)
    (folder.path / "preprocessor_config.json").write_text(
        json.dumps(
            {"size": {"shortest_edge": 64}, "image_processor_type": "ConvNextImageProcessor"}
        )
    )
    export_int8(folder, tmp_path / "model.onnx", ExportOptions(calibration_images=pictures[:5]))
    truth = Truth(folder, verification_inputs(3, 64))
    assert not failures(truth, tmp_path / "model.onnx")
    assert certify(folder, "onnx-int8", tmp_path / "model.onnx").failure is None


def test_sums_beside_functions_in_floats_are_not_rounded(tmp_path: Path) -> None:
    """A preactivation network's sums hold all its blocks, and nothing but norms reads them."""
    sums = {}
    for kind in ("Y", "Z", "V", "Y, silu", "group norm"):
        random_network(tmp_path / kind, kind)
        folder = ConvertedFolder(tmp_path / kind)
        graph = build_graph(folder.config, classifier=True, fold_norms=True)
        planned = Int8Plan(graph, layer_names(folder)).nodes
        sums[kind] = {each.name in planned for each in graph.node if each.op_type == "Add"}
    assert sums.pop("Y") == sums.pop("Z") == {True}
    assert set(map(frozenset, sums.values())) == {frozenset({False})}


def test_without_images_it_refuses(folder: Path) -> None:
    with pytest.raises(InputError, match=r"no folder calibration/ .* --calibration-images"):
        export(folder, ["onnx-int8"], verify=False)
    assert not (folder / INT8).exists()


def test_images_in_the_folder_itself_are_the_default(folder: Path) -> None:
    sample_images(folder / "calibration", 4)
    export(folder, ["onnx-int8"], verify=False)
    assert details(folder / INT8)["quantisation"]["calibration_images"] == 4
    assert predict(folder, [folder / "calibration" / "0.png"], runtime="onnx-int8")


def test_an_image_that_cannot_be_read_is_named(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"broken\.png is not an image"):
        export(folder, ["onnx-int8"], calibration_images=broken, verify=False)


@pytest.mark.parametrize("steps", [range(256), range(-128, 128)], ids=["uint8", "int8"])
@pytest.mark.parametrize(("least", "most"), [(-3.0, 5.0), (0.5, 2.0), (-2.0, -1.0), (0.0, 0.0)])
def test_a_grid_holds_its_ends_and_zero(least: float, most: float, steps: range) -> None:
    grid = (Grid.around_zero if steps[0] else Grid.spanning)(least, most)
    numbers = grid.scale * (np.array(steps) - grid.zero_point)
    assert 0 in numbers
    for end in (least, most):
        assert np.abs(numbers - end).min() <= grid.scale * 0.501


def test_the_bias_of_a_dead_channel_fits() -> None:
    weight = np.zeros((2, 3, 1, 1), np.float32)
    weight[1] = 0.5
    bias = np.array([3.0, -0.25], np.float32)
    steps, _, bias_steps, bias_scale = in_integers(weight, bias, 0.01)
    np.testing.assert_allclose(bias_steps * bias_scale.astype(float), bias, rtol=0.01)
    assert steps[1].ravel().tolist() == [127, 127, 127]
