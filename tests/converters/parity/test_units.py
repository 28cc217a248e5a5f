"""The unit is what honest runtimes get wrong, also where two runs would be two lucky draws."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from safetensors.numpy import load_file, save_file
from torch import nn

from converters.folder.folder import ConvertedFolder
from converters.folder.inputs import verification_inputs
from converters.formats.format import ExportOptions
from converters.formats.onnx.runtime import OnnxRuntime
from converters.formats.reference import ReferenceRuntime
from converters.formats.registry import FORMATS
from converters.parity import injection, units
from converters.parity.compare.outputs import units_of
from converters.parity.metrics import Errors
from converters.parity.truth import Truth, run
from converters.parity.verdict import RMS_LIMIT, judge
from regnet import RegNetConfig, RegNetForImageClassification, RegNetModel
from regnet.files.safetensors_file import WEIGHTS_NAME
from tests.oracles.statistics import ADVERSARIAL, adversarial, randomise

if TYPE_CHECKING:
    from pathlib import Path

SIZE = 40


def network(
    path: Path,
    statistics: str = "realistic",
    dtype: torch.dtype = torch.float32,
    kind: type[RegNetForImageClassification | RegNetModel] = RegNetForImageClassification,
    **fields: object,
) -> ConvertedFolder:
    config = {"embedding_size": 8, "hidden_sizes": (16, 24), "depths": (1, 2), "groups_width": 8}
    torch.manual_seed(7)
    model: nn.Module = kind(RegNetConfig(**config | {"num_labels": 10} | fields))  # type: ignore[arg-type]
    if statistics == "realistic":
        randomise(model)
    elif statistics != "fresh":
        adversarial(model, statistics)
    model.to(dtype).save_pretrained(path)  # type: ignore[operator]
    return ConvertedFolder(path)


def truth_of(folder: ConvertedFolder) -> Truth:
    return Truth(folder, verification_inputs(folder.config.num_channels, SIZE))


def worst(truth: Truth, outputs: dict[str, dict[str, np.ndarray]]) -> float:
    measured = judge(outputs, truth.units(), truth.oracle)
    assert not any("finite" in (m.failure or "") for m in measured)
    return max(m.rms_ratio or 0 for m in measured if "every image" not in (m.failure or ""))


REFUSED = {
    "a bfloat16 trunk whose stage has gammas of 0": {
        "statistics": "gammas of zero",
        "dtype": torch.bfloat16,
        "hidden_sizes": (16,),
        "depths": (2,),
    },
    "one stage of tiny variances": {
        "statistics": "tiny variances",
        "hidden_sizes": (16,),
        "depths": (2,),
        "num_labels": 3,
    },
    "equal channels in bfloat16": {
        "statistics": "equal channels",
        "dtype": torch.bfloat16,
        "kind": RegNetModel,
    },
    "fresh, one channel": {"statistics": "fresh", "num_channels": 1},
    "fresh, one class": {"statistics": "fresh", "num_labels": 1},
    "stored in float64": {"statistics": "large means", "dtype": torch.float64},
    "an activation that grows": {"statistics": "realistic", "hidden_act": "selu"},
    **{kind: {"statistics": kind} for kind in ADVERSARIAL},
}
"""Kinds of networks, of which two honest runs made a unit that refused right artefacts."""


@pytest.mark.parametrize("kind", REFUSED)
def test_honest_runtimes_are_far_from_the_limit(kind: str, tmp_path: Path) -> None:
    folder = network(tmp_path, **REFUSED[kind])  # type: ignore[arg-type]
    truth = truth_of(folder)
    FORMATS["onnx"].export(folder, tmp_path / "model.onnx", ExportOptions())
    ratios = {"onnxruntime": worst(truth, run(OnnxRuntime(tmp_path / "model.onnx"), truth.inputs))}
    ratios["eager"] = worst(truth, dict(truth.eager))
    reference = ReferenceRuntime(folder).model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.inference_mode():
        last = {batch: reference(torch.from_numpy(x)) for batch, x in truth.inputs.items()}
    names = folder.output_names
    ratios["channels last"] = worst(
        truth, {batch: {name: y[name].numpy() for name in names} for batch, y in last.items()}
    )
    assert max(ratios.values()) < 0.75 * RMS_LIMIT, ratios


@pytest.mark.parametrize("kind", ["gammas of zero", "fresh", "saturated gates"])
def test_openvino_is_far_from_the_limit(kind: str, tmp_path: Path) -> None:
    folder = network(tmp_path, kind, hidden_sizes=(16,), depths=(2,))
    truth = truth_of(folder)
    path = tmp_path / FORMATS["openvino"].file_name
    FORMATS["openvino"].export(folder, path, ExportOptions())
    runtime = FORMATS["openvino"].load(path, folder.output_names)
    assert worst(truth, run(runtime, truth.inputs)) < 0.75 * RMS_LIMIT


def test_a_fault_shows_on_impulses_that_two_runs_and_borrowing_hid(tmp_path: Path) -> None:
    """Borrowing from larger batches made the unit of impulses many times too wide."""
    folder = network(tmp_path, "fresh", num_labels=2)
    truth = truth_of(folder)
    path = tmp_path / "model.onnx"
    FORMATS["onnx"].export(folder, path, ExportOptions())
    model = onnx.load(path)
    stem = next(t for t in model.graph.initializer if len(t.dims) == 4)
    values = numpy_helper.to_array(stem).copy()
    values *= 1 + 2.0**-20
    stem.CopyFrom(numpy_helper.from_array(values, stem.name))
    onnx.save(model, path)
    outputs = run(OnnxRuntime(path), truth.inputs)

    def ratio(unit: Errors) -> float:
        found = outputs["impulses"]["logits"]
        return Errors.of(found, truth.oracle["impulses"]["logits"]).rms / unit.rms

    sampled = units_of([dict(truth.eager)], truth.oracle)
    assert ratio(sampled["impulses"]["logits"]) < RMS_LIMIT
    assert ratio(truth.units()["impulses"]["logits"]) > RMS_LIMIT


def test_the_unit_scales_with_the_classifier_to_the_last_bit(tmp_path: Path) -> None:
    before = truth_of(network(tmp_path)).units()
    state = load_file(tmp_path / WEIGHTS_NAME)
    for name in ("classifier.1.weight", "classifier.1.bias"):
        state[name] = state[name] * np.float32(2.0**20)
    save_file(state, tmp_path / WEIGHTS_NAME)
    after = truth_of(ConvertedFolder(tmp_path)).units()
    for batch, named in before.items():
        assert after[batch]["logits"].rms == pytest.approx(2.0**20 * named["logits"].rms, rel=1e-6)


def test_the_same_folder_has_the_same_unit_every_time(tmp_path: Path) -> None:
    folder = network(tmp_path)
    assert truth_of(folder).units() == truth_of(folder).units()
    assert truth_of(folder).units("float16") == truth_of(folder).units("float16")


def test_how_much_errors_are_amplified_hardly_matters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = network(tmp_path)
    usual = truth_of(folder).units()
    monkeypatch.setattr(injection, "AMPLIFIED", 16.0)
    monkeypatch.setattr(injection, "_UNIT", 2.0**-20)
    monkeypatch.setattr(units, "AMPLIFIED", 16.0)
    for batch, named in truth_of(folder).units().items():
        assert named["logits"].rms == pytest.approx(usual[batch]["logits"].rms, rel=0.2)


@pytest.mark.parametrize("classes", [1, 2])
def test_few_outputs_have_no_lucky_unit(
    classes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = network(tmp_path, num_labels=classes)
    drawn = truth_of(folder).units()
    monkeypatch.setattr(units, "_MOST", 100)
    monkeypatch.setattr(units, "_BUDGET", 10**12)
    for batch, named in truth_of(folder).units().items():
        assert drawn[batch]["logits"].rms > 0.7 * named["logits"].rms


def test_an_error_of_one_source_widens_the_unit_of_few_draws() -> None:
    random = np.random.default_rng(0)
    truth = np.zeros((3, 50))
    several = units.widening(random.standard_normal((4, 3, 50)), truth)
    one = units.widening(random.standard_normal((4, 1, 1)) * np.ones((3, 50)), truth)
    assert several == pytest.approx(1, abs=0.05)
    assert one == pytest.approx(np.sqrt(5))


def test_a_network_that_float16_cannot_hold_has_no_verdict_in_float16(tmp_path: Path) -> None:
    folder = network(tmp_path)
    state = load_file(tmp_path / WEIGHTS_NAME)
    state["regnet.embedder.embedder.normalization.weight"] *= 1e6
    save_file(state, tmp_path / WEIGHTS_NAME)
    truth = truth_of(ConvertedFolder(folder.path))
    honest = {batch: truth.oracle[batch] for batch in truth.inputs_for("float16")}
    failures = {m.failure for m in judge(honest, truth.units("float16"), truth.oracle, "float16")}
    assert failures == {"an honest float16 computation of logits leaves the range of float16"}
