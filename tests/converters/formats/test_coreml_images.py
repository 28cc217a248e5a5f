"""Core ML packages that take pictures and name classes (`--image-input`)."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from converters.errors import InputError
from converters.folder.folder import ConvertedFolder
from converters.folder.interface import Interface
from converters.formats.coreml import runtime as coreml_runtime
from converters.formats.coreml.formats import MODEL
from converters.formats.coreml.package import class_names
from converters.formats.coreml.reading import read_package
from converters.formats.coreml.runtime import EvaluatedProgram
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS
from converters.formats.runtime import softmax
from converters.jobs.export import export
from converters.jobs.verify import verify
from converters.parity.artefact import judge_artefact
from converters.parity.contents.tensors import certify
from converters.parity.truth import Truth
from converters.parity.verify import fresh_inputs
from regnet import RegNetForImageClassification, RegNetImageProcessor
from regnet.config import RegNetConfig
from tests.converters.formats.onnx_helpers import SMALL
from tests.converters.formats.random_folder import random_folder

SIDE = 48
NAMES = ["crane", "été", "tench, Tinca tinca", "crane"]
LABELLED = SMALL | {"num_labels": len(NAMES), "id2label": dict(enumerate(NAMES))}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    path = tmp_path_factory.mktemp("pictures")
    random_folder(path, RegNetConfig(**LABELLED))
    RegNetImageProcessor(size=SIDE).save_pretrained(path)
    export(path, ["coreml", "coreml-fp16"], image_input=True, verify=False)
    return ConvertedFolder(path)


@pytest.fixture(scope="module")
def picture() -> np.ndarray[Any, Any]:
    return np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def probabilities_of(folder: ConvertedFolder, picture: np.ndarray[Any, Any]) -> np.ndarray:
    pixels = folder.processor(picture, do_resize=False, return_tensors="pt").pixel_values
    logits = RegNetForImageClassification.from_pretrained(folder.path)(pixels).logits
    return softmax(logits.detach().numpy())


@pytest.mark.parametrize(("name", "exact"), [("model", 1e-6), ("model_fp16", 5e-3)])
def test_bytes_become_the_probabilities_of_the_reference(
    folder: ConvertedFolder, picture: np.ndarray[Any, Any], name: str, exact: float
) -> None:
    path = folder.path / f"{name}.mlpackage"
    package = read_package(path)
    assert package.takes_images
    assert package.outputs == ("classLabel", "classLabel_probs")
    assert package.classes == ("crane (0)", "été", "tench, Tinca tinca", "crane (3)")
    runtime = EvaluatedProgram(path, ("probabilities",))
    found = runtime(picture.transpose(2, 0, 1)[None].astype(np.float32))["probabilities"]
    np.testing.assert_allclose(found, probabilities_of(folder, picture), atol=exact, rtol=0)


def test_it_is_judged_with_pixels_in_and_whoever_finds_it_knows_what_it_takes(
    folder: ConvertedFolder,
) -> None:
    verdicts = {verdict.artefact: verdict for verdict in verify(folder.path).verdicts}
    for name in ("model.mlpackage", "model_fp16.mlpackage"):
        verdict = verdicts[name]
        assert (verdict.wrong, verdict.outcome) == (None, "not run")
        assert {each.output for each in verdict.measurements} == {"probabilities"}
        assert verdict.tensors
        assert verdict.tensors.graph_compared


def test_two_exports_give_the_same_bytes(folder: ConvertedFolder, tmp_path: Path) -> None:
    pictured, path = folder.offering(Interface(255, softmax=True)), tmp_path / "model.mlpackage"
    FORMATS["coreml"].export(pictured, path, ExportOptions(image_input=True))
    for file in FORMATS["coreml"].at(path):
        first = folder.path / file.relative_to(tmp_path)
        assert file.read_bytes() == first.read_bytes()


def changed(path: Path, old: bytes, new: bytes) -> None:
    model = path / MODEL
    content = model.read_bytes()
    assert old in content
    assert len(old) == len(new)
    model.write_bytes(content.replace(old, new))


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        (np.float32(0.485 * 255).tobytes(), np.float32(0.5 * 255).tobytes(), "normalise_mean is"),
        ("été".encode(), b"ete??", "operation classLabel is not what is written"),
        (b"\x08\x30\x10\x30", b"\x08\x31\x10\x30", "its description"),  # width and height
    ],
    ids=["mean", "class", "size"],
)
def test_every_number_and_name_counts(
    folder: ConvertedFolder, tmp_path: Path, old: bytes, new: bytes, fault: str
) -> None:
    path = shutil.copytree(folder.path / "model.mlpackage", tmp_path / "model.mlpackage")
    pictured = folder.offering(Interface(255, softmax=True))
    assert certify(pictured, "coreml", path).wrong == ()
    changed(path, old, new)
    assert any(fault in clause for clause in certify(pictured, "coreml", path).wrong)
    if fault.startswith("normalise"):
        truth = Truth(folder, fresh_inputs(folder))
        verdict = judge_artefact(folder, truth, "coreml", path, found=False)
        assert all(measurement.failure for measurement in verdict.measurements)


def test_no_two_classes_are_called_alike() -> None:
    config = SimpleNamespace(id2label=dict(enumerate(["a", "a", "a (1)", "b"])))
    assert class_names(SimpleNamespace(config=config)) == ("a (0)", "a (1)", "a (1) (2)", "b (3)")  # type: ignore[arg-type]


def test_a_trunk_takes_pictures_too(tmp_path: Path) -> None:
    random_folder(tmp_path, RegNetConfig(**SMALL), classifier=False)
    RegNetImageProcessor(size=SIDE).save_pretrained(tmp_path)
    report = export(tmp_path, ["coreml"], image_input=True)
    assert report
    assert report.verdicts[-1].wrong is None
    package = read_package(tmp_path / "model.mlpackage")
    assert package.takes_images
    assert package.outputs == ("last_hidden_state", "pooler_output")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dynamic": ["batch"]}, "takes one picture of one size; leave out --dynamic"),
        ({"shape": (2, 3, 48, 48)}, "takes one picture of one size; leave out --dynamic"),
        ({"normalize": 1}, "takes pixels from 0 to 255; leave out --normalize 1"),
        ({"formats": ["onnx"]}, "--image-input says how coreml, coreml-fp16 is written"),
        ({"formats": ["onnx", "coreml"]}, "and not how onnx is; write that by itself"),
    ],
)
def test_what_cannot_be_is_refused(
    folder: ConvertedFolder, options: dict[str, Any], words: str
) -> None:
    formats = options.pop("formats", ["coreml"])
    before = (folder.path / "model.mlpackage" / MODEL).read_bytes()
    with pytest.raises(InputError, match=words):
        export(folder.path, formats, image_input=True, **options)
    assert (folder.path / "model.mlpackage" / MODEL).read_bytes() == before


class _Model:
    """Apple's, as far as it is used: it takes a picture and gives names."""

    def __init__(self, path: str, compute_units: str) -> None:
        assert compute_units == "CPU_ONLY"
        self._program = EvaluatedProgram(Path(path), ("probabilities",))

    def predict(self, inputs: dict[str, Any]) -> dict[str, Any]:
        picture = inputs["pixel_values"]
        assert (picture.mode, picture.size) == ("RGB", (SIDE, SIDE))
        pixels = np.asarray(picture).transpose(2, 0, 1)[None].astype(np.float32)
        (scores,) = self._program(pixels)["probabilities"]
        names = self._program.package.classes
        return {
            "classLabel": names[int(scores.argmax())],
            "classLabel_probs": dict(zip(names, map(float, scores), strict=True)),
        }


def test_on_macos_apples_runtime_is_given_pictures(
    folder: ConvertedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = SimpleNamespace(
        models=SimpleNamespace(MLModel=_Model), ComputeUnit=SimpleNamespace(CPU_ONLY="CPU_ONLY")
    )
    monkeypatch.setattr(coreml_runtime.platform, "system", lambda: "Darwin")
    monkeypatch.setitem(sys.modules, "coremltools", library)
    monkeypatch.setattr("converters.errors.find_spec", lambda _: True)
    monkeypatch.setattr(coreml_runtime, "require_extra", lambda *_: "9.0")
    monkeypatch.setattr(coreml_runtime.platform, "mac_ver", lambda: ("26.1", (), "arm64"))
    truth = Truth(folder, fresh_inputs(folder))
    path = folder.path / "model.mlpackage"
    verdict = judge_artefact(folder, truth, "coreml", path, found=False)
    assert (verdict.wrong, verdict.outcome) == (None, "pass")
    assert verdict.worst("rms_ratio") > 0


LOAD = """
import json, sys, warnings, coremltools
from coremltools.converters.mil.frontend.milproto.load import load
from coremltools.proto import Model_pb2
path = sys.argv[1]
with warnings.catch_warnings():
    warnings.simplefilter("error")
    model = coremltools.models.MLModel(path, skip_model_load=True)
    spec = coremltools.utils.load_spec(path)
program = load(spec, spec.specificationVersion, path + "/Data/com.apple.CoreML/weights")
(function,) = program.functions.values()
raw = open(path + "/Data/com.apple.CoreML/model.mlmodel", "rb").read()
again = Model_pb2.Model.FromString(raw).SerializeToString(deterministic=True)
description = spec.description
image = description.input[0].type.imageType
classify = next(each for each in function.operations if each.op_type == "classify")
print(json.dumps({
    "lengths": [len(raw), len(again)],
    "image": [image.width, image.height, image.ColorSpace.Name(image.colorSpace)],
    "outputs": [[each.name, each.type.WhichOneof("Type")] for each in description.output],
    "predicted": [description.predictedFeatureName, description.predictedProbabilitiesName],
    "classes": list(classify.inputs["classes"].val),
    "probabilities": list(classify.inputs["probabilities"].shape),
    "interface": model.user_defined_metadata["interface"],
}))
"""


@pytest.mark.slow
@pytest.mark.parametrize("name", ["model", "model_fp16"])
def test_coremltools_reads_a_classifier_of_pictures(folder: ConvertedFolder, name: str) -> None:
    pytest.importorskip("coremltools")
    command = [sys.executable, "-c", LOAD, str(folder.path / f"{name}.mlpackage")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    raw, again = found.pop("lengths")
    assert raw == again  # nothing is unknown, or said twice
    assert found == {
        "image": [SIDE, SIDE, "RGB"],
        "outputs": [["classLabel", "stringType"], ["classLabel_probs", "dictionaryType"]],
        "predicted": ["classLabel", "classLabel_probs"],
        "classes": ["crane (0)", "été", "tench, Tinca tinca", "crane (3)"],
        "probabilities": [1, 4],
        "interface": '{"normalize": 255, "softmax": true}',
    }
