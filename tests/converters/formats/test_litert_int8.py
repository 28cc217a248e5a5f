"""LiteRT in int8: ONNX's grids, computed by LiteRT's own kernels, and proven."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.litert.runtime import LiteRtRuntime
from converters.formats.onnx.quantised import QUANTISATION_KEY, Quantisation, QuantisedNetwork
from converters.formats.registry import FORMATS
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth, run
from converters.parity.verdict import judge
from regnet.config import RegNetConfig
from tests.converters.demo import sample_images
from tests.converters.formats.random_folder import random_folder
from tests.converters.parity.contents.test_litert import Opened
from tests.converters.parity.networks import random_network

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

schema = pytest.importorskip("ai_edge_litert.schema_py_generated")

INT8 = FORMATS["litert-int8"]
SIDE = 64
SMALL = RegNetConfig(
    embedding_size=8, hidden_sizes=[16, 24], depths=[1, 1], groups_width=8, num_labels=10
)
BLOCK = "regnet.encoder.stages.0.layers.0"
PREPROCESSOR = json.dumps(
    {"size": {"shortest_edge": SIDE}, "image_processor_type": "ConvNextImageProcessor"}
)


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> ExportOptions:
    images = [path for path, _ in sample_images(tmp_path_factory.mktemp("pictures"), 5)]
    return ExportOptions(calibration_images=images)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory, options: ExportOptions) -> ConvertedFolder:
    return written(random_folder(tmp_path_factory.mktemp("int8"), SMALL), options)


def written(folder: ConvertedFolder, options: ExportOptions) -> ConvertedFolder:
    (folder.path / "preprocessor_config.json").write_text(PREPROCESSOR)
    folder = ConvertedFolder(folder.path)
    INT8.export(folder, folder.path / INT8.file_name, options)
    return folder


def assert_right(folder: ConvertedFolder) -> None:
    """Proven, and within int8 by either kind of kernels."""
    path = folder.path / INT8.file_name
    assert certify(folder, INT8.name, path).wrong == ()
    truth = Truth(folder, verification_inputs(3, SIDE))
    for reference in (False, True):
        runtime = LiteRtRuntime(path, folder.output_names, reference=reference)
        assert runtime.precision == "int8"
        outputs = run(runtime, truth.inputs_for("int8"))
        measured = judge(outputs, truth.units("int8"), truth.oracle, "int8")
        assert [each.failure for each in measured if each.failure] == []


def test_it_is_right_and_computes_in_integers(network: ConvertedFolder) -> None:
    assert_right(network)
    file = Opened(network.path / INT8.file_name)
    names = {number: name for name, number in vars(schema.BuiltinOperator).items()}
    moved = Counter()
    for operator in file.graph.operators:
        code = names[file.model.operatorCodes[operator.opcodeIndex].builtinCode]
        made = file.graph.tensors[operator.outputs[0]]
        moved[code] += 1
        assert (made.type == schema.TensorType.INT8) == (
            code not in {"DEQUANTIZE", "RESHAPE"} and made.name != b"regnet.pooler"
        ), made.name
    assert moved["CONV_2D"] == 13
    assert (moved["QUANTIZE"], moved["DEQUANTIZE"]) == (2, 2)  # of the last pooling the others


@pytest.mark.parametrize(
    "name",
    [
        "X, silu, no classifier",
        pytest.param("V, averaged shortcut", marks=pytest.mark.slow),
        pytest.param("same padding", marks=pytest.mark.slow),
    ],
)
def test_other_networks_are_right(name: str, tmp_path: Path, options: ExportOptions) -> None:
    if name == "X, silu, no classifier":
        config = RegNetConfig(**{**SMALL.to_dict(), "layer_type": "x", "hidden_act": "silu"})
        folder = random_folder(tmp_path, config, classifier=False)
    else:
        random_network(tmp_path, name)
        folder = ConvertedFolder(tmp_path)
    assert_right(written(folder, options))


def test_its_grids_are_those_of_onnx(network: ConvertedFolder, options: ExportOptions) -> None:
    path = network.path / "model.onnx"
    FORMATS["onnx-int8"].export(network, path, options)
    held = {each.name: numpy_helper.to_array(each) for each in onnx.load(path).graph.initializer}
    tensors = Opened(network.path / INT8.file_name).tensors
    for value in ("pixel_values", f"{BLOCK}.layer.0.activation", f"{BLOCK}.activation"):
        grid = tensors[f"{value}.int8"].quantization
        assert grid.scale.tolist() == [held[f"{value}.scale"]]
        assert grid.zeroPoint.tolist() == [int(held[f"{value}.zero_point"]) - 128]
    weight = f"{BLOCK}.layer.1.folded_weight.int8"
    assert tensors[weight].quantization.scale.tolist() == held[f"{weight}.scale"].tolist()


def test_layers_that_stay_in_float_are_stated_and_proven(
    network: ConvertedFolder,
    options: ExportOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    left = Quantisation(5, 1.0, 0.0, ("classifier.1", f"{BLOCK}.layer.1", f"{BLOCK}.layer.2"))
    monkeypatch.setattr(QuantisedNetwork, "fewest_in_float", lambda _: left)
    path = tmp_path / INT8.file_name
    INT8.export(network, path, options)
    assert INT8.details is not None
    assert INT8.details(path) == left.details
    certificate = certify(network, INT8.name, path)  # six of the classifier, the squeeze-excite
    assert (certificate.wrong, certificate.identical) == ((), 6)
    pixels = verification_inputs(3, SIDE)["native"]
    ours, whole = (
        LiteRtRuntime(place)(pixels)["logits"] for place in (path, network.path / INT8.file_name)
    )
    assert np.abs(ours - whole).max() > 0


def test_any_number_of_images_of_any_size_and_the_same_bytes(
    network: ConvertedFolder, options: ExportOptions
) -> None:
    path = network.path / INT8.file_name
    runtime = LiteRtRuntime(path)
    pixels = torch.randn(3, 3, 40, 70, generator=torch.Generator().manual_seed(0)).numpy()
    together = runtime(pixels)["logits"]
    for index, alone in enumerate(together):
        np.testing.assert_array_equal(runtime(pixels[index : index + 1])["logits"][0], alone)
    first = path.read_bytes()
    INT8.export(network, path, options)
    assert path.read_bytes() == first


def test_without_images_it_refuses(network: ConvertedFolder, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder calibration/ .* --calibration-images"):
        INT8.export(network, tmp_path / "model.tflite", ExportOptions())
    assert not [*tmp_path.iterdir()]


@pytest.mark.parametrize("name", ["litert-int8", "onnx-int8"])
def test_what_costs_too_much_is_refused_with_what_to_do(
    network: ConvertedFolder,
    options: ExportOptions,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    layers = [f"{BLOCK}.layer.{number}" for number in range(4)]
    monkeypatch.setattr(QuantisedNetwork, "_growing", lambda _: iter(((), layers)))
    words = rf"on the 5 calibration .* of which {layers[0]}, {layers[1]}, {layers[2]} and 1 more"
    with pytest.raises(InputError, match=rf"{words} .* more images .* {name[:-5]}-fp16\.$"):
        FORMATS[name].export(network, tmp_path / "model", replace(options, largest_loss=-1))
    assert not [*tmp_path.iterdir()]


def _weight(file: Opened) -> None:
    weight = file.data(f"{BLOCK}.layer.1.folded_weight.int8", "i1")
    weight[7] += 1 if weight[7] < 127 else -1


def _bias(file: Opened) -> None:
    file.data("classifier.1.bias.int32", "<i4")[3] += 2


def _grid(name: str, **numbers: Any) -> Callable[[Opened], None]:
    def change(file: Opened) -> None:
        for field, number in numbers.items():
            held = getattr(file.tensors[name].quantization, field)
            setattr(file.tensors[name].quantization, field, change_of(held, number))

    def change_of(held: Any, number: Any) -> Any:
        return number(held) if callable(number) else number

    return change


def _stated(file: Opened) -> None:
    (entry,) = (each for each in file.model.metadata if each.name == QUANTISATION_KEY.encode())
    fields = json.loads(bytes(file.model.buffers[entry.buffer].data))
    text = json.dumps(fields | {"float_layers": ["classifier.1"]})
    file.model.buffers[entry.buffer].data = np.frombuffer(text.encode(), np.uint8)


def _nothing_stated(file: Opened) -> None:
    file.model.metadata = []


def _output_in_integers(file: Opened) -> None:
    place = file.index["logits.int8"]
    file.graph.outputs = np.array([place], np.int32)
    file.model.signatureDefs[0].outputs[0].tensorIndex = place
    file.graph.operators = [
        each for each in file.graph.operators if each.outputs[0] != file.index["logits"]
    ]


def _no_grid(file: Opened) -> None:
    file.tensors["pixel_values.int8"].quantization = None


WEIGHT = f"{BLOCK}.layer.1.folded_weight.int8"
GATE = f"{BLOCK}.layer.2.attention.3.int8"


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        (_weight, "layer.1.folded_weight is not the nearest to"),
        (_bias, "classifier.1.bias is not the nearest to"),
        (_grid(WEIGHT, scale=lambda scale: scale * 2), "have other steps than input and weights"),
        (_grid(WEIGHT, quantizedDimension=3), "does not say what each channel's integers"),
        (_grid(WEIGHT, zeroPoint=lambda zero: zero + 1), "have a zero that is not 0"),
        (_grid(f"{BLOCK}.layer.1.activation.int8", zeroPoint=[-127]), "that is not step -128"),
        (_grid("logits.int8", zeroPoint=[128]), "logits.int8 has a zero that is none of its steps"),
        (_grid("logits.int8", scale=[-0.1]), "logits.int8 has steps of -0.1"),
        (_grid(GATE, scale=[1 / 128]), "other steps than 1/256"),
        (_grid("regnet.embedder.embedder.convolution.padded.int8", zeroPoint=[5]), "around zeros"),
        (_no_grid, "pixel_values.int8 has no grid of 256 steps"),
        (_stated, "is not computed in float32, as the file states"),
        (_nothing_stated, "does not state how it was quantised"),
        (_output_in_integers, "logits.int8 is no float32 for the caller"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_certificates_name_what_is_wrong(
    network: ConvertedFolder, tmp_path: Path, mistake: Callable[[Opened], None], words: str
) -> None:
    file = Opened(network.path / INT8.file_name)
    mistake(file)
    path = file.saved(tmp_path / INT8.file_name)
    wrong = certify(network, INT8.name, path).wrong
    assert wrong
    assert words in "\n".join(wrong)


def test_neither_file_is_taken_for_the_other(network: ConvertedFolder, tmp_path: Path) -> None:
    path = tmp_path / "model.tflite"
    FORMATS["litert"].export(network, path, ExportOptions())
    assert certify(network, INT8.name, path).wrong
    assert certify(network, "litert", network.path / INT8.file_name).wrong
