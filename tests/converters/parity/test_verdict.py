"""Right artefacts pass; and how the number that decides is computed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest

from converters.convert import ConvertOptions, convert
from converters.folder import ConvertedFolder
from converters.parity.units import units_of
from converters.parity.verdict import MAX_LIMIT, RMS_LIMIT, Measurement, Outputs, Verdict, judge
from tests.converters.parity.networks import FORMS, NETWORKS, Network, export, random_network
from tests.oracles import pycls

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

ORACLE = np.array([[4.0, 0.0], [0.0, 3.0]])
STEP = 2.0**-12
"""An error far above rounding, exact in float32."""

WIDE = np.tile(ORACLE, 5000)
"""So many values that the unit has no doubt."""


def judged(
    outputs: Outputs, eager: Sequence[Outputs], oracle: Outputs, precision: str = "float32"
) -> Measurement:
    units = units_of([{"native": run} for run in eager], {"native": oracle})
    (measurement,) = judge({"native": outputs}, units, {"native": oracle}, precision)
    return measurement


def measured(
    output: NDArray[np.floating],
    *,
    eager: NDArray[np.floating] = ORACLE + STEP,
    oracle: NDArray[np.float64] = ORACLE,
) -> Measurement:
    return judged({"logits": output}, [{"logits": eager}], {"logits": oracle})


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
    convert(path, tmp_path / "out", ConvertOptions(formats=()))
    network = Network.of(ConvertedFolder(tmp_path / "out"))
    for form in FORMS:
        report = network.report(form, export(network.folder, form))
        assert report.passed, report.failures


def test_the_unit_is_the_error_of_float32_pytorch() -> None:
    errors = np.tile([[3.0, 1.0], [1.0, 1.0]], 5000)
    measurement = measured(WIDE + STEP * errors, eager=WIDE + STEP, oracle=WIDE)
    assert measurement.max_ratio == pytest.approx(3, rel=1e-2)
    assert measurement.rms_ratio == pytest.approx(np.sqrt(12 / 4), rel=1e-2)
    assert measurement.failure is None


def test_the_unit_is_the_largest_error_of_all_honest_runs() -> None:
    runs = [Outputs(logits=WIDE + error) for error in (STEP, -3 * STEP, 2 * STEP)]
    measurement = judged(Outputs(logits=WIDE + STEP), runs, Outputs(logits=WIDE))
    assert measurement.unit
    assert measurement.unit.rms == measurement.unit.max == pytest.approx(3 * STEP, rel=1e-2)
    assert measurement.rms_ratio == measurement.max_ratio == pytest.approx(1 / 3, rel=1e-2)


def test_a_few_values_that_are_right_by_luck_do_not_shrink_the_unit() -> None:
    right, off = Outputs(logits=ORACLE), Outputs(logits=ORACLE + STEP)
    truth = {"lucky": right, "other": right, "third": right}
    units = units_of([{"lucky": right, "other": off, "third": off}], truth)
    doubt = 1.5
    borrowed = 16 / 20
    assert units["lucky"]["logits"].rms == pytest.approx(doubt * STEP * np.sqrt(borrowed))
    assert units["other"]["logits"].rms == pytest.approx(doubt * STEP)


def test_many_values_speak_for_themselves() -> None:
    truth = {name: Outputs(logits=np.linspace(1, 2, 10_000)[None]) for name in "abc"}
    runs = {name: Outputs(logits=truth[name]["logits"] + 10 * STEP) for name in "bc"}
    units = units_of([runs | {"a": Outputs(logits=truth["a"]["logits"] + STEP)}], truth)
    assert STEP < units["a"]["logits"].rms < 1.1 * STEP


def test_one_batch_that_amplifies_rounding_does_not_widen_the_others() -> None:
    truth = {name: Outputs(logits=ORACLE) for name in "abcd"}
    calm = {name: Outputs(logits=ORACLE + STEP) for name in "abc"}
    before = units_of([calm | {"d": Outputs(logits=ORACLE + STEP)}], truth)
    after = units_of([calm | {"d": Outputs(logits=ORACLE + 1e6 * STEP)}], truth)
    assert before["a"] == after["a"]


def test_what_is_borrowed_scales_with_the_output() -> None:
    truth = {name: Outputs(logits=ORACLE) for name in "abc"} | {
        "large": Outputs(logits=1000 * ORACLE)
    }
    off = {name: Outputs(logits=outputs["logits"] * 1.001) for name, outputs in truth.items()}
    units = units_of([off | {"large": truth["large"]}], truth)
    assert units["large"]["logits"].rms > 500 * units["a"]["logits"].rms


def test_a_logit_near_zero_has_the_error_of_the_sums_behind_it() -> None:
    truth = {name: Outputs(logits=np.array([[1.0]])) for name in ("a", "b", "c")}
    truth["zero"] = Outputs(logits=np.array([[1e-9]]))
    runs = {name: Outputs(logits=outputs["logits"] + STEP) for name, outputs in truth.items()}
    units = units_of([runs], truth)
    assert units["zero"]["logits"].rms == pytest.approx(units["a"]["logits"].rms)


def test_the_unit_is_at_least_two_roundings() -> None:
    rounding = float(np.finfo(np.float32).eps)
    measurement = measured(ORACLE + 2 * rounding, eager=ORACLE)
    assert measurement.max_ratio == pytest.approx(1 / 2.5)  # the RMS of the oracle is 2.5


def test_the_limit_of_the_rms_error() -> None:
    right, wrong = (WIDE + share * RMS_LIMIT * STEP for share in (0.99, 1.02))
    assert measured(right, eager=WIDE + STEP, oracle=WIDE).failure is None
    failure = measured(wrong, eager=WIDE + STEP, oracle=WIDE).failure
    assert failure == "RMS error of logits is 4.08 times float32 PyTorch's own, limit 4"


def test_the_limit_of_the_largest_error() -> None:
    output = WIDE.copy()
    output[0, 0] += 1.02 * MAX_LIMIT * STEP
    failure = measured(output, eager=WIDE + STEP, oracle=WIDE).failure
    assert failure == "largest error of logits is 8.16 times float32 PyTorch's own, limit 8"


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
    measurement = judged({}, [Outputs(logits=ORACLE)], Outputs(logits=ORACLE))
    assert measurement.failure == "there is no output logits"


def test_an_output_that_is_zero_for_all_may_be_zero() -> None:
    zero = Outputs(logits=np.zeros((1, 2)))
    assert judged(zero, [zero], zero).failure is None
    assert judged(Outputs(logits=np.full((1, 2), 0.5)), [zero], zero).failure is not None


def test_other_precisions_are_named() -> None:
    runs = [Outputs(logits=WIDE + STEP)]
    measurement = judged(
        Outputs(logits=WIDE + 5 * STEP), runs, Outputs(logits=WIDE), precision="bfloat16"
    )
    assert measurement.failure == "RMS error of logits is 5 times honest bfloat16's own, limit 4"


@pytest.mark.parametrize(
    ("rms_ratio", "max_ratio", "reason"),
    [
        (1.5, 2.0, "odd: RMS error of logits is 1.5 times float32 PyTorch's own, limit 4"),
        (0.5, 4.0, "odd: largest error of logits is 4 times float32 PyTorch's own, limit 8"),
    ],
)
def test_a_pass_names_the_number_that_came_nearest_to_a_fail(
    rms_ratio: float, max_ratio: float, reason: str
) -> None:
    near = Measurement("native", "logits", (1, 2), rms_ratio=0.1, max_ratio=0.2)
    worst = Measurement("odd", "logits", (1, 2), rms_ratio=rms_ratio, max_ratio=max_ratio)
    assert Verdict("model.onnx", "onnxruntime", "float32", (near, worst)).reason == reason


def test_pytorch_that_is_not_finite_is_no_pass() -> None:
    assert measured(ORACLE, eager=ORACLE * np.float64(np.nan)).failure is not None


def test_a_verdict_on_nothing_is_no_pass() -> None:
    verdict = Verdict("model.onnx", "onnxruntime", "float32", ())
    assert not verdict.passed
    assert verdict.worst("rms_ratio") == np.inf
