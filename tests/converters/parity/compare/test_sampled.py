"""The unit of two artefacts, where there are no weights to compute it from."""

from __future__ import annotations

import numpy as np
import pytest

from converters.parity.compare.outputs import units_of
from converters.parity.metrics import Outputs

ORACLE = np.array([[4.0, 0.0], [0.0, 3.0]])
STEP = 2.0**-12
"""An error far above rounding, exact in float32."""

WIDE = np.tile(ORACLE, 5000)
"""So many values that the unit has no doubt."""


def test_the_unit_is_the_largest_error_of_all_honest_runs() -> None:
    runs = [Outputs(logits=WIDE + error) for error in (STEP, -3 * STEP, 2 * STEP)]
    units = units_of([{"native": run} for run in runs], {"native": Outputs(logits=WIDE)})
    unit = units["native"]["logits"]
    assert unit.rms == unit.max == pytest.approx(3 * STEP, rel=1e-2)


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
    runs = {"native": Outputs(logits=ORACLE)}
    unit = units_of([runs], runs)["native"]["logits"]
    assert unit.max == pytest.approx(2 * 2.5 * rounding)  # the RMS of the oracle is 2.5
