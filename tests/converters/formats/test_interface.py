"""Artefacts that take pixels and give probabilities: right ones pass, wrong ones are named."""

from __future__ import annotations

import shutil
from dataclasses import replace
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from converters import compare, convert, evaluate, export, inspect, predict, verify
from converters.checkpoint.graph import INTERFACE
from converters.errors import InputError
from converters.folder import folder as folder_module
from converters.folder.folder import ConvertedFolder
from converters.folder.interface import NETWORK, Interface
from converters.formats.format import ExportOptions
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import FORMATS, interface_of, takers, write_artefacts
from converters.formats.runtime import softmax
from converters.parity.artefact import judge_artefact
from converters.parity.locate.location import locate
from converters.parity.truth import Truth
from converters.parity.verdict import PROVEN
from converters.parity.verify import fresh_inputs
from converters.reports.card import usage_section
from regnet.architecture import PROBABILITIES, deployed
from regnet.config import RegNetConfig
from regnet.image_processor import RegNetImageProcessor
from regnet.model import RegNetForImageClassification
from tests.converters.formats.onnx_helpers import SMALL
from tests.converters.formats.random_folder import random_folder

if TYPE_CHECKING:
    from pathlib import Path

    from converters.parity.verdict import Verdict

PIXELS_TO_PROBABILITIES = Interface(255, softmax=True)
SLOW = {
    *("pt2", "aotinductor", "executorch", "stablehlo", "coreai", "onnx-int8", "litert-int8"),
    *("onnx-web", "onnx-tuned", "onnx-int8-tuned", "coreml-fp16", "litert-fp16"),
}
"""That take many seconds to write or to run, or are written as others are."""


def random_picture(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (80, 90, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def present(name: str) -> bool:
    needs = FORMATS[name].needs
    return needs is None or find_spec(needs[0]) is not None


NAMES = [
    pytest.param(name, marks=pytest.mark.slow) if name in SLOW else name
    for name in takers("normalize")
    if present(name)
]
SOURCES = ("onnx", "torchscript", pytest.param("pt2", marks=pytest.mark.slow))
QUICK = ("onnx", "onnx-fp16", "torchscript", "ncnn", "litert", "coreml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> ConvertedFolder:
    path = tmp_path_factory.mktemp("network")
    random_folder(path, RegNetConfig(**SMALL))
    RegNetImageProcessor(size=64).save_pretrained(path)
    (path / "calibration").mkdir()
    for seed in range(4):
        random_picture(seed).save(path / "calibration" / f"{seed}.png")
    return ConvertedFolder(path)


@pytest.fixture(scope="module")
def truth(folder: ConvertedFolder) -> Truth:
    return Truth(folder, fresh_inputs(folder))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    random_picture(1).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def written(folder: ConvertedFolder, name: str, interface: Interface, place: Path) -> Path:
    path = place / FORMATS[name].file_name.rpartition("/")[2]
    write_artefacts(folder, {name: path}, ExportOptions(interface=interface))
    return path


def judged(truth: Truth, folder: ConvertedFolder, name: str, path: Path) -> Verdict:
    return judge_artefact(
        folder, truth, name, path, found=name == "pt2"
    )  # whose graph is read then


@pytest.mark.parametrize("interface", [PIXELS_TO_PROBABILITIES, Interface(1)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_a_right_artefact_passes_and_states_what_it_takes(
    name: str, interface: Interface, folder: ConvertedFolder, truth: Truth, tmp_path: Path
) -> None:
    path = written(folder, name, interface, tmp_path)

    verdict = judged(truth, folder, name, path)

    assert interface_of(name, path) == interface
    assert verdict.graph in {None, PROVEN}
    assert verdict.wrong is None, verdict.wrong
    assert {m.output for m in verdict.measurements} == set(folder.offering(interface).output_names)


FAULTS: dict[str, Any] = {
    "channels of the mean reversed": lambda mean, std: ((mean[::-1], std), True),
    "another deviation": lambda mean, std: ((mean, tuple(1.01 * each for each in std)), True),
    "another scale": lambda mean, std: (
        (tuple(each / 255 for each in mean), tuple(each / 255 for each in std)),
        True,
    ),
    "no softmax": lambda mean, std: ((mean, std), False),
}


HIDDEN = {"int8": ("channels of the mean reversed", "another deviation")}
"""What is less than the steps of a precision, so that the certificate alone sees it."""


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_wrong_artefact_fails_by_its_numbers_and_by_its_certificate(  # noqa: PLR0913, PLR0917
    name: str,
    fault: str,
    folder: ConvertedFolder,
    truth: Truth,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wrongly(operations: Any, statistics: Any, *, softmax: bool) -> Any:
        statistics, softmax = FAULTS[fault](*statistics)
        *others, last = deployed(operations, statistics, softmax=softmax)
        return (*others, replace(last, output=PROBABILITIES))

    with monkeypatch.context() as patched:
        patched.setattr(folder_module, "deployed", wrongly)
        path = written(folder, name, PIXELS_TO_PROBABILITIES, tmp_path)

    verdict = judged(truth, folder, name, path)

    shown = any(measured.failure for measured in verdict.measurements)
    assert shown or fault in HIDDEN.get(FORMATS[name].precision, ())
    if FORMATS[name].certificate:
        assert verdict.tensors
        assert verdict.tensors.wrong


def test_onnx_takes_the_image_processor_s_bytes(folder: ConvertedFolder, tmp_path: Path) -> None:
    import onnxruntime
    import torch

    path = written(folder, "onnx", PIXELS_TO_PROBABILITIES, tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (3, 70, 60)).astype(np.uint8)
    normalised = RegNetImageProcessor(size=64, crop_pct=1.0)(image, return_tensors="pt")
    taken = folder.offering(PIXELS_TO_PROBABILITIES).processor
    taken = taken(image, return_tensors="np", crop_pct=1.0)["pixel_values"]
    network = RegNetForImageClassification.from_pretrained(folder.path).eval()
    with torch.no_grad():
        expected = softmax(network(normalised["pixel_values"]).logits.numpy())

    (found,) = onnxruntime.InferenceSession(path).run(None, {"pixel_values": taken})

    assert set(np.unique(taken % 1)) == {0}
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_folder_records_what_its_artefacts_take_and_everything_reads_it(
    demo_folder: Path, picture: Path, tmp_path: Path
) -> None:
    demo_folder = shutil.copytree(demo_folder, tmp_path / "out")
    export(demo_folder, ["onnx", "torchscript"], normalize=255, softmax=True)
    images = picture.parent / "val"
    for index in range(2):
        (images / str(index)).mkdir(parents=True)
        shutil.copy(picture, images / str(index))

    runtimes = ["torch", "onnx", "torchscript"]
    best = [predict(demo_folder, picture, runtime=each, top=3)[0].classes for each in runtimes]
    evaluation = evaluate(demo_folder, images, labels=[*map(str, range(10))]).evaluation

    for classes in best[1:]:
        assert [label for label, _ in classes] == [label for label, _ in best[0]]
        scores = [[score for _, score in each] for each in (classes, best[0])]
        assert scores[0] == pytest.approx(scores[1], abs=1e-4)
    assert evaluation.compared == "probabilities"
    assert all(each.largest < 1e-4 for each in evaluation.agreements.values())
    assert verify(demo_folder).passed
    assert "pixels from 0 to 255, gives probabilities" in usage_section(
        ConvertedFolder(demo_folder)
    )
    record = (demo_folder / "conversion.json").read_text("utf-8")
    assert f'"{INTERFACE}"' in record


@pytest.mark.parametrize(
    "name", [name for name in QUICK if present(name) and FORMATS[name].intermediates]
)
def test_faults_are_located_in_what_normalises(
    name: str, folder: ConvertedFolder, truth: Truth, tmp_path: Path
) -> None:
    path = written(folder, name, PIXELS_TO_PROBABILITIES, tmp_path)

    found = locate(folder, name, path, truth.inputs["native"])

    assert found.culprit is None
    assert [found.modules[0].module, found.modules[-1].module] == ["normalise", "probabilities"]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"formats": ["onnx", "onnx-preprocessing"], "softmax": True},
            "not how onnx-preprocessing",
        ),
        ({"formats": ["onnx-preprocessing"], "normalize": 255}, "--normalize says how"),
        ({"formats": ["onnx"], "normalize": 2}, "--normalize 2 is no range of pixels"),
    ],
    ids=str,
)
def test_what_cannot_be_asked_for_is_refused(
    options: dict[str, Any], sentence: str, folder: ConvertedFolder
) -> None:
    with pytest.raises(InputError, match=sentence):
        export(folder.path, **options)


@pytest.mark.parametrize("labels", [None, 0, 1], ids=lambda labels: f"{labels} classes")
def test_what_has_no_two_classes_gives_no_probabilities(labels: int | None, tmp_path: Path) -> None:
    config = RegNetConfig(**SMALL if labels is None else SMALL | {"num_labels": labels})
    random_folder(tmp_path, config, classifier=labels is not None)
    RegNetImageProcessor(size=64).save_pretrained(tmp_path)

    with pytest.raises(InputError, match="has no classes to choose among"):
        export(tmp_path, ["onnx"], softmax=True)
    assert export(tmp_path, ["onnx"], normalize=1)


@pytest.mark.parametrize("interface", [PIXELS_TO_PROBABILITIES, Interface(1)], ids=str)
@pytest.mark.parametrize("name", SOURCES)
def test_such_a_file_is_a_source_whose_ends_become_the_processor_s(
    name: str, interface: Interface, folder: ConvertedFolder, tmp_path: Path
) -> None:
    path = written(folder, name, interface, tmp_path)

    convert(path, tmp_path / "out", formats=(), verify=False)

    found = ConvertedFolder(tmp_path / "out")
    assert found.preprocessing == folder.preprocessing
    pixels = np.random.default_rng(0).standard_normal((2, 3, 33, 40)).astype(np.float32)
    logits, expected = (ReferenceRuntime(each)(pixels)["logits"] for each in (found, folder))
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-4)


def test_beside_the_folder_s_own_files_it_is_a_source_all_the_same(
    folder: ConvertedFolder, tmp_path: Path
) -> None:
    shutil.copytree(folder.path, tmp_path / "in")
    (tmp_path / "in" / "model.safetensors").unlink()
    written(folder, "onnx", PIXELS_TO_PROBABILITIES, tmp_path / "in")

    convert(tmp_path / "in" / "model.onnx", tmp_path / "out", formats=(), verify=False)

    found = ConvertedFolder(tmp_path / "out")
    assert found.preprocessing == folder.preprocessing


def test_means_follow_channels_that_are_turned_round(
    folder: ConvertedFolder, tmp_path: Path
) -> None:
    path = written(folder, "onnx", Interface(255), tmp_path)

    convert(path, tmp_path / "out", channel_order="bgr", formats=(), verify=False)

    found = ConvertedFolder(tmp_path / "out").preprocessing
    for key in ("image_mean", "image_std"):
        assert found[key] == folder.preprocessing[key][::-1]


def test_a_file_that_does_something_else_than_it_states_is_no_source(
    folder: ConvertedFolder, tmp_path: Path
) -> None:
    import onnx

    path = written(folder, "onnx", Interface(255), tmp_path)
    model = onnx.load(path)
    (stated,) = (entry for entry in model.metadata_props if entry.key == INTERFACE)
    stated.value = '{"normalize": 255, "softmax": true}'
    onnx.save(model, path)

    with pytest.raises(InputError, match=r"model.onnx states .*, which its graph does not compute"):
        inspect(path)


def test_such_a_file_is_no_side_of_a_comparison(folder: ConvertedFolder, tmp_path: Path) -> None:
    path = written(folder, "onnx", PIXELS_TO_PROBABILITIES, tmp_path)

    with pytest.raises(InputError, match="was written with --normalize or --softmax"):
        compare(path, folder.path)


@pytest.mark.parametrize(
    "fields", [None, [], {"normalize": 3}, {"normalize": True}, {"softmax": 1}]
)
def test_what_is_stated_otherwise_is_the_network_s_own(fields: object) -> None:
    assert Interface.of(fields) == NETWORK
