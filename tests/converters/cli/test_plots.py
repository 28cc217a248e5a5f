"""`--plot` of three commands: an SVG file beside the table, or on stdout in its place."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree as ET

import pytest

from converters.cli.app import app
from converters.cli.bench import timing_plot
from converters.cli.compare import comparison_plot
from converters.cli.endings import run_app
from converters.jobs.bench import Bench
from converters.jobs.compare import compare
from converters.jobs.timing import Contender, Entry, Timing
from tests.converters.cli.running import regnet, without_torch
from tests.converters.demo import CHECKPOINT, WARNED

if TYPE_CHECKING:
    from converters.jobs.timing import VerdictWord

DOCS = Path(__file__).parents[3] / "docs"


def texts(svg: str) -> list[str]:
    root = ET.fromstring(svg)  # noqa: S314 -- our own
    return [element.text or "" for element in root.iter("{http://www.w3.org/2000/svg}text")]


def test_a_network_is_drawn_without_torch(tmp_path: Path) -> None:
    env = without_torch(tmp_path / "site")
    finished = regnet("inspect", CHECKPOINT, "--plot", "net.svg", cwd=tmp_path, env=env)
    assert (finished.status, finished.err) == (0, WARNED)
    assert "419,476 parameters" in finished.out
    svg = (tmp_path / "net.svg").read_text("utf-8")
    assert {"stage 4", "192 channels", "10 classes", "24 groups of 8"} <= set(texts(svg))
    piped = regnet("inspect", CHECKPOINT, "--plot", "-", cwd=tmp_path)
    assert piped.out == svg == (DOCS / "demo-network.svg").read_text("utf-8")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--plot", "net.png"], "--plot draws SVG, and net.png does not end in .svg; name it so."),
        (
            ["--plot", "-", "--json"],
            "Two reports would go to stdout; name a file for all but one.",
        ),
        (
            ["--plot", "net.svg", "--security"],
            "--security reads no network, so there is none to draw; leave --plot out.",
        ),
    ],
)
def test_what_cannot_be_drawn_is_said(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_app(app, "regnet", ["inspect", str(CHECKPOINT), *arguments]) == 2
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", f"{sentence}\n")


def entry(runtime: str, verdict: VerdictWord, *timings: Timing | str) -> Entry:
    return Entry(Contender(runtime, 2), runtime.upper(), runtime, "float32", 1, verdict, timings)


def test_times_are_drawn_for_each_image_with_their_verdicts() -> None:
    one = Timing(1, 0.004, 0.003, 0.005, 20)
    eight = Timing(8, 0.016, 0.015, 0.02, 20)
    entries = [
        entry("torch", "pass", Timing(1, 0.02, 0.019, 0.021, 20), Timing(8, 0.1, 0.1, 0.1, 20)),
        entry("onnx", "pass", one, eight),
        entry("int8", "FAIL", one, "it takes one image"),
    ]
    one_best = Bench([entries[0], entry("onnx", "pass", one)], {}, 224, 2, 0.25)
    both = "4 ms, pass; for one answer soon and for many images"
    assert both in texts(timing_plot(one_best))
    shown = texts(timing_plot(Bench(entries, {}, 224, 2, 0.25)))
    assert {"one image at once", "8 images at once", "ONNX, 2 threads"} <= set(shown)
    assert "4 ms, pass; for one answer soon" in shown
    assert "2 ms, pass; for many images" in shown
    assert {"4 ms, FAIL", "it takes one image"} <= set(shown)
    assert "224 x 224 pixels on 2 cores, load 0.2 before" in shown


def test_two_networks_are_drawn_with_what_decided(demo_folder: Path) -> None:
    comparison = compare(CHECKPOINT, demo_folder)
    shown = texts(comparison_plot(comparison))
    assert shown[0] == "A and B are the same network"
    assert {"logits", "native", "limit 4", "B's model.onnx"} <= set(shown)
    assert "A: RegNetY-FashionMNIST.pyth, checkpoint of pycls" in shown
    assert comparison.verdict is not None
    for measured in comparison.verdict.measurements:
        assert any(words.startswith(f"{measured.rms_ratio:.3g}, ") for words in shown)
