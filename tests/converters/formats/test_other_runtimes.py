"""`model.onnx` in tract, MNN, OpenCV and as ONNX Runtime's `.ort`: judged, never written."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.errors import InputError, StorageError
from converters.folder.record import Record
from converters.formats.confined.runtime import ConfinedRuntime
from converters.formats.format import ExportOptions
from converters.formats.registry import FORMATS, OTHER_RUNTIMES
from converters.jobs.bench import bench
from converters.jobs.evaluate import evaluate
from converters.jobs.predict import open_runtime, predict
from converters.parity.recording import with_verdicts
from converters.parity.verify import verify_artefacts, verify_folder
from tests.converters.demo import sample_images
from tests.converters.parity.networks import WIDER, Network, random_network

if TYPE_CHECKING:
    from pathlib import Path

RUNTIMES = ("tract", "mnn", "opencv", "ort")
NAMES = {"tract": "tract", "mnn": "mnn", "opencv": "opencv", "ort": "onnxruntime"}
MODULES = {"tract": "tract", "mnn": "MNN", "opencv": "cv2"}
"""What is imported, of those that are extras."""


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    for module in MODULES.values():
        if module != "MNN":  # which prints where it is imported
            pytest.importorskip(module)


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    return with_onnx(tmp_path_factory.mktemp("network") / "folder", "Y")


def with_onnx(path: Path, name: str, *, classifier: bool = True) -> Network:
    network = random_network(path, name, classifier=classifier)
    FORMATS["onnx"].export(network.folder, path / "model.onnx", ExportOptions())
    return network


def require_passes(network: Network) -> None:
    path = network.folder.path / "model.onnx"
    report = verify_artefacts(network.folder, network.truth, {"onnx": path}, runtimes=RUNTIMES)
    own, *others = report.verdicts[1:]
    assert [verdict.artefact for verdict in others] == [f"model.onnx ({n})" for n in RUNTIMES]
    for name, verdict in zip(RUNTIMES, others, strict=True):
        assert verdict.passed, verdict.reason
        assert verdict.runtime.startswith(NAMES[name])
        assert verdict.tensors == own.tensors


def test_a_right_file_passes_in_each(network: Network) -> None:
    require_passes(network)


@pytest.mark.slow
def test_a_file_that_shares_its_weights_passes_in_each(tmp_path: Path) -> None:
    network = random_network(tmp_path / "folder", "Y")
    path = network.folder.path / "model.onnx"
    FORMATS["onnx"].export(network.folder, path, ExportOptions(share_weights=True))
    require_passes(network)


@pytest.mark.slow
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("classifier", [True, False], ids=["classifier", "trunk"])
@pytest.mark.parametrize("name", ["X", "Y, silu", *WIDER])
def test_networks_of_every_kind_pass_unless_the_runtime_computes_something_else(
    name: str, classifier: bool, runtime: str, tmp_path: Path
) -> None:
    network = with_onnx(tmp_path / "folder", name, classifier=classifier)
    config = network.folder.config
    if runtime == "tract" and config.norm != "batch":
        pytest.skip("tract needs a minute to load it")
    report = verify_artefacts(
        network.folder,
        network.truth,
        {"onnx": network.folder.path / "model.onnx"},
        runtimes=[runtime],
    )
    failed = {each.batch for each in report.verdicts[-1].measurements if each.failure}
    if runtime == "opencv" and config.padding == "same":  # it pads alike on all sides
        assert "native" in failed
    elif runtime == "tract" and config.hidden_act == "silu":  # its sigmoid is never below 4e-7
        assert failed <= {"extremes"}
    else:
        assert report.passed, report.verdicts[-1].reason


def test_another_network_s_file_fails_in_each(network: Network, tmp_path: Path) -> None:
    other = with_onnx(tmp_path / "other", "Y, silu")
    path = other.folder.path / "model.onnx"
    report = verify_artefacts(network.folder, network.truth, {"onnx": path}, runtimes=["opencv"])
    failed = report.verdicts[-1]
    assert failed.artefact == "model.onnx (opencv)"
    assert any(measurement.failure for measurement in failed.measurements)


def test_they_run_in_a_process_of_their_own_whatever_they_print(
    network: Network, capfd: pytest.CaptureFixture[str]
) -> None:
    runtime = open_runtime(network.folder, "mnn")
    assert isinstance(runtime, ConfinedRuntime)
    pixels = np.random.default_rng(0).standard_normal((2, 3, 33, 40)).astype(np.float32)
    expected = open_runtime(network.folder, "onnx")(pixels)["logits"]
    np.testing.assert_allclose(runtime(pixels)["logits"], expected, rtol=1e-4, atol=1e-5)
    assert capfd.readouterr() == ("", "")


@pytest.mark.slow
def test_predict_evaluate_and_bench_take_each(demo_folder: Path, tmp_path: Path) -> None:
    pictures = [path for path, _ in sample_images(tmp_path, 4)]
    for index, path in enumerate(pictures[:2]):
        (tmp_path / "val" / str(index)).mkdir(parents=True)
        shutil.copy(path, tmp_path / "val" / str(index))
    wanted = [each.classes[0] for each in predict(demo_folder, pictures)]
    for runtime in RUNTIMES:
        found = [each.classes[0] for each in predict(demo_folder, pictures, runtime=runtime)]
        assert [label for label, _ in found] == [label for label, _ in wanted]
        assert [p for _, p in found] == pytest.approx([p for _, p in wanted], abs=1e-5)
    labels = [*map(str, range(10))]
    result = evaluate(demo_folder, tmp_path / "val", runtimes=RUNTIMES, labels=labels)
    assert set(result.evaluation.scores) == set(RUNTIMES)
    assert all(each.largest < 1e-3 for each in result.evaluation.agreements.values())
    timed = bench(demo_folder, runtimes=RUNTIMES, batch_sizes=(1,), rounds=1)
    assert not timed.absent
    assert set(RUNTIMES) <= {entry.contender.runtime for entry in timed.entries}


def test_a_runtime_that_is_not_known_or_has_nothing_to_run_is_refused(tmp_path: Path) -> None:
    folder = random_network(tmp_path / "folder", "X").folder
    with pytest.raises(InputError, match=r"^--runtime onnx is none .*; choose among tract, mnn, "):
        verify_folder(folder, runtimes=["onnx"])
    with pytest.raises(InputError, match=r" has no model\.onnx for tract; write it with `regnet "):
        verify_folder(folder, runtimes=["tract"])


@pytest.mark.parametrize("name", MODULES)
def test_a_missing_extra_is_named_in_one_sentence(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("converters.errors.find_spec", lambda _: None)
    _, other = OTHER_RUNTIMES[name]
    with pytest.raises(StorageError, match=rf'pip install "regnet-converters\[{name}\]"`\.$'):
        other.load(tmp_path / "model.onnx", ("logits",))


def test_a_replaced_file_takes_the_verdicts_in_other_runtimes_with_it() -> None:
    def verdict(artefact: str) -> dict[str, object]:
        return {"artefact": artefact, "runtime": "x", "passed": True, "measurements": [{}]}

    names = ["model.onnx", "model.ncnn.param", "model.ncnn.param (ncnn-default)"]
    record = with_verdicts(
        Record({"files": {}, "verification": {"verdicts": []}}), map(verdict, names)
    )
    assert [kept["artefact"] for kept in record.verdicts] == names
    left = with_verdicts(record, [], ["model.ncnn.param", "model.ncnn.bin"])
    assert json.dumps([kept["artefact"] for kept in left.verdicts]) == '["model.onnx"]'
