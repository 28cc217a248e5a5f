"""The table of verdicts as it looks on screens of several widths and in a log."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from converters.cli import console
from converters.cli.console import Output
from converters.cli.tables import outcome_line, report_table, to_verify
from converters.parity.contents.tensors import TensorCertificate
from converters.parity.metrics import Errors, TopK
from converters.parity.report import Report
from converters.parity.verdict import NOT_RUN, Measurement, Verdict

SCREENS = Path(__file__).parent / "screens"
WIDTHS = ("60", "80", "120", "200", "log")


def verdict(
    artefact: str,
    runtime: str,
    ratio: float,
    proof: TensorCertificate | None = None,
    precision: str = "float32",
) -> Verdict:
    unit = Errors(1e-6, 1e-7)
    failure = "RMS error of logits is 133 times honest int8's own, limit 4" if ratio > 4 else None
    measurement = Measurement(
        *("native", "logits", (1, 10), Errors(1e-6 * ratio, 1e-7 * ratio), unit, ratio, ratio),
        *(TopK(1, 17, 17, 16), TopK(5, 17, 17, 15), failure),
    )
    return Verdict(artefact, runtime, precision, (measurement,), proof)


REPORT = Report(
    (
        verdict("model.safetensors", "torch 2.13.0", 0.495),
        verdict("model.onnx", "onnxruntime 1.32.0", 0.602, TensorCertificate(34, 58, 1)),
        verdict(
            "onnx/model_with_preprocessing.onnx",
            "onnxruntime 1.32.0",
            0.61,
            TensorCertificate(34, 58, 0),
        ),
        verdict(
            "onnx/model_quantized.onnx",
            "onnxruntime 1.32.0",
            133,
            TensorCertificate(3, 58, 0),
            "int8",
        ),
        Verdict(
            "model.mlpackage",
            NOT_RUN,
            "float32",
            (),
            TensorCertificate(34, 58, 0),
            "Core ML runs on macOS alone",
        ),
    )
)


def printed(width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """What appears where ``COLUMNS`` says so, or in a log."""
    for name in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    if width != "log":
        monkeypatch.setenv("COLUMNS", width)
    Output().result(report_table(REPORT), outcome_line(REPORT))
    return capsys.readouterr().out


@pytest.mark.parametrize("width", WIDTHS)
def test_the_table_of_verdicts_looks_as_it_did(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """To renew one, write what is printed into its file, and look at it."""
    assert printed(width, monkeypatch, capsys) == (SCREENS / f"{width}.txt").read_text("utf-8")


@pytest.mark.parametrize("width", WIDTHS)
def test_every_screen_says_everything(
    width: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = printed(width, monkeypatch, capsys)
    lines = text.splitlines()
    assert all(len(line) <= int(width) for line in lines if width != "log")
    assert [line for line in lines if line != line.rstrip()] == []
    words = re.sub(r"[┃│]? *\n[┃│]? *", " ", text)
    for row in REPORT.verdicts:
        assert any(row.artefact in line for line in lines)
        assert row.runtime in text
    for said in ("34 identical, 58 recomputed", "17/17", "16/17", "0.602", "FAIL", "not run"):
        assert said in words
    assert "RMS ratio: the error in units of" in words
    assert "docs/glossary.md" in words
    assert words.rstrip().endswith(
        "3 of 5 pass, 1 fails, 1 not run; what to do: docs/troubleshooting.md"
    )


def test_what_to_copy_is_for_a_shell() -> None:
    assert to_verify(Path("my out")) == "regnet verify 'my out'"


def test_names_are_no_markup(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    Output().result("[bold]out[/bold] is ready :smile:")
    assert capsys.readouterr().out == "[bold]out[/bold] is ready :smile:\n"


def test_a_bar_counts_bytes_only_where_it_is_known_how_many(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with Output().progress() as progress:
        progress.step("TorchScript")
        now[0] += 2
        progress.step("weights", 1000)
        progress.advance(500)
        progress._bar.refresh()
        progress.step("checksums")
        progress._bar.refresh()
    shown = re.sub("\x1b\\[[0-9;?]*[A-Za-z]", "", capsys.readouterr().err)
    assert "0.5/1.0 kB" in shown
    assert "checksums" in shown
    assert "?" not in shown


def test_a_log_says_each_minute_how_far_a_job_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for quiet in (False, True):
        with Output(quiet=quiet).progress("items") as progress:
            progress.step("timing", 100)
            for _ in range(20):
                now[0] += 10
                progress.advance(1)
            progress.step("int8: layer 3 of 40 alone")
            now[0] += 61
            progress.step("int8: layer 4 of 40 alone")
            now[0] += 121
            progress.retitle("int8: layer 4 of 40 alone, once more")
            progress._say()
    assert capsys.readouterr().err.splitlines() == [
        "timing: 6 %, 16 min left",
        "timing: 12 %, 15 min left",
        "timing: 18 %, 14 min left",
        "int8: layer 4 of 40 alone",
        "int8: layer 4 of 40 alone, once more: 2 min so far",
    ]


def test_a_log_says_it_while_a_long_step_moves_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(console, "_SAY_EVERY", 0.05)
    for quiet in (False, True):
        with Output(quiet=quiet).progress() as progress:
            progress.step("ExecuTorch" if not quiet else "nothing")
            time.sleep(0.3)
    said = capsys.readouterr().err.splitlines()
    assert {line.partition(":")[0] for line in said} == {"ExecuTorch"}
    time.sleep(0.1)
    assert capsys.readouterr().err == ""
