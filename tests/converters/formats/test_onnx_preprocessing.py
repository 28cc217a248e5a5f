"""The graph that takes bytes, against the image processor and the reference on real photographs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.capi.onnxruntime_pybind11_state import InvalidArgument
from PIL import Image

from converters import predict
from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.formats.format import ExportOptions
from converters.formats.onnx.form import GraphForm
from converters.formats.onnx.preprocessing import export_with_preprocessing
from converters.formats.onnx.preprocessing_runtime import WholeWithPreprocessing
from converters.formats.registry import FORMATS
from converters.jobs.export import export
from converters.parity.contents.tensors import certify
from converters.parity.preprocessing import measure_preprocessing, step_of
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor
from tests.converters.formats.onnx_helpers import SMALL
from tests.converters.formats.random_folder import random_folder
from tests.photographs import photograph

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PICTURES = ("astronaut.png", "chelsea.png", "coffee.png")
NETWORK: dict[str, Any] = SMALL | {"embedding_size": 8, "num_labels": 100}

PROCESSORS: dict[str, dict[str, Any]] = {
    "ImageNet, bicubic": {},
    "bilinear": {"resample": Image.Resampling.BILINEAR, "crop_pct": 0.95},
    "crop placed like torchvision's": {"size": 205, "resize_mode": "shortest_edge_then_crop"},
    "squashed": {"size": 384, "crop_pct": 1.0},
    "squashed below 384": {"size": 205, "resize_mode": "squash"},
    "not rescaled": {"do_rescale": False, "size": 64},
    "not normalised": {"do_normalize": False, "size": 64},
    "bare": {"do_normalize": False, "do_rescale": False, "size": 64},
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("network"), RegNetConfig(**NETWORK)).path


def exported(folder: Path, form: GraphForm | None = None, **processor: Any) -> Path:
    RegNetImageProcessor(**processor).save_pretrained(folder)
    path = folder / "whole.onnx"
    export_with_preprocessing(
        ConvertedFolder(folder), path, ExportOptions(form=form or GraphForm())
    )
    return path


@pytest.mark.parametrize("picture", PICTURES)
@pytest.mark.parametrize("case", PROCESSORS)
def test_pixels_are_the_image_processor_s_but_for_single_steps(
    network: Path, case: str, picture: str
) -> None:
    whole = WholeWithPreprocessing(exported(network, **PROCESSORS[case]))
    processor = RegNetImageProcessor.from_pretrained(network)
    photo = Image.open(photograph(picture)).convert("RGB")
    found = whole(np.asarray(photo)[np.newaxis])["pixel_values"]
    expected = processor(photo, return_tensors="np").pixel_values
    assert found.shape == expected.shape
    steps = np.abs(found.astype(np.float64) - expected) / step_of(processor)[:, None, None]
    assert steps.max() <= 1.001
    assert (steps > 0.5).mean() <= 0.005


@pytest.mark.parametrize("size", [(101, 64), (64, 103), (65, 65), (30, 41), (48, 48)])
def test_pictures_of_every_size_are_cropped_where_the_processor_crops(
    network: Path, size: tuple[int, int]
) -> None:
    settings: dict[str, Any] = {
        "size": 48,
        "resize_mode": "shortest_edge_then_crop",
        "crop_pct": 0.9,
    }
    whole = WholeWithPreprocessing(exported(network, **settings))
    photo = Image.open(photograph(PICTURES[0])).convert("RGB").resize(size)
    processor = RegNetImageProcessor.from_pretrained(network)
    found = whole(np.asarray(photo)[np.newaxis])["pixel_values"]
    expected = processor(photo, return_tensors="np").pixel_values
    np.testing.assert_allclose(found, expected, atol=1.001 * step_of(processor).max())


def test_the_best_five_are_those_of_the_reference(folder: Path) -> None:
    """Of the bundled network, which tells ten kinds of clothes apart, on photographs."""
    report = export(folder, ["onnx-preprocessing"])
    assert report
    assert report.passed
    paths = [photograph(name) for name in PICTURES]
    expected = predict(folder, paths, runtime="torch")
    whole = WholeWithPreprocessing(folder / FORMATS["onnx-preprocessing"].file_name)
    labels = ConvertedFolder(folder).config.id2label
    for path, prediction in zip(paths, expected, strict=True):
        found = whole(np.asarray(Image.open(path).convert("RGB"))[np.newaxis])
        names = [labels[int(index)] for index in found["top_indices"][0]]
        assert names == [label for label, _ in prediction.classes]
        scores = [score for _, score in prediction.classes]
        np.testing.assert_allclose(found["top_scores"][0], scores, atol=0.02)


def test_inputs_and_outputs_have_names_types_and_sizes(network: Path) -> None:
    path = exported(network, GraphForm(20, batch=1), size=64)
    onnx.checker.check_model(path, full_check=True)
    graph = onnx.load(path).graph
    signature = {
        value.name: (
            value.type.tensor_type.elem_type,
            [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim],
        )
        for value in (*graph.input, *graph.output)
    }
    kinds = onnx.TensorProto
    assert signature == {
        "image": (kinds.UINT8, [1, "height", "width", 3]),
        "probabilities": (kinds.FLOAT, [1, 100]),
        "top_scores": (kinds.FLOAT, [1, 5]),
        "top_indices": (kinds.INT64, [1, 5]),
    }


def _set(name: str, change: Callable[[Any], Any]) -> Callable[[onnx.ModelProto], None]:
    def damage(model: onnx.ModelProto) -> None:
        node = next(n for n in model.graph.node if n.name == f"preprocessing.{name}")
        value = numpy_helper.to_array(node.attribute[0].t)
        node.attribute[0].t.CopyFrom(numpy_helper.from_array(change(value)))

    return damage


def _no_antialias(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Resize")
    for attribute in node.attribute:
        if attribute.name in {"antialias", "exclude_outside"}:
            attribute.i = 0


def _other_cubic(model: onnx.ModelProto) -> None:
    node = next(n for n in model.graph.node if n.op_type == "Resize")
    next(a for a in node.attribute if a.name == "cubic_coeff_a").f = -0.75


def _least_likely_first(model: onnx.ModelProto) -> None:
    top = model.graph.node[-1]
    top.attribute.append(onnx.helper.make_attribute("largest", 0))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_set("std", lambda std: std * np.float32(1.02)), "pixels differ"),
        (_set("mean", lambda mean: mean[::-1].copy()), "pixels differ"),
        (_set("edge", lambda edge: edge - 4), "pixels have shape"),
        (_set("two", lambda two: two + 1), "pixels differ"),
        (_no_antialias, "pixels differ"),
        (_other_cubic, "pixels differ"),
        (_least_likely_first, "best classes"),
    ],
)
def test_wrong_preprocessing_fails(
    network: Path, damage: Callable[[onnx.ModelProto], None], reason: str
) -> None:
    bilinear = damage is _no_antialias  # which ONNX Runtime's cubic cannot do without
    resample = Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC
    path = exported(network, size=64, resample=resample)
    folder = ConvertedFolder(network)
    assert certify(folder, "onnx-preprocessing", path).failure is None
    assert not [m.failure for m in measure_preprocessing(folder, path) if m.failure]
    model = onnx.load(path)
    damage(model)
    onnx.save(model, path)
    failures = [m.failure for m in measure_preprocessing(folder, path) if m.failure]
    assert failures
    assert reason in failures[0]
    assert "is not what is written" in (certify(folder, "onnx-preprocessing", path).failure or "")


def test_a_size_that_the_file_takes_alone_without_saying_so_fails(network: Path) -> None:
    """Inputs are fitted to sizes that metadata states, not to whatever the graph will take."""
    path = exported(network, size=64)
    model = onnx.load(path)
    dims = model.graph.input[0].type.tensor_type.shape.dim
    for dim, value in zip(dims, (2, 64, 64), strict=False):
        dim.dim_value = value
    onnx.save(model, path)
    with pytest.raises(InvalidArgument, match="invalid dimensions"):
        measure_preprocessing(ConvertedFolder(network), path)


@pytest.mark.parametrize(
    ("processor", "form", "reason"),
    [
        ({"resample": Image.Resampling.LANCZOS}, GraphForm(), "filter lanczos"),
        ({}, GraphForm(17), "leave out --opset 17"),
        ({"image_mean": [0.5], "image_std": [0.5]}, GraphForm(), "prepares 1 channels where"),
    ],
)
def test_what_a_graph_cannot_prepare_is_refused(
    network: Path, processor: dict[str, Any], form: GraphForm, reason: str
) -> None:
    with pytest.raises(InputError, match=reason):
        exported(network, form, **processor)


def test_a_trunk_has_no_probabilities(tmp_path: Path) -> None:
    random_folder(tmp_path, RegNetConfig(**SMALL), classifier=False)
    path = tmp_path / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"architectures": ["RegNetModel"]}))
    with pytest.raises(InputError, match="has no classifier"):
        exported(tmp_path)
