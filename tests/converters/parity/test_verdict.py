"""Right artefacts pass; and how the number that decides is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import ConvertOptions, convert
from converters.folder import ConvertedFolder
from converters.parity.inputs import verification_inputs
from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT, Measurement, Outputs, Verdict, judge
from tests.converters.parity.networks import FORMS, NETWORKS, Network, export, random_network
from tests.oracles import pycls

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ORACLE = np.array([[4.0, 0.0], [0.0, 3.0]])
STEP = 2.0**-12
"""An error far above rounding, exact in float32."""


def measured(
    output: NDArray[np.floating],
    *,
    eager: NDArray[np.floating] = ORACLE + STEP,
    oracle: NDArray[np.float64] = ORACLE,
) -> Measurement:
    arrays = (output, eager, oracle)
    (measurement,) = judge(*({"native": {"logits": array}} for array in arrays))
    return measurement


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_right_artefacts_pass(name: str, seed: int, tmp_path: Path) -> None:
    network = random_network(tmp_path, name, seed=seed)
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures
        assert [len(verdict.measurements) for verdict in report.verdicts] == [2, 2]


@pytest.mark.parametrize("name", ["X", "Y, silu"])
def test_right_artefacts_of_a_trunk_pass(name: str, tmp_path: Path) -> None:
    network = random_network(tmp_path, name, classifier=False)
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures
        outputs = {measurement.output for measurement in report.verdicts[1].measurements}
        assert outputs == {"last_hidden_state", "pooler_output"}


@pytest.mark.parametrize(
    "name",
    [
        "RegNetX-200MF",
        pytest.param("RegNetY-800MF", marks=pytest.mark.slow),
        pytest.param("RegNetY-4.0GF", marks=pytest.mark.slow),
    ],
)
def test_right_artefacts_of_published_networks_pass(name: str, tmp_path: Path) -> None:
    regnet = pycls.published(name)
    path = tmp_path / "network.pyth"
    pycls.save(path, pycls.build(regnet), regnet, optimiser=False)
    convert(path, tmp_path / "out", ConvertOptions(formats=()))
    network = Network.of(ConvertedFolder(tmp_path / "out"))
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures


def test_the_unit_is_the_error_of_float32_pytorch() -> None:
    measurement = measured(ORACLE + STEP * np.array([[3.0, 1.0], [1.0, 1.0]]))
    assert measurement.max_ratio == 3
    assert measurement.rms_ratio == pytest.approx(np.sqrt(12 / 4))
    assert measurement.failure is None


def test_a_batch_on_which_pytorch_is_right_by_luck_does_not_shrink_the_unit() -> None:
    right, off, twice_off = (Outputs(logits=ORACLE + error * STEP) for error in range(3))
    lucky, other = judge(
        {"lucky": twice_off, "other": twice_off},
        {"lucky": right, "other": off},
        {"lucky": right, "other": right},
    )
    assert lucky.rms_ratio == pytest.approx(2 * np.sqrt(2))
    assert other.rms_ratio == 2
    assert lucky.max_ratio == other.max_ratio == 2


def test_the_unit_is_at_least_two_roundings() -> None:
    rounding = float(np.finfo(np.float32).eps)
    measurement = measured(ORACLE + 2 * rounding, eager=ORACLE)
    assert measurement.max_ratio == pytest.approx(1 / 2.5)  # the RMS of the oracle is 2.5


def test_the_limit_of_the_rms_error() -> None:
    assert measured(ORACLE + 0.99 * RMS_LIMIT * STEP).failure is None
    failure = measured(ORACLE + 1.01 * RMS_LIMIT * STEP).failure
    assert failure == "RMS error of logits is 4.04 times float32 PyTorch's own, limit 4"


def test_the_limit_of_the_largest_error() -> None:
    oracle = np.zeros((2, 100))
    oracle[0] = 1
    output = oracle.copy()
    output[0, 0] += 1.01 * MAX_LIMIT * STEP
    failure = measured(output, eager=oracle + STEP, oracle=oracle).failure
    assert failure == "largest error of logits is 8.08 times float32 PyTorch's own, limit 8"


@pytest.mark.parametrize(
    ("output", "oracle", "failure"),
    [
        (ORACLE[:1], ORACLE, "logits has shape (1, 2) where (2, 2) belongs"),
        (ORACLE.T[:, :, None], ORACLE, "logits has shape (2, 2, 1) where (2, 2) belongs"),
        (np.array([[4, np.inf], [0, 3]]), ORACLE, "1 of 4 values of logits are NaN or infinite"),
        (ORACLE * np.nan, ORACLE, "4 of 4 values of logits are NaN or infinite"),
        (
            ORACLE,
            ORACLE * np.nan,
            "the oracle's own logits is not finite, so the weights are damaged",
        ),
        (
            np.ones((2, 2)),
            np.ones((2, 2)),
            "logits is the same for every image, so agreement would prove nothing",
        ),
    ],
)
def test_what_cannot_be_measured_fails_in_its_own_words(
    output: NDArray[np.float64], oracle: NDArray[np.float64], failure: str
) -> None:
    assert measured(output, eager=oracle, oracle=oracle).failure == failure


def test_a_missing_output_fails() -> None:
    outputs = {"native": {"logits": ORACLE}}
    (measurement,) = judge({"native": {}}, outputs, outputs)
    assert measurement.failure == "there is no output logits"


def test_pytorch_that_is_not_finite_is_no_pass() -> None:
    assert measured(ORACLE, eager=ORACLE * np.float64(np.nan)).failure is not None


def test_a_verdict_on_nothing_is_no_pass() -> None:
    verdict = Verdict("model.onnx", "onnxruntime", "float32", ())
    assert not verdict.passed
    assert verdict.worst("rms_ratio") == np.inf


@pytest.mark.parametrize(("channels", "size"), [(3, 224), (1, 32), (4, 97)])
def test_inputs_tell_axes_and_images_apart(channels: int, size: int) -> None:
    inputs = verification_inputs(channels, size)
    assert inputs["native"].shape == (1, channels, size, size)
    batch = inputs["mixed"]
    assert batch.shape[:2] == (3, channels)
    assert len({size, *batch.shape[2:]}) == 3 or size == 32
    assert all(image.dtype == np.float32 and 0.5 < image.std() < 3 for image in batch)
    again = verification_inputs(channels, size)
    assert all(inputs[name].tobytes() == again[name].tobytes() for name in inputs)
