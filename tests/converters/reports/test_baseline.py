"""A baseline fails on what got worse, and on nothing else."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Any

import pytest

from converters.errors import InputError
from converters.parity.report import VerificationError
from converters.reports.baseline import FACTOR, read_baseline, regressions
from converters.reports.findings import Findings

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from converters.parity.report import Report
    from converters.parity.verdict import Verdict

ONNX = "model.onnx"


def compared(before: Findings, now: Report, path: Path, factor: float = FACTOR) -> tuple[str, ...]:
    """Through a file, as the command does."""
    path.write_text(json.dumps(before.to_dict()))
    return regressions(now, read_baseline(path), factor)


def with_onnx(report: Report, change: Callable[[Verdict], Verdict]) -> Report:
    verdicts = [change(v) if v.artefact == ONNX else v for v in report.verdicts]
    return dataclasses.replace(report, verdicts=tuple(verdicts))


def with_ratios(ratio: str, value: float) -> Callable[[Verdict], Verdict]:
    def change(verdict: Verdict) -> Verdict:
        ratios: dict[str, Any] = {ratio: value}
        changed = tuple(dataclasses.replace(m, **ratios) for m in verdict.measurements)
        return dataclasses.replace(verdict, measurements=changed)

    return change


def with_tensors(**counts: Any) -> Callable[[Verdict], Verdict]:
    def change(verdict: Verdict) -> Verdict:
        assert verdict.tensors
        return dataclasses.replace(verdict, tensors=dataclasses.replace(verdict.tensors, **counts))

    return change


def with_classes(kind: str, proven: int) -> Callable[[Verdict], Verdict]:
    def change(verdict: Verdict) -> Verdict:
        first, *others = verdict.measurements
        fewer = dataclasses.replace(getattr(first, kind), proven=proven)
        first = dataclasses.replace(first, **{kind: fewer})
        return dataclasses.replace(verdict, measurements=(first, *others))

    return change


def test_the_same_report_is_no_regression(
    passing: Findings, failing: Findings, tmp_path: Path
) -> None:
    for findings in (passing, failing):
        assert compared(findings, findings.report, tmp_path / "b.json") == ()


def test_a_planted_fault_is_told_in_every_respect(
    passing: Findings, failing: Findings, tmp_path: Path
) -> None:
    clauses = compared(passing, failing.report, tmp_path / "b.json")
    assert clauses[0] == "model.onnx passed in the baseline and fails now"
    assert any("RMS ratio" in clause for clause in clauses)
    assert any("largest ratio" in clause for clause in clauses)
    assert all(clause.startswith(ONNX) for clause in clauses)
    assert compared(failing, passing.report, tmp_path / "b.json") == (
        f"{ONNX} has 58 recomputed tensors where it had 57",
    )


def test_what_is_gone_is_a_regression_and_what_is_new_is_none(
    passing: Findings, tmp_path: Path
) -> None:
    verdicts = tuple(v for v in passing.report.verdicts if v.artefact != ONNX)
    fewer = dataclasses.replace(passing.report, verdicts=verdicts)
    path = tmp_path / "b.json"
    assert compared(passing, fewer, path) == ("model.onnx of the baseline is gone",)
    assert compared(Findings("out", fewer), passing.report, path) == ()


@pytest.mark.parametrize(("ratio", "words"), [("rms_ratio", "RMS"), ("max_ratio", "largest")])
@pytest.mark.parametrize(
    ("before", "now", "factor", "worse"),
    [
        (0.1, 1.9, 2.0, False),  # below twice the unit a ratio is luck
        (0.1, 2.1, 2.0, True),
        (1.5, 2.9, 2.0, False),
        (1.5, 3.1, 2.0, True),
        (1.5, 1.9, 1.2, True),
        (3.0, 0.5, 2.0, False),
    ],
)
def test_a_ratio_may_grow_by_the_factor_over_the_baseline_and_the_unit(  # noqa: PLR0913, PLR0917
    ratio: str,
    words: str,
    before: float,
    now: float,
    factor: float,
    worse: bool,
    passing: Findings,
    tmp_path: Path,
) -> None:
    old = Findings("out", with_onnx(passing.report, with_ratios(ratio, before)))
    new = with_onnx(passing.report, with_ratios(ratio, now))
    clauses = compared(old, new, tmp_path / "b.json", factor)
    expected = f"model.onnx has the {words} ratio {now:.3g} where it had {before:.3g}"
    assert clauses == ((expected,) if worse else ())


@pytest.mark.parametrize(
    ("change", "clause"),
    [
        (with_classes("top1", 0), "proves the best class for 16/17 images where it was 17/17"),
        (
            with_classes("top5", 0),
            "proves the five best classes for 16/17 images where it was 17/17",
        ),
        (
            with_tensors(identical=1),
            "has 1 tensors identical to the weights where it had 34",
        ),
        (with_tensors(recomputed=59), "has 59 recomputed tensors where it had 58"),
        (
            lambda verdict: dataclasses.replace(verdict, tensors=None),
            "has no proof of its tensors any more",
        ),
        (
            lambda verdict: dataclasses.replace(verdict, precision="float16"),
            "computes in float16 where it computed in float32",
        ),
    ],
)
def test_less_proof_than_before_is_a_regression_and_more_is_none(
    change: Callable[[Verdict], Verdict], clause: str, passing: Findings, tmp_path: Path
) -> None:
    less = with_onnx(passing.report, change)
    assert compared(passing, less, tmp_path / "b.json") == (f"model.onnx {clause}",)


def test_more_proof_than_before_is_no_regression(passing: Findings, tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    for change in (
        with_classes("top1", 0),
        with_tensors(identical=1),
        with_tensors(recomputed=60),
    ):
        less = Findings("out", with_onnx(passing.report, change))
        assert compared(less, passing.report, path) == ()


def test_findings_with_a_regression_are_no_pass(passing: Findings) -> None:
    worse = dataclasses.replace(passing, regressions=("model.onnx of the baseline is gone",))
    assert passing.passed
    assert not worse.passed
    assert worse.failures == ("model.onnx of the baseline is gone",)
    assert worse.headline == "FAIL: 4 of 4 pass, 1 worse than in the baseline"
    with pytest.raises(VerificationError, match=r"^It is not, for .*: model\.onnx .* is gone\.$"):
        worse.require_pass("It is not")
    dataclasses.replace(passing, regressions=()).require_pass("It is not")


def _text(change: Callable[[dict[str, Any]], object]) -> Callable[[dict[str, Any]], str]:
    def text(record: dict[str, Any]) -> str:
        change(record)
        return json.dumps(record)

    return text


@pytest.mark.parametrize(
    "text",
    [
        lambda _: "",
        lambda _: "not JSON",
        lambda _: "[]",
        lambda _: "null",
        lambda _: '{"schema": 1}',
        lambda _: "[" * 100_000,
        _text(lambda record: record.update(schema=2)),
        _text(lambda record: record.pop("schema")),
        _text(lambda record: record.update(verdicts={"a": 1})),
        _text(lambda record: record["verdicts"].append(None)),
        _text(lambda record: record["verdicts"][1].update(passed="yes")),
        _text(lambda record: record["verdicts"][1].pop("measurements")),
        _text(lambda record: record["verdicts"][1]["measurements"][0].update(rms_ratio="1")),
        _text(lambda record: record["verdicts"][1]["measurements"][0].update(top1=[1])),
        _text(lambda record: record["verdicts"][1].update(tensors=[])),
    ],
)
def test_a_file_that_is_no_report_is_refused_in_one_sentence(
    text: Callable[[dict[str, Any]], str], passing: Findings, tmp_path: Path
) -> None:
    path = tmp_path / "b.json"
    path.write_text(text(passing.to_dict()))
    with pytest.raises(InputError, match=r"^The baseline .*b\.json .*`regnet verify --json`.*\.$"):
        read_baseline(path)


def test_a_missing_or_binary_baseline_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot be used \(no such file or directory\)"):
        read_baseline(tmp_path / "b.json")
    (tmp_path / "b.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"cannot be used \(it is no report\)"):
        read_baseline(tmp_path / "b.json")
