"""A conversion whose artefact is wrong publishes nothing."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from typing import TYPE_CHECKING

import onnx
import pytest

from converters.cli.main import run_convert
from converters.formats.registry import FORMATS
from converters.jobs.convert import convert
from converters.parity.report import VerificationError
from tests.converters.demo import CHECKPOINT, WARNED, snapshot
from tests.converters.parity.wrong import GRAPH_MISTAKES

if TYPE_CHECKING:
    from pathlib import Path

    from converters.folder.folder import ConvertedFolder
    from converters.formats.format import ExportOptions


@pytest.fixture
def _wrong_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    """An ONNX exporter that forgets a bias."""
    right = FORMATS["onnx"]

    def wrong(folder: ConvertedFolder, path: Path, options: ExportOptions) -> None:
        right.export(folder, path, options)
        model = onnx.load(path)
        GRAPH_MISTAKES["a bias dropped"](model, folder.path)
        onnx.save(model, path)

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(right, export=wrong))


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "config.json").write_text("mine")
    return tmp_path


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int | str | None:
    """Run ``convert-pycls`` in this process; return its exit status."""
    monkeypatch.setattr(sys, "argv", ["convert-pycls", *map(str, arguments)])
    listening = signal.getsignal(signal.SIGINT)
    with pytest.raises(SystemExit) as caught:
        run_convert()
    signal.signal(signal.SIGINT, listening)
    return caught.value.code


@pytest.mark.usefixtures("_wrong_exporter")
def test_convert_raises_with_the_verdicts_and_publishes_nothing(existing: Path) -> None:
    before = snapshot(existing)
    with pytest.raises(
        VerificationError, match=r"model\.onnx, .* error of logits is .*\.$"
    ) as caught:
        convert(CHECKPOINT, existing / "out", force=True)
    assert [verdict.passed for verdict in caught.value.report.verdicts] == [True, False, True]
    assert snapshot(existing) == before


@pytest.mark.usefixtures("_wrong_exporter")
def test_the_command_exits_with_1_and_shows_the_verdicts(
    existing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = snapshot(existing)
    assert command(monkeypatch, CHECKPOINT, existing / "out", "--force") == 1
    out, err = capsys.readouterr()
    assert "FAIL" in out
    assert "is ready" not in out
    assert err.startswith(WARNED)
    assert err.count("\n") == 2
    assert "model.onnx, " in err
    assert snapshot(existing) == before

    assert command(monkeypatch, CHECKPOINT, existing / "new", "--json") == 1
    record = json.loads(capsys.readouterr().out)
    assert not record["verification"]["passed"]
    assert snapshot(existing) == before


def test_an_interrupted_conversion_leaves_nothing(
    existing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    interrupted = dataclasses.replace(FORMATS["torchscript"], export=interrupt)
    monkeypatch.setitem(FORMATS, "torchscript", interrupted)
    before = snapshot(existing)
    assert command(monkeypatch, CHECKPOINT, existing / "out", "--force", "-q") == 130
    assert capsys.readouterr().err == "Interrupted; the next run takes up whatever is left.\n"
    assert snapshot(existing) == before


def test_a_bug_looks_like_no_result(
    existing: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def crash(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setitem(FORMATS, "onnx", dataclasses.replace(FORMATS["onnx"], export=crash))
    before = snapshot(existing)
    assert command(monkeypatch, CHECKPOINT, existing / "out", "--force", "-q") == 4
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("Internal error: ZeroDivisionError")
    assert err.count("\n") == 1
    assert snapshot(existing) == before
