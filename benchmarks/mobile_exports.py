"""What exporting for phones and JAX costs, verdicts included, beside the export of ONNX.

``python -m benchmarks.mobile_exports [--network RegNetY-4.0GF]`` makes a checkpoint by the real
pycls, converts it, and exports it once in each format in turn, as whole processes on one thread.
int8 may cost any part of top-1, since a network that knows no classes would leave most layers in
float. It prints the table of processor times and writes it into ``docs/benchmarks.md``.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.measure import Summary, Usage, measure
from benchmarks.tables import (
    Target,
    in_words,
    installed,
    machine,
    markdown,
    replace_measured,
    targets_table,
)

CHECKOUT = Path(__file__).resolve().parent.parent

FORMATS = {
    "onnx": "onnx",
    "ncnn": "onnx",
    "litert": "onnx",
    "litert-fp16": "onnx",
    "coreml": "onnx",
    "coreml-fp16": "onnx",
    "stablehlo": "onnx",
    "onnx-int8": "onnx-int8",
    "litert-int8": "onnx-int8",
}
"""What is exported, and what it is held against."""

LIMIT = 2.0
"""How many times as long as ONNX each may take."""

_CHECKPOINT = """
import sys
from pathlib import Path
from tests.oracles.pycls import build, halve_branches, published, save
network = published(sys.argv[1])
save(Path(sys.argv[2]), halve_branches(build(network)), network)
"""
"""Branches that are drawn at random amplify rounding as trained ones do not, int8's above all."""

_INT8 = """
import sys
from converters import export
export("out", [sys.argv[1]], calibration_images="pictures", largest_loss=1.0)
"""

_PICTURES, _SIDE = 8, 256
"""To calibrate int8 on; more would take longer in both formats. They are noise, as what int8 is
verified on: of smooth pictures drawn weights make activations that are ten times as large."""


def main() -> None:
    """Prepare, measure, print, and write the page."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--network", default="RegNetY-4.0GF")
    parser.add_argument("--runs", type=int, default=3, help="rounds in which each is exported once")
    parser.add_argument("--formats", nargs="+", default=FORMATS, help="beside those held against")
    arguments = parser.parse_args()
    os.environ |= {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
    conditions = (
        f"{arguments.network}, one thread. {machine()} "
        f"{installed('torch', 'onnxruntime', 'ncnn', 'ai-edge-litert', 'jax')}. {arguments.runs} "
        "rounds in turn; median (smallest to largest)."
    )
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        commands = _prepare(arguments.network, work)
        others = {FORMATS[name] for name in arguments.formats}
        chosen = {key: commands[key] for key in FORMATS if key in {*arguments.formats, *others}}
        summaries = _measured(chosen, arguments.runs, work)
    text = "\n\n".join([conditions, *_tables(summaries)])
    sys.stdout.write(f"{text}\n")
    replace_measured("mobile_exports", text)


def _prepare(network: str, work: Path) -> dict[str, list[str]]:
    """Make a folder and pictures; the command of each format."""
    python, program = sys.executable, str(Path(sys.executable).parent / "regnet")
    (work / "pictures").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (_PICTURES, _SIDE, _SIDE, 3), np.uint8)
    for index, picture in enumerate(pixels):
        Image.fromarray(picture).save(work / "pictures" / f"{index}.png")
    for command in (
        [python, "-c", _CHECKPOINT, network, str(work / "net.pyth")],
        [program, "convert", str(work / "net.pyth"), str(work / "out"), "--no-verify"],
    ):
        subprocess.run(command, cwd=CHECKOUT, check=True, stdout=sys.stderr)  # noqa: S603 -- ours
    return {
        name: [python, "-c", _INT8, name]
        if name.endswith("int8")
        else [program, "export", "out", "--format", name]
        for name in FORMATS
    }


def _measured(commands: dict[str, list[str]], runs: int, work: Path) -> dict[str, Summary]:
    """Run each command once a round; processor time needs no warm-up."""
    usages: dict[str, list[Usage]] = {key: [] for key in commands}
    for _ in range(runs):
        for key, command in commands.items():
            usages[key].append(measure(command, work, work / f"{key}.log"))
            _say(f"{key} took {usages[key][-1].cpu:.2f} s")
    return {key: Summary.of(of_key) for key, of_key in usages.items()}


def _tables(summaries: dict[str, Summary]) -> list[str]:
    """Processor time of each format, and which promises are kept."""
    rows = [["`--format`", "CPU, s", "of the time of"]]
    targets = []
    for name, other in FORMATS.items():
        if name not in summaries:
            continue
        own = summaries[name]
        ratio = own.cpu.median / summaries[other].cpu.median
        rows.append([f"`{name}`", in_words(own.cpu), f"`{other}`: {ratio:.2f}"])
        if name != other:
            title = f"`{name}` in at most {LIMIT:.0f} times the processor time of `{other}`"
            targets.append(Target(title, ratio, LIMIT, "times", at_least=False))
    return [markdown(rows), targets_table(targets)]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")


if __name__ == "__main__":
    main()
