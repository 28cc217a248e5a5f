"""Right artefacts pass; and how the number that decides is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.folder.folder import ConvertedFolder
from converters.jobs.convert import convert
from converters.parity.metrics import Errors, Outputs
from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT, Measurement, Verdict, judge
from tests.converters.parity.networks import FORMS, NETWORKS, Network, export, random_network
from tests.oracles import pycls

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

ORACLE = np.array([[4.0, 0.0], [0.0, 3.0]])
STEP = 2.0**-12
"""An error far above rounding, exact in float32."""

WIDE = np.tile(ORACLE, 5000)
"""Many values."""


def judged(
    outputs: Outputs, honest: Outputs, oracle: Outputs, precision: str = "float32"
) -> Measurement:
    units = {"native": {name: Errors.of(honest[name], oracle[name]) for name in oracle}}
    (measurement,) = judge({"native": outputs}, units, {"native": oracle}, precision)
    return measurement


def measured(
    output: NDArray[np.floating],
    *,
    honest: NDArray[np.floating] = ORACLE + STEP,
    oracle: NDArray[np.float64] = ORACLE,
) -> Measurement:
    return judged({"logits": output}, {"logits": honest}, {"logits": oracle})


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("seed", range(3))
def test_right_artefacts_pass(name: str, seed: int, tmp_path: Path) -> None:
    network = random_network(tmp_path, name, seed=seed)
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures
        assert [len(verdict.measurements) for verdict in report.verdicts] == [7, 7]


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
    convert(path, tmp_path / "out", formats=())
    network = Network.of(ConvertedFolder(tmp_path / "out"))
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures


def test_ratios_are_errors_in_units() -> None:
    errors = np.tile([[3.0, 1.0], [1.0, 1.0]], 5000)
    measurement = measured(WIDE + STEP * errors, honest=WIDE + STEP, oracle=WIDE)
    assert measurement.max_ratio == pytest.approx(3, rel=1e-2)
    assert measurement.rms_ratio == pytest.approx(np.sqrt(12 / 4), rel=1e-2)
    assert measurement.failure is None


def test_the_limit_of_the_rms_error() -> None:
    right, wrong = (WIDE + share * RMS_LIMIT * STEP for share in (0.99, 1.02))
    assert measured(right, honest=WIDE + STEP, oracle=WIDE).failure is None
    failure = measured(wrong, honest=WIDE + STEP, oracle=WIDE).failure
    assert failure == "RMS error of logits is 4.08 times honest float32's own, limit 4"


def test_the_limit_of_the_largest_error() -> None:
    output = WIDE.copy()
    output[0, 0] += 1.02 * MAX_LIMIT * STEP
    failure = measured(output, honest=WIDE + STEP, oracle=WIDE).failure
    assert failure == "largest error of logits is 6.12 times honest float32's own, limit 6"


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
    assert measured(output, honest=oracle, oracle=oracle).failure == failure


def test_a_missing_output_fails() -> None:
    measurement = judged({}, Outputs(logits=ORACLE), Outputs(logits=ORACLE))
    assert measurement.failure == "there is no output logits"


def test_an_output_that_is_zero_for_all_may_be_zero() -> None:
    zero = Outputs(logits=np.zeros((1, 2)))
    assert judged(zero, zero, zero).failure is None
    assert judged(Outputs(logits=np.full((1, 2), 0.5)), zero, zero).failure is not None


def test_other_precisions_are_named() -> None:
    honest = Outputs(logits=WIDE + STEP)
    measurement = judged(
        Outputs(logits=WIDE + 5 * STEP), honest, Outputs(logits=WIDE), precision="bfloat16"
    )
    assert measurement.failure == "RMS error of logits is 5 times honest bfloat16's own, limit 4"


@pytest.mark.parametrize(
    ("rms_ratio", "max_ratio", "reason"),
    [
        (1.5, 2.0, "odd: RMS error of logits is 1.5 times honest float32's own, limit 4"),
        (0.5, 4.0, "odd: largest error of logits is 4 times honest float32's own, limit 6"),
    ],
)
def test_a_pass_names_the_number_that_came_nearest_to_a_fail(
    rms_ratio: float, max_ratio: float, reason: str
) -> None:
    near = Measurement("native", "logits", (1, 2), rms_ratio=0.1, max_ratio=0.2)
    worst = Measurement("odd", "logits", (1, 2), rms_ratio=rms_ratio, max_ratio=max_ratio)
    assert Verdict("model.onnx", "onnxruntime", "float32", (near, worst)).reason == reason


def test_a_unit_that_is_not_finite_is_no_pass() -> None:
    failure = measured(ORACLE, honest=ORACLE * np.float64(np.nan)).failure
    assert failure == "an honest float32 computation of logits leaves the range of float32"


def test_a_verdict_on_nothing_is_no_pass() -> None:
    verdict = Verdict("model.onnx", "onnxruntime", "float32", ())
    assert not verdict.passed
    assert verdict.worst("rms_ratio") == np.inf
